"""`biggan inspect`: layers, parameters and FLOPs."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.models import blocked_attention, walk
from biggan_jax.parallel import sharding
from biggan_jax.planning import summary
from biggan_jax.training import build as build_lib
from tests import runs

COMPILE = "/jax/core/compile/backend_compile_duration"


def bound(*overrides):
    c = runs.tiny_config(*overrides)
    mesh = sharding.make_mesh((1,))
    return build_lib.train_step(c, mesh)


@pytest.mark.full
def test_biggan128(capsys):
    """Published parameter counts, 35% fewer FLOPs by fusing, and nothing is compiled."""
    seconds = []

    def listen(event, duration, **_):
        if event == COMPILE:
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        path = str(runs.ROOT / "configs" / "biggan128.py")
        assert cli.main(["inspect", "--config", path, "--json"]) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert sum(seconds) < 2  # a few scalars; the step would take a minute
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["generator"]["parameters"] == 70_433_988
    assert result["discriminator"]["parameters"] == 87_982_370
    assert result["flops_per_sample_step"] < 0.65 * result["flops_per_sample_step_unfused"]
    # 2 D updates (forward of G, forward and backward of D on two images) and one of G.
    assert 1.5e11 < result["flops_per_sample_step"] < 3e11
    memory = result["memory"]
    parameters = sum(result[name]["parameters"] for name in ("generator", "discriminator"))
    # Adam without a first moment keeps one more copy of both, the average one more of G.
    assert 4 * 2 * parameters < memory["state_bytes"] < 4 * 3 * parameters
    assert memory["gradient_bytes"] == 4 * result["discriminator"]["parameters"]
    layers = result["generator"]["layers"]
    names = ["shared", "linear", *(f"block_{i}" for i in range(5)), "attention_64", "bn_out", "rgb"]
    assert sorted(row["name"] for row in layers) == sorted(names)
    by_name = {row["name"]: row for row in layers}
    assert by_name["block_4"]["shape"] == [128, 128, 96] and by_name["rgb"]["shape"][-1] == 3
    assert by_name["shared"]["parameters"] == 1000 * 128
    for player in ("generator", "discriminator"):
        rows = result[player]["layers"]
        assert sum(row["parameters"] for row in rows) == result[player]["parameters"]
        assert all(row["flops"] > 0 for row in rows if row["parameters"])
    assert "generator: 70,433,988 parameters" in captured.err


def test_layers_of_a_known_network():
    """The FLOPs of a matrix and a convolution, by hand."""
    train_step = bound("--config.model.ch=8")
    z = jax.ShapeDtypeStruct((64, 12), jnp.float32)
    labels = jax.ShapeDtypeStruct((64,), jnp.int32)
    rows = summary.layers(train_step.generator, z, labels)
    by_name = {row.name: row for row in rows}
    linear, rgb = by_name["linear"], by_name["rgb"]
    assert linear.kind == "Dense" and linear.parameters == 4 * 512 + 512
    assert linear.flops == pytest.approx(2 * 4 * 512, rel=0.3)  # and the spectral norm's share
    # The border of a padded convolution is not counted.
    assert rgb.flops == pytest.approx(2 * 16 * 16 * 9 * 32, rel=0.15)


def test_a_layer_that_computes_nothing():
    """Dropout of D, which is off in an eval forward."""
    train_step = bound("--config.model.d_dropout=0.5")
    inputs = walk.discriminator_inputs(train_step.discriminator, 1, 1)
    layers = summary.layers(train_step.discriminator, *inputs)
    rows = {layer.name: (layer.parameters, layer.flops) for layer in layers}
    assert rows["dropout"] == (0, 0.0) and rows["linear"][1] > 0


@pytest.mark.full
def test_updates_and_microbatches_multiply():
    """XLA counts the body of a loop once: both are multiplied by hand."""
    flops = {n: summary.step_flops(bound(f"--config.num_d_steps={n}"), 16) for n in (1, 2, 3)}
    one_d_update = flops[2] - flops[1]
    assert one_d_update > 0 and flops[3] == pytest.approx(flops[1] + 2 * one_d_update)
    assert flops[1] > one_d_update  # and a G update
    parts = summary.step_flops(bound("--config.accumulation_steps=4"), 64)
    assert parts == pytest.approx(flops[1])  # four microbatches of 16


@pytest.mark.full
def test_real_images_of_a_paired_objective_are_counted():
    """G's update then judges as many images more: D's forward, and its gradient by the images."""
    apart, paired = bound(), bound("--config.loss=relativistic")
    d = apart.discriminator
    rows = summary.layers(d, *walk.discriminator_inputs(d, 1, 16))
    forward = sum(row.flops for row in rows)
    more = summary.step_flops(paired, 16) - summary.step_flops(apart, 16)
    assert forward < more < 3 * forward
    r1 = bound("--config.loss=relativistic", "--config.regularizer.r1=1")
    assert summary.step_flops(r1, 16) > summary.step_flops(paired, 16) + 2 * forward


@pytest.mark.full
def test_flops_of_a_step_on_a_gpu():
    """Its backend counts none, and its own kernels have none: they are counted on the CPU."""
    train_step = bound("--config.compute_dtype=bfloat16")
    gpu = types.SimpleNamespace(platform="gpu", compute_capability="9.0")
    mesh = types.SimpleNamespace(devices=np.array([gpu]), size=1, shape={"data": 1, "fsdp": 1})
    moved = {
        name: player.clone(settings=dataclasses.replace(player.settings, mesh=mesh))
        for name in ("generator", "discriminator")
        for player in [getattr(train_step, name)]
    }
    there = dataclasses.replace(train_step, mesh=mesh, **moved)
    assert summary.step_flops(there, 16) == summary.step_flops(train_step, 16) > 0


def test_flops_of_attention_in_blocks(monkeypatch):
    """A CPU makes large maps in a loop, whose body XLA counts once: they are counted whole."""
    assert not blocked_attention.fits(*attention_inputs(), sharding.make_mesh((1,)))
    stored = summary.step_flops(bound(), 16)
    monkeypatch.setattr(blocked_attention, "_MAP", 1)
    assert blocked_attention.fits(*attention_inputs(), sharding.make_mesh((1,)))
    assert summary.step_flops(bound(), 16) == stored > 0


def attention_inputs():
    """Queries and keys of TINY's generator, 16 images of 8 x 8 pixels."""
    return (jax.ShapeDtypeStruct((16, x, 1), jnp.float32) for x in (64, 16))


