"""Objectives: against textbook forms by autodiff, R3GAN's own code, and across layouts."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from biggan_jax import models
from biggan_jax.config import default_config
from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import microbatches, objectives, step
from tests import small_state
from tests.models.test_biggan import section
from tests.training.test_step import assert_same, batch_for, with_sgd

PEER = Path(__file__).parent.parent / "fixtures" / "r3gan_objective.npz"
GAMMA = 0.7


def config(**changes):
    """RpGAN with R1 and R2 at 16 pixels; keys of `changes` are dotted."""
    c = default_config()
    c.model = section(ch=4)
    c.batch_size, c.num_d_steps = 16, 1
    c.loss, c.regularizer.r1, c.regularizer.r2 = "relativistic", GAMMA, GAMMA / 2
    c.regularizer.g_orthogonal, c.ema.start_step, c.ema.decay = 0.0, 0, 0.9
    c.update_from_flattened_dict(changes)
    return c


def build(c, mesh=(1, 1), wide=False):
    """The step under SGD of rate 1, so that a difference of parameters is a gradient."""
    dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64} if wide else {}
    players = models.build(c.model, **({"dtype": c.compute_dtype, "remat": c.remat} | dtypes))
    train_step = build_lib.train_step(c, sharding.make_mesh(mesh), players=players)
    sgd = optax.sgd(1.0)
    return dataclasses.replace(train_step, g_optimizer=sgd, d_optimizer=sgd)


def inputs(n=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 1, (n, 16, 16, 3)).astype(dtype)
    labels = rng.integers(0, 10, n).astype(np.int32)
    return real, labels, rng.standard_normal((n, 12)).astype(dtype)


def gradients(before, after):
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before, after)


def test_equals_r3gan():
    """Its AdversarialTraining, on weights, images and labels of the fixture (float64)."""
    f = np.load(PEER)
    part = lambda prefix: {k[len(prefix) :]: f[k] for k in f.files if k.startswith(prefix)}
    y, real, z = f["in/y"], f["in/real"], f["in/z"]

    def logits(p, x, y):
        h = jnp.tanh(x.reshape(len(x), -1) @ p["w1"] + p["b1"][None])
        return h @ p["w2"] + (h * p["e"][y]).sum(1)

    def images(p, z, y):  # its images are [C, H, W]; the fixture's first layer sees [H, W, C]
        return jnp.tanh(z @ p["w"] + p["e"][y]).reshape(real.shape)

    with jax.enable_x64(True):
        c = default_config().regularizer
        c.r1 = c.r2 = float(f["in/gamma"])
        game = objectives.build("relativistic", c)
        d, g, key = part("D/"), part("G/"), jax.random.key(0)
        fake = images(g, z, y)

        def d_loss(p):
            D = functools.partial(logits, p)
            return game.d_objective(D, real, y, fake, y, key, 0)

        def g_loss(p):
            D = functools.partial(logits, d)
            return game.g_objective(D, images(p, z, y), y, real, y, key)

        (total, metrics), d_grads = jax.value_and_grad(d_loss, has_aux=True)(d)
        (g_total, _), g_grads = jax.value_and_grad(g_loss, has_aux=True)(g)
    half = f["in/gamma"] / 2
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    close(total, f["d/adversarial"] + half * (f["d/r1"] + f["d/r2"]).mean())
    close(metrics["r1"], half * f["d/r1"].mean())
    close(metrics["r2"], half * f["d/r2"].mean())
    close(metrics["d_real"] - metrics["d_fake"], f["d/relativistic"].mean())
    close(g_total, f["g/adversarial"])
    for ours, theirs in ((d_grads, part("d/grad/")), (g_grads, part("g/grad/"))):
        assert ours.keys() == theirs.keys()
        jax.tree.map(close, ours, theirs)


@pytest.mark.full
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_steps_equal_the_textbook(spectral_norm):
    """Values and gradients of a whole update of either player, to 1e-9 in float64.

    Per-example gradients of single images, and separate forwards, in place of what the code does.
    """
    places = {"model.g_attention": (8,), "model.d_attention": (8,)}
    c = config(**{"model.d_spectral_norm": spectral_norm}, **places)
    with jax.enable_x64(True):
        train_step = build(c, wide=True)
        state = small_state.cheap_state(train_step)
        state = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state
        )
        real, y, z = inputs()
        g, d = state.generator, state.discriminator
        new_d, d_metrics = jax.jit(train_step.d_step)(state, real, y, z, y)
        new_g, g_metrics = jax.jit(train_step.g_step)(state, z, y, real, y)
        collections = ["spectral", "batch_stats"]
        D, G = train_step.discriminator, train_step.generator
        generate = lambda p: G.apply(g.variables | {"params": p}, z, y, True, mutable=collections)
        fake = generate(g.params)[0]

        def judge(p, x, y):
            variables = {"params": p, "spectral": d.spectral}
            return D.apply(variables, x, y, True, mutable=["spectral"])

        def penalty(p, x):
            # With the vectors that the update leaves, which a parameter's gradient does not see.
            left = {"spectral": jax.lax.stop_gradient(judge(p, real, y)[1]["spectral"])}
            alone = lambda x, y: D.apply({"params": p} | left, x[None], y[None], False)[0]
            per_image = jax.vmap(jax.grad(alone))(x, y)
            return jnp.mean(jax.vmap(lambda v: jnp.vdot(v, v))(per_image))

        def d_loss(p):
            pairs = judge(p, real, y)[0] - judge(p, fake, y)[0]
            parts = (GAMMA / 2 * penalty(p, real), GAMMA / 4 * penalty(p, fake))
            return jnp.mean(jnp.log1p(jnp.exp(-pairs))) + sum(parts), parts

        def g_loss(p):
            pairs = judge(d.params, generate(p)[0], y)[0] - judge(d.params, real, y)[0]
            return jnp.mean(jnp.log1p(jnp.exp(-pairs)))

        (total, (r1, r2)), d_grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(d.params)
        g_total, g_grads = jax.jit(jax.value_and_grad(g_loss))(g.params)
        left = judge(d.params, real, y)[1]["spectral"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    close([d_metrics[k] for k in ("d_loss", "r1", "r2")], [total, r1, r2])
    close(g_metrics["g_loss"], g_total)
    assert r1 > 1e-6 and r2 > 1e-6
    jax.tree.map(close, gradients(d.params, new_d.discriminator.params), d_grads)
    jax.tree.map(close, gradients(g.params, new_g.generator.params), g_grads)
    jax.tree.map(close, new_d.discriminator.spectral, left)  # advanced once, penalties or not


LAYOUTS = {
    "remat": ((8, 1), {"remat": ("all",)}),
    "accumulation": ((4, 2), {"accumulation_steps": 2}),
    "lazy": ((2, 2), {"num_d_steps": 2, "regularizer.every_steps": 2}),
}
ONE_DEVICE = {}


@pytest.mark.full
@pytest.mark.parametrize("name", LAYOUTS)
def test_eight_devices_equal_one(name, monkeypatch):
    monkeypatch.setattr(microbatches, "unroll", lambda mesh: False)
    mesh, changes = LAYOUTS[name]
    common = {k: v for k, v in changes.items() if k != "remat"}

    def run(mesh, changes):
        train_step = with_sgd(build_lib.train_step(config(**changes), sharding.make_mesh(mesh)))
        state = small_state.cheap_state(train_step)
        return step.jit_train_step(train_step)(state, batch_for(train_step))

    key = tuple(sorted(common.items()))
    if key not in ONE_DEVICE:
        ONE_DEVICE[key] = run((1, 1), common)
    one, many = ONE_DEVICE[key], run(mesh, changes)
    assert_same(one[0], many[0], 1e-5)
    for metric, value in one[1].items():
        np.testing.assert_allclose(value, many[1][metric], rtol=1e-4, atol=1e-5, err_msg=metric)


@pytest.mark.full
def test_lazy_penalties():
    """Every 3 D updates, over steps: 3 times the gradient then, none in between."""
    sizes = {}
    for every in (1, 3):
        c = config(**{"num_d_steps": 2, "regularizer.every_steps": every})
        train_step = build(c)
        state = small_state.cheap_state(train_step)
        real, y, z = inputs(dtype=np.float32)
        d_step = jax.jit(train_step.d_step)
        sizes[every] = [
            d_step(state.replace(step=jnp.int32(i // 2)), real, y, z, y, update=jnp.int32(i % 2))
            for i in range(7)
        ]
    plain, lazy = (
        [gradients(small_state.cheap_state(train_step).discriminator.params, s.discriminator.params)
         for s, _ in sizes[every]] for every in (1, 3)
    )  # fmt: skip
    for i, (_, metrics) in enumerate(sizes[3]):
        due = i % 3 == 0
        for name in ("r1", "r2"):
            np.testing.assert_allclose(
                metrics[name], 3 * due * sizes[1][i][1][name], rtol=1e-5, atol=0
            )
    # gradient = game + penalty, and = game + 3 penalty: the third part of the difference
    game = lazy[1]
    jax.tree.map(
        lambda g, one, three: np.testing.assert_allclose(
            three - g, 3 * (one - g), rtol=1e-2, atol=1e-3 * np.abs(three).max() + 1e-6
        ),
        game, plain[0], lazy[0],
    )  # fmt: skip


@pytest.mark.full
def test_pairs_share_their_labels(monkeypatch):
    """In both updates of a training step; other losses draw the labels of the fakes."""
    seen = {}

    def spy(name):
        def d(D, real, real_labels, fake, fake_labels, key):
            jax.debug.callback(lambda a, b: seen.setdefault("d", (a, b)), real_labels, fake_labels)
            return D(real, real_labels).mean() - D(fake, fake_labels).mean(), {}

        def g(D, fake, fake_labels, real, real_labels, key):
            if real_labels is not None:
                jax.debug.callback(
                    lambda a, b: seen.setdefault("g", (a, b)), real_labels, fake_labels
                )
            return -D(fake, fake_labels).mean(), {}

        return objectives.Objective(d, g, paired=name == "paired")

    for name in ("paired", "apart"):
        seen.clear()
        c = config(**{"model.g_attention": (), "model.d_attention": ()})
        train_step = dataclasses.replace(build(c), objective=spy(name))
        batch = batch_for(train_step)
        _, metrics = jax.jit(train_step.train_step)(small_state.cheap_state(train_step), batch)
        jax.effects_barrier()
        assert {"d_loss", "g_loss"} <= metrics.keys()
        real_labels, fake_labels = seen["d"]
        np.testing.assert_array_equal(real_labels, batch["label"][0])
        assert np.array_equal(real_labels, fake_labels) == (name == "paired")
        assert ("g" in seen) == (name == "paired")
        if name == "paired":
            np.testing.assert_array_equal(*seen["g"])


@pytest.mark.full
def test_objectives_draw_from_keys_of_their_own(monkeypatch):
    """One key for each update, and for each microbatch of it; the same again for the same state."""
    drawn = []

    def d(D, real, real_labels, fake, fake_labels, key):
        jax.debug.callback(lambda k: drawn.append(k.tobytes()), jax.random.key_data(key))
        return D(fake, fake_labels).mean(), {}

    def g(D, fake, fake_labels, real, real_labels, key):
        jax.debug.callback(lambda k: drawn.append(k.tobytes()), jax.random.key_data(key))
        return D(fake, fake_labels).mean(), {}

    monkeypatch.setattr(microbatches, "unroll", lambda mesh: False)
    c = config(**{"num_d_steps": 2, "accumulation_steps": 2, "model.g_attention": ()})
    train_step = dataclasses.replace(build(c), objective=objectives.Objective(d, g))
    jitted, batch = jax.jit(train_step.train_step), batch_for(train_step)
    for _ in range(2):
        jitted(small_state.cheap_state(train_step), batch)
        jax.effects_barrier()
    first, second = drawn[:6], drawn[6:]
    assert len(drawn) == 12 and len(set(first)) == 6 and sorted(first) == sorted(second)


@pytest.mark.full
def test_bfloat16_stays_near_float32():
    """Penalties too: their gradients pass the layers twice."""
    grads = {}
    for dtype in ("float32", "bfloat16"):
        train_step = build(config(compute_dtype=dtype))
        state = small_state.cheap_state(train_step)
        new, metrics = jax.jit(train_step.d_step)(state, *inputs(dtype=np.float32), inputs()[1])
        assert all(np.isfinite(x) and x.dtype == jnp.float32 for x in metrics.values())
        flat = jax.tree.leaves(gradients(state.discriminator.params, new.discriminator.params))
        grads[dtype] = np.concatenate([x.ravel() for x in flat]), metrics
    (a, m), (b, n) = grads["float32"], grads["bfloat16"]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
    np.testing.assert_allclose(n["r1"], m["r1"], rtol=0.1)


def test_strengths_of_0_are_off():
    c = config(**{"regularizer.r1": 0.0, "regularizer.r2": 0.0})
    assert build_lib.train_step(c, sharding.make_mesh((1, 1))).objective.penalties == {}
