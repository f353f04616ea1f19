"""The monitors against numpy's SVD, slow truth and other devices, and as a run writes them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.training import build, monitors, singular_values
from tests import runs
from tests.small_state import cheap_state

FAMILIES = {
    "biggan": (),
    "biggan_deep": ("--config.model.name=biggan_deep", "--config.model.g_spectral_norm=False"),
    "sagan": ("--config.model.name=sagan", "--config.model.dim_z=6"),
}
AT_32 = ("--config.model.resolution=32", "--config.model.d_attention=(16,)")
AT_32 += ("--config.model.g_attention=(16,)", "--config.model.ch=8", "--config.model.dim_z=16")
AT_16 = ("--config.model.d_attention=(8,)", "--config.model.ch=8")


def measured(*overrides, mesh=(1,)):
    """(step, state, what the monitors say) of random weights."""
    config = runs.tiny_config(*overrides)
    step = build.train_step(config, sharding.make_mesh(mesh))
    state = cheap_state(step)
    return step, state, monitors.Monitors(step)(state)


SPECTRA = (
    np.r_[5, 4.9, 4.8, np.ones(197)],
    np.ones(200),
    np.linspace(1, 0.9, 200),
    np.r_[10, 10, np.ones(198)],
    np.r_[3, 0.01, 0.001, np.zeros(197)],
    1e20 * 0.9 ** np.arange(200),
    np.zeros(200),
)


@pytest.mark.parametrize("rows", [60, 200])
def test_the_three_largest_are_those_of_numpy(rows):
    """Crowded, equal and far-apart values, in a matrix taken whole and one that is projected."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 200)))[0] for n in (200, 230))
    largest = jax.jit(singular_values.largest)
    for values in SPECTRA:
        matrix = ((left * values) @ right.T)[:rows].astype(np.float32)
        want = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[:3]
        np.testing.assert_allclose(largest(matrix), want, rtol=0.01, atol=1e-6 * want[0])


def test_a_side_of_two_has_two_values():
    matrix = jnp.asarray([[3.0, 0, 0], [0, 0, 4.0]])
    np.testing.assert_allclose(singular_values.largest(matrix), [4, 3], rtol=1e-6)
    np.testing.assert_allclose(singular_values.largest(matrix[:1].T), [3], rtol=1e-6)


@pytest.mark.parametrize(
    "family",
    ["biggan", *(pytest.param(name, marks=pytest.mark.full) for name in ("sagan", "biggan_deep"))],
)
def test_every_layer_is_within_one_percent_of_the_svd(family):
    step, state, values = measured(*AT_32, *FAMILIES[family])
    seen = set()
    for player, weights in (("g", state.generator), ("d", state.discriminator)):
        leaves = jax.tree_util.tree_leaves_with_path(weights.params)
        for path, leaf in leaves:
            *names, last = (key.key for key in path)
            if leaf.ndim < 2:
                continue
            matrix = np.asarray(leaf, np.float64)
            if last == "kernel":  # [..., in, out] -> [out, rest]
                matrix = matrix.reshape(-1, matrix.shape[-1]).T
            want = np.linalg.svd(matrix, compute_uv=False)
            layer, head = "/".join(names), f"monitor/{player}/"
            divisor, u = 1.0, weights.spectral
            for name in names:
                u = u.get(name, {})
            if u:
                u = np.asarray(u["u"], np.float64)
                v = u @ matrix / np.linalg.norm(u @ matrix)
                divisor = np.linalg.norm(matrix @ v)  # of one power iteration
            for i, sigma in enumerate(want[:3]):
                raw, used = (values[f"{head}{kind}{i}/{layer}"] for kind in ("raw_sigma", "sigma"))
                assert raw == pytest.approx(sigma, rel=0.01), (layer, i)
                assert used == pytest.approx(sigma / divisor, rel=0.01), (layer, i)
            assert f"{head}sigma{len(want[:3])}/{layer}" not in values
            if len(want) > 1:
                assert values[f"{head}ratio/{layer}"] == pytest.approx(want[0] / want[1], rel=0.01)
            norm = values[f"{head}weight_norm/{layer}"]
            assert norm == pytest.approx(np.linalg.norm(matrix), rel=1e-4)
            seen.add((player, layer))
        total = np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for _, x in leaves))
        assert values[f"monitor/{player}/weight_norm"] == pytest.approx(total, rel=1e-4)
        if family == "sagan" and player == "g":
            table = 1 + np.asarray(weights.params["block_0"]["bn1"]["gain"]["embedding"])
            got = values["monitor/g/gain_max/block_0/bn1"]
            assert got == pytest.approx(table.max(), rel=1e-5)
        (gamma,) = (x for path, x in leaves if path[-1].key == "gamma")
        assert values[f"monitor/{player}/gamma/attention_16"] == pytest.approx(
            float(gamma), rel=1e-5
        )
    named = {tuple(n.split("/", 3)[i] for i in (1, 3)) for n in values if "/sigma0/" in n}
    assert named == seen


