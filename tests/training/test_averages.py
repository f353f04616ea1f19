"""Averages beside the main one: their profiles against the paper, and what a run keeps of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import config as config_lib
from biggan_jax.config import averages as names_lib
from biggan_jax.parallel import sharding
from biggan_jax.training import averages, build
from biggan_jax.training import state as state_lib
from biggan_jax.training.state import Average
from tests import runs

EMA = {"decays": (0.5, 0.999), "profiles": (0.05, 0.1), "start_step": 4}
NAMES = ("decay_0.5", "decay_0.999", "profile_0.05", "profile_0.1")
ON = ("--config.ema.decays=0.5", "--config.ema.profiles=0.1")


def test_names_come_from_the_settings():
    assert names_lib.names(EMA) == NAMES
    ema = {"decays": (1, 1e-5), "profiles": ()}
    assert names_lib.names(ema) == ("decay_1.0", "decay_1e-05")


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.97), (0.10, 6.94), (12**-0.5, 0.0)])
def test_gamma_is_that_of_the_paper(sigma_rel, gamma):
    """Karras et al. 2024, section 3.1; that of equal weights is 1 / sqrt(12)."""
    got = averages.gamma(sigma_rel)
    assert got == pytest.approx(gamma, abs=0.005)
    relative = np.sqrt((got + 1) / ((got + 2) ** 2 * (got + 3)))
    assert relative == pytest.approx(sigma_rel, rel=1e-9)


def test_each_average_is_the_slow_sum_of_all_weights():
    """Against float64 sums over the whole history, whose width is the profile's."""
    steps, values = 400, np.random.default_rng(0).normal(size=400)
    trees = {n: Average({"w": jnp.zeros(())}, {}, {"m": jnp.zeros(())}) for n in NAMES}

    def body(trees, inputs):
        step, x = inputs
        new = {"params": {"w": x}, "spectral": {}, "batch_stats": {"m": -x}}
        return averages.update(trees, new, EMA, step), None

    inputs = (jnp.arange(1, steps + 1), jnp.asarray(values, jnp.float32))
    got, _ = jax.lax.scan(body, trees, inputs)
    for name in NAMES:
        kept = np.zeros(steps)  # the share of each step in the average
        for t in range(1, steps + 1):
            kind, value = name.split("_")
            if kind == "decay":
                beta = 0.0 if t < 4 else float(value)
            else:
                beta = (1 - 1 / t) ** (averages.gamma(float(value)) + 1)
            kept *= beta
            kept[t - 1] += 1 - beta
        assert got[name].params["w"] == pytest.approx(kept @ values, abs=2e-6)
        assert got[name].batch_stats["m"] == pytest.approx(-kept @ values, abs=2e-6)
        if kind == "profile":
            at = np.arange(1, steps + 1) / steps
            width = np.sqrt(kept @ at**2 - (kept @ at) ** 2)
            assert width == pytest.approx(float(value), rel=0.03)


def test_late_weights_keep_their_digits():
    found = averages.weights(EMA, jnp.int32(1_000_000))
    for name in NAMES[2:]:
        exact = -np.expm1((averages.gamma(float(name.split("_")[1])) + 1) * np.log1p(-1e-6))
        assert found[name] == pytest.approx(exact, rel=1e-5)
    assert averages.weights(EMA, jnp.int32(1))["profile_0.1"] == 1
    first = averages.weights(EMA, jnp.int32(3)), averages.weights(EMA, jnp.int32(4))
    assert [float(w["decay_0.5"]) for w in first] == [1.0, 0.5]  # a copy until start_step


def test_a_state_without_them_is_that_of_before():
    mesh = sharding.make_mesh((1,))
    plain = state_lib.abstract(build.train_step(runs.tiny_config(), mesh).init)
    assert plain.averages == {}
    more = state_lib.abstract(build.train_step(runs.tiny_config(*ON), mesh).init)
    assert set(more.averages) == {"decay_0.5", "profile_0.1"}
    for average in more.averages.values():
        assert jax.tree.structure(average) == jax.tree.structure(plain.ema)
    assert jax.tree.structure(more.replace(averages={})) == jax.tree.structure(plain)


def test_averages_are_split_where_the_weights_are():
    mesh = sharding.make_mesh((1, 8))
    step = build.train_step(runs.tiny_config("--config.mesh=(1,8)", *ON), mesh)
    places = state_lib.shardings(step.init, mesh)
    for average in places.averages.values():
        assert average == places.ema
    assert any(x.spec != () for x in jax.tree.leaves(places.ema))


@pytest.mark.full
def test_a_run_takes_them_up_on_the_way_and_may_leave_them(run_copy, capsys):
    """The old workdir of `trained` has none: they start at its step as copies of G."""
    before, _ = runs.load_state(run_copy, 4)
    on = (*ON, "--config.num_steps=5")
    assert runs.train(run_copy, *on) == 2
    runs.assert_one_error(capsys.readouterr(), "ema.decays", "ema.profiles", "--allow-change")
    assert runs.train(run_copy, *on, "--allow-change") == 0
    err = capsys.readouterr().err
    assert "from step 4 on: ema.decays () -> (0.5,) (0.5: from a copy of G at this step)" in err
    after, _ = runs.load_state(run_copy, 5)
    ema = config_lib.from_saved(json.loads((run_copy / "config.json").read_text())).ema
    for name, weight in averages.weights(ema, jnp.int32(5)).items():
        assert 0.1 < weight < 0.9
        got = jax.tree.leaves(after.averages[name].variables)
        old, new = (jax.tree.leaves(x.generator.variables) for x in (before, after))
        for x, a, b in zip(got, old, new, strict=True):
            np.testing.assert_allclose(x, a + weight * (b - a), rtol=1e-5, atol=1e-6)
    assert runs.train(run_copy, "--config.num_steps=6", "--allow-change") == 0
    assert runs.load_state(run_copy, 6)[0].averages == {}


@pytest.mark.full
def test_a_run_with_them_goes_on_bit_for_bit_and_a_fork_takes_them_along(tmp_path, capsys):
    straight, halves, fork = tmp_path / "straight", tmp_path / "halves", tmp_path / "fork"
    assert runs.train(straight, *ON) == runs.train(halves, *ON, "--config.num_steps=2") == 0
    assert runs.train(halves, *ON) == 0
    runs.assert_same_state(straight, halves, 4)
    assert runs.train(fork, *ON, f"--fork={straight}@2") == 0
    runs.assert_same_state(straight, fork, 4)
    more = tmp_path / "more"
    assert runs.train(more, *ON[:1], "--config.ema.profiles=0.1,0.2", f"--fork={straight}@2") == 0
    assert "(0.2: from a copy of G at this step)" in capsys.readouterr().err
    start, _ = runs.load_state(more, 2)
    for x, y in zip(
        jax.tree.leaves(start.averages["profile_0.2"].variables),
        jax.tree.leaves(start.generator.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)
