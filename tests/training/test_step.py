"""The training step: against the peer's trace, across devices, with accumulation, and in its
HLO."""

import dataclasses
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import FrozenConfigDict

from biggan_jax import models
from biggan_jax.config import default_config
from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import microbatches, step
from biggan_jax.training import state as state_lib
from tests import peer, small_state
from tests.models.test_biggan import nhwc, section


def tiny(mesh=(1, 1), **changes):
    """A TrainStep of a 16-pixel model on the first devices."""
    c = default_config()
    c.model = section(ch=4, g_attention=(8,), d_attention=(8,))
    c.batch_size, c.num_d_steps = 16, 1
    c.ema.decay, c.ema.start_step = 0.9, 0
    for key, value in changes.items():
        c[key] = value
    return build_lib.train_step(c, sharding.make_mesh(mesh))


def batch_for(train_step, b=16, seed=0):
    rng = np.random.default_rng(seed)
    n, g = train_step.num_d_steps, train_step.generator
    shape = (n, b, g.resolution, g.resolution, g.channels)
    batch = {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, g.num_classes, (n, b), np.int32),
    }
    return sharding.global_batch(batch, train_step.mesh, axis=1)


def run(train_step, steps=1):
    """(state, last metrics, the jitted step) after some steps from one and the same state."""
    state = small_state.cheap_state(train_step)
    jitted = step.jit_train_step(train_step)
    for i in range(steps):
        state, metrics = jitted(state, batch_for(train_step, seed=i))
    return state, jax.device_get(metrics), jitted


def with_sgd(train_step):
    """Adam amplifies the rounding of near-zero gradients: equality is tested with SGD."""
    sgd = optax.sgd(1e-2)
    return dataclasses.replace(train_step, g_optimizer=sgd, d_optimizer=sgd)


def assert_same(a, b, atol):
    """Parameters, spectral vectors, statistics and averages of two states."""
    for name in ("generator", "discriminator", "ema"):
        for one, other in zip(
            jax.tree.leaves(getattr(a, name)), jax.tree.leaves(getattr(b, name)), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=atol, rtol=atol, err_msg=name)


@pytest.fixture
def loops(monkeypatch):
    """Updates and microbatches in loops, as on accelerators; unrolled they compile longer."""
    monkeypatch.setattr(microbatches, "unroll", lambda mesh: False)


ONE_DEVICE = {}  # settings -> (state, metrics) that several layouts are compared with


def one_device(**settings):
    key = tuple(sorted(settings.items()))
    if key not in ONE_DEVICE:
        ONE_DEVICE[key] = run(with_sgd(tiny(**settings)), steps=2)[:2]
    return ONE_DEVICE[key]


# Remat and fsdp are not to change a result: they are compared with a run that has neither.
LAYOUTS = {
    "data": ((8, 1), {}, {}),
    "two_d_steps_and_accumulation": ((8, 1), {"num_d_steps": 2, "accumulation_steps": 2}, {}),
    "remat": ((8, 1), {}, {"remat": ("all",)}),
    "fsdp": ((4, 2), {}, {}),
    "ghost_within_a_device": ((8, 1), {"bn_group_size": 2}, {}),
    # Microbatches of 8: a group lies on four devices.
    "all": ((2, 4), {"accumulation_steps": 2, "bn_group_size": 4}, {"remat": (8, 16)}),
}


LONGER = tuple(set(LAYOUTS) - {"all"})  # which holds the parts of the others


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.full] if n in LONGER else []) for n in LAYOUTS],
)
def test_eight_devices_equal_one(name, loops):
    """Loss, gradients (through SGD), batch statistics, spectral vectors and average."""
    mesh, settings, layout = LAYOUTS[name]
    one, one_metrics = one_device(**settings)
    eight, eight_metrics, _ = run(with_sgd(tiny(mesh, **settings, **layout)), steps=2)
    assert_same(one, eight, 1e-5)
    for metric, value in one_metrics.items():
        assert value == pytest.approx(eight_metrics[metric], rel=1e-5, abs=1e-5), metric


@pytest.mark.full
def test_settings_of_the_forward_differ(loops):
    """Groups and microbatches are other functions: equality above is not that of a dead setting."""
    plain, ghost, both = (
        one_device(**settings)[0]
        for settings in ({}, {"bn_group_size": 2}, {"accumulation_steps": 2, "bn_group_size": 4})
    )
    for a, b in ((plain, ghost), (plain, both), (ghost, both)):
        with pytest.raises(AssertionError):
            assert_same(a, b, 1e-5)


