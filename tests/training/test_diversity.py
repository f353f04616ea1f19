"""Distances of samples in D's features: against pairs in numpy, and on eight devices."""

import itertools

import jax
import numpy as np
import pytest

from biggan_jax import data
from biggan_jax.models import heads
from biggan_jax.parallel import sharding
from biggan_jax.training import build, diversity
from biggan_jax.training import state as state_lib
from tests import runs


def measured(shape, change=lambda state: state):
    """(what is measured of a fresh state on a mesh, Diversity, state)."""
    config = runs.tiny_config("--config.model.g_attention=()")
    mesh = sharding.make_mesh(shape)
    train_step = build.train_step(config, mesh)
    source = data.open_source("digits", resolution=16, channels=1)
    batches = data.Batches(source, seed=0, batch_size=16, num_d_steps=1)
    state = change(state_lib.create(train_step.init, 0, mesh))
    measure = diversity.Diversity(train_step, config, batches)
    found = measure(state)
    batches.close()
    return found, measure, state


@pytest.fixture(scope="module")
def on_one(cache_dir):
    with runs.cached_compiles(cache_dir):
        return measured((1,))


def pairs(features):
    distances = [np.sum((a - b) ** 2) for a, b in itertools.combinations(features, 2)]
    return np.sqrt(np.mean(distances))


def test_distances_of_pairs(on_one):
    found, measure, state = on_one
    g, d, step = state.generator, state.discriminator, measure._step
    z, labels = measure._z, measure._labels
    assert z.shape == (32, 12) and sorted(set(labels)) == [0, 1, 3, 4, 5, 6, 8, 9]
    fake = step.generator.apply(g.variables, z, labels, train=False)
    d_variables = {"params": d.params, "spectral": d.spectral}
    real = measure._real
    logits = {}
    features = {}
    for side, images in (("fake", fake), ("real", real)):
        found_ones = heads.features(step.discriminator, d_variables, images, labels)
        features[side] = np.asarray(found_ones, np.float64)
        logits[side] = step.discriminator.apply(d_variables, images, labels, train=False)
    of_class = [pairs(features["fake"][labels == c]) for c in dict.fromkeys(labels)]
    np.testing.assert_allclose(found["d_features"], pairs(features["real"]), rtol=1e-4)
    expected = np.median(of_class) / pairs(features["real"])
    np.testing.assert_allclose(found["diversity"], expected, rtol=1e-4)
    assert np.isfinite(logits["fake"]).all() and 0.1 < found["diversity"] < 30


@pytest.mark.full
@pytest.mark.parametrize("shape", [(8,), (4, 2)])
def test_eight_devices_measure_the_same(on_one, shape):
    found = measured(shape)[0]
    for name, value in on_one[0].items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4)


def test_dead_players(on_one):
    """A G whose z has no weight makes one image a class; a D of zeros has no features."""
    _, measure, state = on_one

    def without_z(path, x):
        names = [str(getattr(part, "key", part)) for part in path]
        # The linear layer of the first chunk, and the rows of z in every conditional gain.
        if names[0] == "linear" and names[-1] == "kernel":
            return x * 0
        if names[-2] in ("gain", "bias") and names[-1] == "kernel":
            return x.at[8:].set(0)
        return x

    params = jax.tree_util.tree_map_with_path(without_z, state.generator.params)
    same = state.replace(generator=state.generator.replace(params=params))
    assert measure(same)["diversity"] < 1e-3
    nothing = jax.tree.map(lambda x: x * 0, state.discriminator.params)
    dead = state.replace(discriminator=state.discriminator.replace(params=nothing))
    assert measure(dead) == {"diversity": 0.0, "d_features": 0.0}