def test_unset_classes_are_refused(capsys, tmp_path):
    path = tmp_path / "c.py"
    path.write_text("from biggan_jax.config import default_config as get_config\n")
    assert cli.main(["inspect", "--config", str(path)]) == 2
    runs.assert_one_error(capsys.readouterr(), "--config.model.num_classes=N")


@pytest.mark.full
def test_penalties_of_one_update_in_four_count_a_quarter():
    """The mean step lies that far between those without and with penalties in every update."""
    dcgan = ("--config.model.name=dcgan", "--config.model.g_attention=()")

    def flops(*settings):
        return summary.step_flops(bound(*dcgan, *settings), 16)

    without, always = flops(), flops("--config.regularizer.r1=1")
    lazy = flops("--config.regularizer.r1=1", "--config.regularizer.every_steps=4")
    assert always > 1.1 * without
    assert lazy == pytest.approx(without + (always - without) / 4, rel=0.01)


def test_both_kinds_of_updates_are_counted(monkeypatch):
    """By how often they come, each at its own cost."""
    found = []

    def flops(function, *arguments):
        keywords = getattr(function, "keywords", {})
        found.append(keywords.get("due"))
        return {True: 500.0, False: 100.0, None: 10.0}[found[-1]]

    monkeypatch.setattr(summary, "_flops", flops)
    settings = ("--config.regularizer.r1=1", "--config.num_d_steps=2")
    lazy = bound(*settings, "--config.regularizer.every_steps=4")
    assert summary.step_flops(lazy, 16) == (2 * 200 + 10) / 16 and found == [True, False, None]
    assert summary.step_flops(bound(*settings), 16) == (2 * 500 + 10) / 16
