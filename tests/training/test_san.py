"""SAN's head: against the authors' code, under every loss and in every family."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.interop import export
from biggan_jax.models import heads
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from biggan_jax.training import judge, objectives
from tests.models.test_biggan import inputs as of_model
from tests.models.test_biggan import section
from tests.training.test_penalties import FAKE, FAKE_Y, REAL, F, Y, close, double, part  # noqa: F401

KEY = jax.random.key(0)


class Small(nn.Module):
    """The fixture's D below its last layer, and the package's head."""

    @nn.compact
    def __call__(self, images, labels, train=False):
        normal = nn.initializers.normal()
        w1 = self.param("w1", normal, (images[0].size, 4))
        b1 = self.param("b1", normal, (4,))
        h = jnp.tanh(images.reshape(len(images), -1) @ w1 + b1[None])
        return heads.logits(h, labels, train, LayerSettings(d_head="san"), 3)


def params(common=0.0):
    d = part("D")
    common = jnp.full((4, 1), common)
    head = {"linear": {"kernel": common}, "embed": {"embedding": d["e"]}}
    return {"w1": d["w1"], "b1": d["b1"]} | head


def d_loss(p, loss="hinge", **strengths):
    regularizer = default_config().regularizer
    regularizer.update(strengths)
    game = objectives.build(loss, regularizer)
    D = judge.Judge(Small(), p, {}, sharding.make_mesh((1, 1)))
    return game.d_objective(D, REAL, Y, FAKE, FAKE_Y, KEY, 0)


def test_equals_the_authors_code():
    """One vector a class, as theirs: the common one is 0."""
    (value, metrics), grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(params())
    close(value, F["san"])
    theirs = part("san/grad")
    close(grads["w1"], theirs["w1"])
    close(grads["embed"]["embedding"], theirs["e"])
    # Each class's vector is the sum of both, so the common one gets the sum of their gradients.
    close(grads["linear"]["kernel"][:, 0], theirs["e"].sum(0))

    def g_loss(fake):
        D = judge.Judge(Small(), params(), {}, sharding.make_mesh((1, 1)))
        game = objectives.build("hinge", default_config().regularizer)
        return game.g_objective(D, fake, FAKE_Y, None, None, KEY)[0]

    value, grad = jax.value_and_grad(g_loss)(FAKE)
    close(value, F["san_g"])
    close(grad, F["san_g/grad/fake"])
    close(Small().apply({"params": params()}, REAL, Y), F["san/logits"])
    names = ("d_loss_real", "d_loss_fake", "san_direction")
    close(metrics["d_loss"], sum(metrics[name] for name in names))


@pytest.mark.parametrize("loss", objectives.LOSSES)
def test_each_half_trains_what_is_its_own(loss):
    """The game's gradient is along w; the direction's is across it; a penalty has no part in that.

    With a common vector, under every loss.
    """
    p = params(0.3)
    w = p["linear"]["kernel"][:, 0][None] + p["embed"]["embedding"]
    across = lambda v: v - (v * w).sum(1, keepdims=True) / (w * w).sum(1, keepdims=True) * w
    gradient = lambda **kw: jax.grad(lambda p: d_loss(p, loss, **kw)[0])(p)["embed"]["embedding"]
    plain, penalised = gradient(), gradient(r1=3.0, wgan_gp=2.0)
    h = np.tanh(np.concatenate([REAL, FAKE]).reshape(8, -1) @ p["w1"] + p["b1"])
    # of mean <h, w / |w|> |w| over fakes less that over reals, w / |w| alone having a gradient
    slope = np.zeros_like(w)
    for sign, rows, labels in ((-1, h[:4], Y), (1, h[4:], FAKE_Y)):
        np.add.at(slope, labels, sign * rows / 4)
    close(across(plain), across(slope))
    close(across(penalised), across(slope))
    assert np.abs(plain - across(plain)).max() > 1e-3
    assert np.abs(penalised - plain).max() > 1e-3


@pytest.mark.parametrize("name", models.REGISTRY)
@pytest.mark.parametrize("num_classes", [1, 10])
def test_every_family(name, num_classes):
    """No spectral norm and no bias in the head, and in a trace both halves are there."""
    m = section(name=name, resolution=32 if name == "dcgan" else 16, num_classes=num_classes)
    m.d_head, m.ch = "san", 8
    D = models.build(m, dtype=jnp.bfloat16)[1]
    _, labels, images = of_model(m)
    variables = jax.eval_shape(D.init, KEY, images, labels)
    head = variables["params"]["linear"]
    assert head.keys() == {"kernel"} and not {"linear", "embed"} & variables["spectral"].keys()
    assert ("embed" in variables["params"]) == (num_classes > 1)
    forward = lambda v: D.apply(v, images, labels, True, mutable=["spectral"])[0]
    out = jax.eval_shape(forward, variables)
    assert [(x.shape, x.dtype) for x in out] == [((2,), jnp.float32)] * 2
    assert jax.eval_shape(lambda v: D.apply(v, images, labels), variables).shape == (2,)


def test_a_vector_of_zeros_has_finite_gradients():
    p = params()
    p["embed"]["embedding"] = jnp.zeros((3, 4))
    grads = jax.grad(lambda p: d_loss(p)[0])(p)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_a_wrong_word_is_refused():
    with pytest.raises(UserError, match="d_head is 'sam'.*did you mean.*set --config.model.d_head"):
        models.build(section(d_head="sam"))


def test_biggan_pytorch_has_no_such_head(monkeypatch, tmp_path):
    c = default_config()
    c.model = section(d_head="san")
    monkeypatch.setattr(export, "load", lambda *_: export.Loaded(c, {}, 0))
    with pytest.raises(UserError, match="d_head san: export with --format safetensors"):
        export.to_biggan_pytorch(tmp_path, tmp_path / "out")
