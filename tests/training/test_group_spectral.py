"""gSR: against the authors' code, singular values, and G's own gains; in the step of both kinds of
conditioning."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import conditioning
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import group_spectral
from biggan_jax.training.group_spectral import GroupSpectral
from tests import small_state
from tests.models.test_biggan import inputs, section
from tests.training.test_objectives import build, config, gradients
from tests.training.test_penalties import F, close, double, part  # noqa: F401

TABLES = {"shared_embedding": False, "hierarchical_z": False}


def generator(**changes):
    m = section(**changes)
    return models.build(m, param_dtype=jnp.float64)[0]


def assert_equals_fixture(name, params, theirs):
    G = generator(g_spectral_norm=False)
    value, grads = GroupSpectral(G, 0.5)(params, {})
    close(value, F[name])
    jax.tree.map(close, grads, theirs)


def test_equals_the_authors_code():
    """Two layers on a shared embedding, and lookup tables; weight 0.5."""

    def tree(get):
        blocks = {
            f"block_{i}": {
                "bn1": {name: {"kernel": get(f"{name}_{i}")} for name in ("gain", "bias")}
            }
            for i in (0, 1)
        }
        return blocks | {"shared": {"embedding": get("shared")}}

    shared = {k: v for k, v in part("gsr").items() if not k.startswith("grad/")}
    assert_equals_fixture("gsr", tree(shared.get), tree(part("gsr/grad").get))
    tables = lambda get: {"bn": {name: {"embedding": get(name)} for name in ("gain", "bias")}}
    assert_equals_fixture(
        "gsr_tables", tables(part("gsr_tables").get), tables(part("gsr_tables/grad").get)
    )


@pytest.mark.parametrize("shape", [(5, 3, 4), (5, 4, 3), (2, 1, 6), (2, 6, 1)])
def test_largest_is_the_first_singular_value(shape):
    m = np.random.default_rng(0).standard_normal(shape)
    m[0] = 0
    value, gradient = jax.value_and_grad(lambda m: group_spectral.largest(m).sum())(jnp.asarray(m))
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    close(value, s[:, 0].sum())
    close(gradient[1:], (u[:, :, :1] * vt[:, :1])[1:])
    assert np.isfinite(gradient).all()
    close(group_spectral.largest(jnp.eye(3)[None] * 2), [2])  # all of them the largest


class OneNorm(nn.Module):
    """A generator of one batch norm on the shared embedding and z."""

    cond_order: str
    num_classes: int = 3
    dim_z: int = 2
    settings: LayerSettings = LayerSettings(param_dtype=jnp.float64)

    @nn.compact
    def __call__(self, z, labels, train=False):
        s = self.settings
        embedding = conditioning.class_embedding(labels, train, s, self.num_classes, 5)
        condition = conditioning.join(embedding, z.astype(s.dtype), self.cond_order)
        x = jnp.zeros((len(z), 2, 2, 12), s.dtype)
        return conditioning.batch_norm(s, condition, self.num_classes, "bn1")(x, train)


def of_family(name):
    m = section(name=name, ch=8, num_classes=3)
    return models.build(m, param_dtype=jnp.float64)[0]


@pytest.mark.parametrize(
    "G",
    [
        OneNorm("embedding_z"),
        OneNorm("z_embedding"),
        pytest.param("biggan", marks=pytest.mark.full),
        pytest.param("biggan_deep", marks=pytest.mark.full),
    ],
)
def test_the_gains_are_those_that_g_uses(G):
    """What its layers give for every class when z is zero, spectral norm included."""
    G = of_family(G) if isinstance(G, str) else G
    z, labels = jnp.zeros((3, G.dim_z)), jnp.arange(3)
    shapes = jax.eval_shape(G.init, jax.random.key(0), z, labels)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), shapes)
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    seen = []

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.module.name in ("gain", "bias") and context.method_name == "__call__":
            seen.append(np.asarray(out))
        return out

    with nn.intercept_methods(watch):
        G.apply(variables, z, labels, train=False)
    want = [
        np.linalg.svd(group_spectral._grouped(table, None), compute_uv=False)[:, 0] ** 2
        for table in seen
    ]
    got = GroupSpectral(G, 1.0).penalty(variables["params"], variables["spectral"])
    np.testing.assert_allclose(got, 2 * np.mean(want), rtol=1e-5)  # activations are float32


def test_rare_classes_weigh_more():
    """By their effective number of images; without counts, and with a beta of 0, all alike."""
    got = group_spectral.class_weights((1000, 10, 1, 0), 0.99)
    effective = np.array([(1 - 0.99**n) / 0.01 for n in (1000, 10, 1, 1)])
    close(got, 4 / effective / (1 / effective).sum())
    G = generator(num_classes=2)
    rng = np.random.default_rng(0)
    table = lambda: {"embedding": jnp.asarray(rng.standard_normal((2, 6)))}
    params = {"bn": {"gain": table(), "bias": table()}}
    alike = GroupSpectral(G, 1.0).penalty(params, {})
    first, second = (GroupSpectral(G, 1.0, None, w).penalty(params, {}) for w in ((2, 0), (0, 2)))
    close(alike, (first + second) / 2)
    assert abs(first - second) > 0.1
    c = config(**{"regularizer.g_group_spectral": 0.5, "regularizer.g_spectral_beta": 0.9})
    G = generator(num_classes=10)
    assert group_spectral.of_config(c, G).weights is None
    c.data.class_counts = (9, *[1] * 9)
    assert group_spectral.of_config(c, G).weights[0] < group_spectral.of_config(c, G).weights[1]


def test_a_step_has_it():
    """In a trace; without a strength, nothing of it."""
    for strength, there in ((0.0, False), (0.5, True)):
        train_step = build(config(**{"regularizer.g_group_spectral": strength}))
        state = jax.eval_shape(train_step.init, jax.random.key(0))
        of_g = (jnp.ones((4, 12), jnp.float32), jnp.arange(4, dtype=jnp.int32))
        real = jnp.ones((4, 16, 16, 3), jnp.float32)
        _, metrics = jax.eval_shape(train_step.g_step, state, *of_g, real, of_g[1])
        assert ("g_group_spectral" in metrics) == there


@pytest.mark.full
def test_it_is_added_to_the_gradient_of_g():
    """And is in the metrics; nothing else changes, the penalties of D included."""
    plain = {"model.g_attention": (), "model.d_attention": (), "loss": "hinge"}
    with jax.enable_x64(False):
        found = {}
        for strength in (0.0, 0.5):
            train_step = build(config(**plain, **{"regularizer.g_group_spectral": strength}))
            state = small_state.cheap_state(train_step)
            z, y = np.ones((4, 12), np.float32), np.arange(4, dtype=np.int32)
            found[strength] = jax.jit(train_step.g_step)(state, z, y)
        g = state.generator
        gsr = GroupSpectral(train_step.generator, 0.5)
        want = jax.grad(gsr.penalty)(g.params, found[0.5][0].generator.spectral)
        extra = gradients(found[0.0][0].generator.params, found[0.5][0].generator.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), extra, want)
        assert found[0.5][1]["g_group_spectral"] > 1e-3
        assert "g_group_spectral" not in found[0.0][1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.num_classes": 1}, ("no batch norm of this G knows classes", "spectral=0")),
        (
            {"regularizer.g_spectral_groups": 7},
            ("is 7 and does not divide the 16 ch", "one of 1, 2, 4, 8, 16"),
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    c = config(**{"regularizer.g_group_spectral": 0.5}, **changes)
    with pytest.raises(UserError) as error:
        build_lib.train_step(c, sharding.make_mesh((1, 1)))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_family_has_batch_norms_of_classes(name):
    m = section(name=name, ch=8, resolution=32 if name == "dcgan" else 16)
    G = models.build(m)[0]
    z, labels, _ = inputs(m)
    variables = jax.eval_shape(G.init, jax.random.key(0), z, labels)
    tables = sum(1 for _ in group_spectral._conditional(variables["params"]))
    assert tables >= 3
    spectral = variables.get("spectral", {})
    value, _ = jax.eval_shape(GroupSpectral(G, 1.0), variables["params"], spectral)
    assert value.shape == ()
