"""Latents: the distributions of appendix E, their truncation, and who draws from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from biggan_jax import config as config_lib
from biggan_jax.errors import UserError
from biggan_jax.models import latents
from biggan_jax.parallel import sharding
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.training import build as build_lib
from biggan_jax.training import state as state_lib
from biggan_jax.training import step
from tests.models.test_biggan import section

NORMAL = [name for name in latents.DISTRIBUTIONS if name not in latents.NOT_NORMAL]
HALF_NORMAL_MEAN = 1 / np.sqrt(2 * np.pi)  # of max(N(0, 1), 0)
MOMENTS = {  # mean and variance of one entry; the concatenation is tested by halves
    "normal": (0, 1),
    "uniform": (0, 1 / 3),
    "bernoulli": (1 / 2, 1 / 4),
    "censored_normal": (HALF_NORMAL_MEAN, 1 / 2 - HALF_NORMAL_MEAN**2),
    "categorical": (0, 2 / 3),
    "normal_bernoulli_product": (0, 1 / 2),
}


def draw(distribution, n=40_000, dim_z=6, seed=0):
    return np.asarray(latents.sample(jax.random.key(seed), (n, dim_z), distribution=distribution))


def truncated(distribution, truncation, kind="resample"):
    z = draw(distribution)
    return np.asarray(
        latents.truncate(jax.random.key(1), jnp.asarray(z), truncation, distribution, kind)
    )


@pytest.mark.parametrize("distribution", MOMENTS)
def test_moments_of_every_entry(distribution):
    z, (mean, variance) = draw(distribution), MOMENTS[distribution]
    np.testing.assert_allclose(z.mean(0), mean, atol=0.03)  # 6 standard errors
    np.testing.assert_allclose(z.var(0), variance, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(z.T), np.eye(6), atol=0.03)


def test_support():
    assert set(np.unique(draw("bernoulli"))) == {0, 1}
    values, counts = np.unique(draw("categorical"), return_counts=True)
    assert set(values) == {-1, 0, 1}
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.01)
    uniform = draw("uniform")
    assert scipy.stats.kstest(uniform.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    censored, product = draw("censored_normal"), draw("normal_bernoulli_product")
    assert censored.min() == 0
    for z, law in ((censored, "halfnorm"), (product, "norm")):
        assert np.mean(z == 0) == pytest.approx(0.5, abs=0.01)
        assert scipy.stats.kstest(z[z != 0], law).pvalue > 1e-3


@pytest.mark.parametrize(("dim_z", "normal"), [(6, 3), (5, 3)])
def test_concatenation_takes_half_of_z_each(dim_z, normal):
    z = draw("normal_bernoulli_concat", dim_z=dim_z)
    assert scipy.stats.kstest(z[:, :normal].ravel(), "norm").pvalue > 1e-3
    assert set(np.unique(z[:, normal:])) == {0, 1}
    np.testing.assert_allclose(z[:, normal:].mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(z.T), np.eye(dim_z), atol=0.03)


def test_the_normal_draws_are_those_of_jax():
    """Runs from before there was a choice continue with the same bits."""
    key, shape = jax.random.key(7), (3, 5)
    z = latents.sample(key, shape)
    np.testing.assert_array_equal(z, jax.random.normal(key, shape))
    redrawn = jax.random.truncated_normal(key, -0.5, 0.5, shape)
    expected = jnp.where(jnp.abs(z) <= 0.5, z, redrawn)
    np.testing.assert_array_equal(latents.truncate(key, z, 0.5), expected)


@pytest.mark.parametrize("distribution", NORMAL)
def test_truncation_redraws_the_normal_entries_alone(distribution):
    threshold = 0.7
    free, z = draw(distribution), truncated(distribution, threshold)
    normal = slice(0, 3) if distribution.endswith("concat") else slice(None)
    outside = np.abs(free[:, normal]) > threshold
    assert outside.mean() > 0.1
    np.testing.assert_array_equal(z[:, normal][~outside], free[:, normal][~outside])
    assert (z[:, normal][outside] != free[:, normal][outside]).all()
    assert np.abs(z[:, normal]).max() <= threshold
    if normal.stop:
        np.testing.assert_array_equal(z[:, 3:], free[:, 3:])  # ones are no outliers
    z, free = z[:, normal], free[:, normal]
    np.testing.assert_array_equal(z == 0, free == 0)  # and z gets no sparser
    low = 0 if distribution == "censored_normal" else -threshold
    assert z.min() >= low
    law = scipy.stats.truncnorm(low, threshold)
    assert scipy.stats.kstest(z[z != 0], law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("distribution", NORMAL)
def test_truncation_by_scale(distribution):
    free, z = draw(distribution), truncated(distribution, 0.5, "scale")
    normal = slice(0, 3) if distribution.endswith("concat") else slice(None)
    within = np.abs(free[:, normal]) <= 2
    np.testing.assert_array_equal(z[:, normal][within], 0.5 * free[:, normal][within])
    assert 0.95 < np.abs(z[:, normal]).max() <= 1
    if normal.stop:
        np.testing.assert_array_equal(z[:, 3:], free[:, 3:])


@pytest.mark.parametrize("distribution", latents.NOT_NORMAL)
def test_truncation_needs_a_normal_distribution(distribution):
    latents.check_truncation(None, distribution)
    words = f"truncation 0.5 needs .* normal .*z_distribution is '{distribution}'"
    for call in (
        lambda: latents.check_truncation(0.5, distribution),
        lambda: truncated(distribution, 0.5),
    ):
        with pytest.raises(UserError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_unknown_distribution():
    c = config_lib.default_config()
    c.model = section(z_distribution="gauss")
    words = "z_distribution is 'gauss'; set --config.model.z_distribution to one of normal, uniform"
    with pytest.raises(UserError, match=words):
        build(c)


def build(config):
    mesh = sharding.make_mesh((1,))
    return build_lib.train_step(config, mesh)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("distribution", ["categorical", "censored_normal"])
def test_training_draws_from_it_in_float32(monkeypatch, distribution, dtype):
    c = config_lib.default_config()
    c.model = section(z_distribution=distribution)
    c.compute_dtype, c.num_d_steps = dtype, 1
    train_step = build(c)
    seen = []

    def keep(state, z):
        seen.append(z)
        return state, {}

    monkeypatch.setattr(
        step.TrainStep, "d_step", lambda self, state, real, labels, z, *_, **__: keep(state, z)
    )
    monkeypatch.setattr(step.TrainStep, "g_step", lambda self, state, z, *_, **__: keep(state, z))
    player = state_lib.Player({}, {}, {}, {})
    state = state_lib.GANState(jnp.int32(0), jax.random.key(0), player, player, None)
    batch = {
        "image": np.zeros((1, 500, 16, 16, 3), np.uint8),
        "label": np.zeros((1, 500), np.int32),
    }
    train_step.train_step(state, jax.tree.map(jnp.asarray, batch))
    assert len(seen) == 2 and (np.asarray(seen[0]) != np.asarray(seen[1])).any()
    mean, variance = MOMENTS[distribution]
    for z in seen:
        assert z.dtype == jnp.float32 and z.shape == (500, 12)
        assert z.mean() == pytest.approx(mean, abs=0.06)
        assert z.var() == pytest.approx(variance, abs=0.06)


def test_a_loaded_generator_draws_from_it():
    c = config_lib.default_config()
    c.model = section(z_distribution="normal_bernoulli_concat")
    g = LoadedGenerator(c, {})
    z = g.sample_z(0, 300)
    assert set(np.unique(z[:, 6:])) == {0, 1} and len(np.unique(z[:, :6])) == 1800
    np.testing.assert_array_equal(g.sample_z(0, 3), z[:3])
    short = g.sample_z(0, 300, 0.5)
    np.testing.assert_array_equal(short[:, 6:], z[:, 6:])
    assert np.abs(short[:, :6]).max() <= 0.5
    c.model.z_distribution = "uniform"
    with pytest.raises(UserError, match="truncation 1.0 needs .*'uniform'"):
        g.sample_z(0, 1, 1.0)
    assert np.abs(g.sample_z(0, 300)).max() <= 1