def test_fsdp_splits_parameters_moments_and_average():
    train_step = tiny((2, 4))
    state = small_state.cheap_state(train_step)
    whole = state.generator.params["block_0"]["conv1"]["kernel"]
    adam = state.generator.opt_state[0]
    for tree in (state.generator.params, adam.nu, state.ema.params):
        kernel = tree["block_0"]["conv1"]["kernel"]
        assert {s.data.size for s in kernel.addressable_shards} == {whole.size // 4}
    assert state.generator.params["block_0"]["conv1"]["bias"].sharding.is_fully_replicated


def test_one_compilation_and_a_counted_step():
    """In bfloat16, which leaves the state in float32."""
    train_step = tiny(compute_dtype="bfloat16", model=section(ch=4))
    state, metrics, jitted = run(train_step, steps=3)
    dtypes = {x.dtype for x in jax.tree.leaves((state.generator, state.discriminator, state.ema))}
    assert dtypes == {jnp.dtype("float32"), jnp.dtype("int32")}  # int32: Adam's count
    assert all(np.isfinite(v) for v in metrics.values())
    assert jitted._cache_size() == 1
    assert state.step == 3
    assert set(metrics) == {
        "d_loss", "d_loss_real", "d_loss_fake", "d_real", "d_fake", "d_grad_norm", "g_loss",
        "g_grad_norm",
    }  # fmt: skip


def compiled_text(train_step) -> str:
    """HLO of the compiled step."""
    state = state_lib.abstract(train_step.init, train_step.mesh)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch_for(train_step)))
    return step.jit_train_step(train_step).lower(state, batch).compile().as_text()


def kinds(text: str) -> Counter:
    """{kind: instructions} of the collectives in a program."""
    names = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return Counter(m.group(1) for m in re.finditer(rf" ({names})(?:-start)?\(", text))


def collectives(train_step) -> Counter:
    """{kind: instructions} of the compiled step."""
    return kinds(compiled_text(train_step))


@pytest.mark.full  # the loops of accelerators, below, are data-parallel too
def test_data_parallel_hlo_holds_only_all_reduces():
    assert set(collectives(with_sgd(tiny((8, 1))))) == {"all-reduce"}


@pytest.mark.full
def test_all_reduces_of_other_layouts():
    four, eight = (collectives(with_sgd(tiny((n, 1)))) for n in (4, 8))
    assert four == eight
    # Batch statistics and sigmas are kept: recomputing a block exchanges nothing again.
    assert collectives(with_sgd(tiny((8, 1), remat=("all",)))) == eight
    # A group within a device is summed there.
    local = collectives(with_sgd(tiny((8, 1), bn_group_size=2)))
    assert set(local) == {"all-reduce"} and local["all-reduce"] < eight["all-reduce"]


def test_loops_of_updates_and_microbatches_move_no_activations(loops):
    """The step as accelerators run it."""
    _, settings, _ = LAYOUTS["two_d_steps_and_accumulation"]
    assert set(collectives(with_sgd(tiny((8, 1), **settings)))) == {"all-reduce"}