@pytest.mark.parametrize(
    "order", ["z_embedding", pytest.param("embedding_z", marks=pytest.mark.full)]
)
def test_gains_are_those_of_the_forward_pass(order):
    """Of every class at z = 0, as the batch norms take them."""
    from flax import linen as nn

    from biggan_jax.models.batch_norm import BatchNorm

    step, state, values = measured(f"--config.model.cond_order={order}")
    gains = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            gains["/".join(context.module.path[:-1])] = args[1]
        return call(*args, **kwargs)

    g, classes = step.generator, step.generator.num_classes
    z = jnp.zeros((classes, g.dim_z))

    def forward(variables):
        with nn.intercept_methods(record):
            g.apply(variables, z, jnp.arange(classes, dtype=jnp.int32), train=False)
        return dict(gains)

    gains = jax.device_get(jax.jit(forward)(state.generator.variables))
    assert len(gains) == sum("/gain_min/" in name for name in values) == 5
    for name, gain in gains.items():
        for kind in ("min", "max", "mean"):
            want = getattr(gain, kind)()
            assert values[f"monitor/g/gain_{kind}/{name}"] == pytest.approx(want, rel=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("mesh", [(4, 2), (8,)])
def test_eight_devices_measure_what_one_does(mesh):
    one, eight = measured()[2], measured(mesh=mesh)[2]
    assert list(one) == list(eight)
    np.testing.assert_allclose(list(one.values()), list(eight.values()), rtol=1e-4)


WATCHED = ("--config.monitor_every_steps=2", "--config.data.holdout=0.25")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, cache_dir):
    workdir = tmp_path_factory.mktemp("watched") / "run"
    with runs.cached_compiles(cache_dir):
        assert runs.train(workdir, *WATCHED) == 0
    return workdir


def monitored(workdir):
    lines = runs.metric_lines(workdir)
    return {line["step"]: line for line in lines if "monitor/g/weight_norm" in line}


def test_a_run_writes_them_and_D_judges_images_it_never_saw(watched):
    found = monitored(watched)
    assert list(found) == [2, 4]
    state, _ = runs.load_state(watched, 4)
    sides = judged(watched, state)
    for side, logits in sides.items():
        line = found[4]
        assert line[f"monitor/d/logit_{side}"] == pytest.approx(logits.mean(), rel=1e-3)
        assert line[f"monitor/d/accuracy_{side}"] == pytest.approx((logits > 0).mean())
    assert len(sides["train"]) == len(sides["held_out"]) == 16  # one batch


def judged(workdir, state):
    """{side: logits} of the images that the monitors show D, by another way."""
    from biggan_jax import config as config_lib
    from biggan_jax.data import holdout
    from biggan_jax.training import run_data

    config = config_lib.from_saved(json.loads((workdir / "config.json").read_text()))
    source = run_data.opened(config)
    step = build.train_step(config, sharding.make_mesh((1,)))
    logits = {}
    for side, chosen in zip(("train", "held_out"), holdout.both_sides(source, 16), strict=True):
        assert set(source.held_out[chosen]) == {side == "held_out"}
        images, labels = source.read(chosen)
        real = images.astype(np.float32) / 127.5 - 1
        found = step.discriminator.apply(state.discriminator.variables, real, labels)
        logits[side] = np.asarray(found)
    return logits


@pytest.mark.full
def test_a_resumed_run_measures_the_same(watched, tmp_path):
    resumed = tmp_path / "resumed"
    assert runs.train(resumed, *WATCHED, "--config.num_steps=3") == 0
    assert runs.train(resumed, *WATCHED) == 0
    assert runs.metric_lines(resumed) == runs.metric_lines(watched)
    runs.assert_same_state(watched, resumed, 4)


@pytest.mark.full
def test_watching_changes_nothing(watched, tmp_path):
    plain = tmp_path / "plain"
    assert runs.train(plain, WATCHED[1]) == 0
    runs.assert_same_state(watched, plain, 4)
    assert not monitored(plain)


@pytest.mark.full
def test_images_that_fill_the_devices_up_have_no_weight(monkeypatch):
    """12 images on 8 devices: 16 rows, of which 4 count for neither side."""
    from biggan_jax.training import monitor_images, run_data

    config = runs.tiny_config("--config.data.holdout=0.1", "--config.mesh=(8,)")
    source = run_data.opened(config)
    mesh = sharding.make_mesh((8,))
    monkeypatch.setattr(monitor_images, "MOST", 6)
    images = monitor_images.read(source, config, mesh)
    assert images.images.shape[0] == 16
    assert images.trained_on.sum() == images.held_out.sum() == 6
    step = build.train_step(config, mesh)
    state = cheap_state(step)
    d = state.discriminator
    judge = jax.jit(monitors.Monitors(step, images)._judge)
    values = judge(d.params, d.spectral, images)
    logits = step.discriminator.apply(d.variables, images.images, images.labels)
    want = logits[np.asarray(images.held_out) == 1].mean()
    assert float(values["logit_held_out"]) == pytest.approx(float(want), rel=1e-3)