@pytest.mark.full
def test_fsdp_hlo_gathers_weights_and_moves_no_activations():
    """Every weight that is split is gathered, and what is gathered is a weight."""
    train_step = with_sgd(tiny((4, 2)))
    text = compiled_text(train_step)
    assert set(kinds(text)) - {"reduce-scatter"} == {"all-reduce", "all-gather"}
    found = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather\(", text)
    assert len(found) == kinds(text)["all-gather"]
    gathered = {tuple(map(int, shape.split(","))) for shape in found}
    state = state_lib.abstract(train_step.init, train_step.mesh)
    weights = jax.tree.leaves((state.generator.params, state.discriminator.params))
    assert gathered == {x.shape for x in weights if not x.sharding.is_fully_replicated}


def updates():
    """What the tests of single updates share, so that each is compiled once."""
    ema = FrozenConfigDict({"decay": 0.9, "start_step": 2})
    return dataclasses.replace(with_sgd(tiny()), ema=ema)


@pytest.mark.full
def test_microbatches_are_interleaved_with_their_own_statistics():
    """Two accumulations equal two forwards over x[0::2] and x[1::2], by hand."""
    train_step = dataclasses.replace(updates(), accumulation_steps=2)
    state = small_state.cheap_state(train_step)
    z = jax.random.normal(jax.random.key(5), (8, 12))
    labels = jnp.arange(8, dtype=jnp.int32)
    accumulated, metrics = jax.jit(train_step.g_step)(state, z, labels)

    single = dataclasses.replace(train_step, accumulation_steps=1)
    half = jax.jit(single.g_step)
    first, first_metrics = half(state, z[0::2], labels[0::2])
    # The second microbatch starts from the first one's spectral vectors and statistics only.
    between = dataclasses.replace(
        first, generator=first.generator.replace(params=state.generator.params)
    )
    second, second_metrics = half(between, z[1::2], labels[1::2])
    mean = (first_metrics["g_loss"] + second_metrics["g_loss"]) / 2
    assert metrics["g_loss"] == pytest.approx(float(mean), rel=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    jax.tree.map(close, accumulated.generator.batch_stats, second.generator.batch_stats)
    jax.tree.map(close, accumulated.discriminator.spectral, second.discriminator.spectral)
    averaged = lambda p, a, b: p + ((a - p) + (b - p)) / 2
    expected = jax.tree.map(
        averaged, state.generator.params, first.generator.params, second.generator.params
    )
    jax.tree.map(close, accumulated.generator.params, expected)


def test_who_updates_what():
    train_step = updates()
    state = small_state.cheap_state(train_step)
    real = jnp.zeros((4, 16, 16, 3))
    labels = jnp.zeros(4, jnp.int32)
    z = jax.random.normal(jax.random.key(1), (4, 12))
    moved = lambda a, b: any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    after_d, _ = jax.jit(train_step.d_step)(state, real, labels, z, labels)
    assert not moved(state.generator.params, after_d.generator.params)
    assert moved(state.generator.spectral, after_d.generator.spectral)
    assert moved(state.generator.batch_stats, after_d.generator.batch_stats)
    assert moved(state.discriminator.params, after_d.discriminator.params)
    assert after_d.step == 0
    after_g, _ = jax.jit(train_step.g_step)(state, z, labels)
    assert not moved(state.discriminator.params, after_g.discriminator.params)
    assert moved(state.discriminator.spectral, after_g.discriminator.spectral)
    assert moved(state.generator.params, after_g.generator.params)
    assert after_g.step == 1


def test_average_is_a_copy_until_its_start_step():
    train_step = updates()
    state = small_state.cheap_state(train_step)
    z = jax.random.normal(jax.random.key(1), (4, 12))
    step_once = jax.jit(train_step.g_step)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for mix in (lambda old, now: now, lambda old, now: 0.9 * old + 0.1 * now):
        new, _ = step_once(state, z, jnp.zeros(4, jnp.int32))
        for part in ("params", "spectral", "batch_stats"):
            expected = jax.tree.map(mix, getattr(state.ema, part), getattr(new.generator, part))
            jax.tree.map(close, getattr(new.ema, part), expected)
        state = new


def _trace_step(f):
    c = default_config()
    c.model = section(
        resolution=32, ch=int(f["meta/G_ch"]), dim_z=int(f["meta/dim_z"]), g_attention=(16,),
        shared_dim=int(f["meta/shared_dim"]),
    )  # fmt: skip
    c.num_d_steps = int(f["meta/num_D_steps"])
    c.optimizer.g_lr, c.optimizer.d_lr, c.optimizer.eps = 1e-4, 4e-4, 1e-6
    c.regularizer.g_orthogonal = 1e-4
    c.ema.decay, c.ema.start_step = float(np.round(f["meta/ema_decay"], 6)), 0
    players = models.build(c.model, dtype=jnp.float64, param_dtype=jnp.float64)
    return build_lib.train_step(c, sharding.make_mesh((1,)), players=players)


def _trace_state(f, train_step):
    names = {"1": "attention_16"}
    wide = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    g = wide(peer.variables(peer.split(f, "init/G"), names, 32))
    d = wide(peer.variables(peer.split(f, "init/D"), {}))
    state = small_state.cheap_state(train_step)
    generator = state.generator.replace(**g)
    ema = state_lib.Average(**jax.tree.map(np.copy, g))
    return state.replace(
        generator=generator, discriminator=state.discriminator.replace(**d), ema=ema
    )


def test_three_steps_of_the_peers_training(fixtures_dir):
    """Adam, two D steps, orthogonal regularizer and EMA in float64, replayed to 1e-6."""
    f = np.load(fixtures_dir / "f10a_train_shared_hier_ortho_inputs_losses.npz")
    final = np.load(fixtures_dir / "f10a_train_shared_hier_ortho_final_f64run.npz")
    with jax.enable_x64(True):
        train_step = _trace_step(f)
        state = _trace_state(f, train_step)
        d_step, g_step = jax.jit(train_step.d_step), jax.jit(train_step.g_step)
        z, gy = f["in/z"].astype(np.float64), f["in/gy"].astype(np.int32)
        drawn, losses = 0, []
        for i in range(3):
            for j in range(2):
                part = slice(4 * j, 4 * j + 4)
                x = nhwc(f["in/x"][i][part]).astype(np.float64)
                y = f["in/y"][i][part].astype(np.int32)
                state, d_metrics = d_step(state, x, y, z[drawn], gy[drawn])
                drawn += 1
            state, g_metrics = g_step(state, z[drawn], gy[drawn])
            drawn += 1
            metrics = d_metrics | g_metrics
            losses.append([float(metrics[k]) for k in ("g_loss", "d_loss_real", "d_loss_fake")])
        expected = f["f64/f64run/losses_G_Dreal_Dfake_per_step"]
        np.testing.assert_allclose(losses, expected, atol=1e-6)
        names = {"1": "attention_16"}
        for prefix, weights, attention, bottom in (
            ("G", state.generator, names, 32),
            ("D", state.discriminator, {}, None),
            ("G_ema", state.ema, names, 32),
        ):
            theirs = peer.variables(peer.split(final, f"final/f64run/{prefix}"), attention, bottom)
            for collection, tree in theirs.items():
                close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-6)
                jax.tree.map(close, getattr(weights, collection), tree)
