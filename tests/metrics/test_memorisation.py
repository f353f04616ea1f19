"""Nearest neighbours, authenticity and data copying against all pairs and scipy."""

import numpy as np
import pytest
import scipy.stats

from biggan_jax.errors import UserError
from biggan_jax.metrics import distances, memorisation, scores


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 16)


def drawn(*shape, seed=0, offset=0.0, dtype=np.float64):
    return (np.random.default_rng(seed).normal(size=shape) + offset).astype(dtype)


def all_pairs(x, y):
    return np.sqrt(np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2))


@pytest.mark.parametrize(("offset", "dtype"), [(0.0, np.float64), (1000.0, np.float32)])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_nearest_neighbours_written_out(small_blocks, offset, dtype, k):
    """Also where a common offset would hide the distances."""
    queries, references = (drawn(n, 5, seed=n, offset=offset, dtype=dtype) for n in (37, 40))
    queries[3] = references[21]
    found = scores.nearest_neighbours(queries, references, k)
    want = all_pairs(queries, references)
    order = np.argsort(want, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(want, order, 1), rtol=1e-12)
    assert found.distances[3, 0] == 0 and found.indices[3, 0] == 21


def test_of_equal_distances_the_lower_index_is_first(small_blocks):
    references = np.repeat(drawn(4, 2), 9, axis=0)
    found = scores.nearest_neighbours(references, references, 9)
    want = np.repeat(np.arange(36).reshape(4, 9), 9, axis=0)
    np.testing.assert_array_equal(found.indices, want)
    assert (found.distances == 0).all()


def test_authenticity_written_out(small_blocks):
    train, fake = drawn(50, 3), drawn(60, 3, seed=1)
    train[7] = train[30]  # a duplicate
    between, within = all_pairs(fake, train), all_pairs(train, train)
    within[within == 0] = np.inf
    nearest = between.argmin(axis=1)
    want = np.mean(between.min(axis=1) > within.min(axis=1)[nearest])
    assert scores.authenticity(train, fake) == pytest.approx(want)
    assert 0.2 < want < 0.8


def test_copies_of_duplicates_are_no_authentic_samples():
    train = np.repeat(drawn(30, 4), 2, axis=0)
    rng = np.random.default_rng(2)
    near = train + 1e-3 * rng.normal(size=train.shape)
    assert scores.authenticity(train, train) == 0
    assert scores.authenticity(train, near) == 0
    assert scores.authenticity(train, drawn(500, 4, seed=3)) > 0.3


@pytest.mark.parametrize("decimals", [12, 0])
def test_data_copying_is_scipys_mann_whitney(decimals):
    """With ties, where features are rounded."""
    sides = [drawn(n, 2, seed=n).round(decimals) for n in (30, 45, 61)]
    train, held_out, fake = sides
    of = lambda x: all_pairs(x, train).min(axis=1)
    options = {"method": "asymptotic", "use_continuity": False}
    test = scipy.stats.mannwhitneyu(of(fake), of(held_out), **options)
    found = scores.data_copying(train, held_out, fake)
    assert found["nearer_than_held_out"] == pytest.approx(1 - test.statistic / (45 * 61))
    assert 2 * scipy.stats.norm.sf(abs(found["data_copying"])) == pytest.approx(test.pvalue)
    greater = scipy.stats.mannwhitneyu(of(fake), of(held_out), alternative="greater", **options)
    assert scipy.stats.norm.sf(found["data_copying"]) == pytest.approx(greater.pvalue)


def test_copies_fresh_draws_and_samples_far_away():
    train, held_out = drawn(300, 6), drawn(200, 6, seed=1)
    rng = np.random.default_rng(2)
    copies = train[rng.integers(0, 300, 250)] + 1e-3 * rng.normal(size=(250, 6))
    of = lambda fake: (scores.authenticity(train, fake), *scores.data_copying(
        train, held_out, fake).values())  # fmt: skip
    share, nearer, z = of(copies)
    assert share == 0 and nearer == 1 and z < -15
    share, nearer, z = of(drawn(250, 6, seed=4))
    assert 0.35 < share < 0.75 and 0.4 < nearer < 0.6 and abs(z) < 3
    share, nearer, z = of(drawn(250, 6, seed=4, offset=3.0))
    assert share > 0.9 and nearer < 0.1 and z > 10


def test_the_statistic_of_fresh_draws_is_standard_normal():
    draw = lambda i: [drawn(40, 3, seed=1000 * i + j) for j in range(3)]
    z = [scores.data_copying(*draw(i))["data_copying"] for i in range(100)]
    assert abs(np.mean(z)) < 0.35 and 0.8 < np.std(z) < 1.25


def test_all_distances_equal():
    same = np.ones((5, 2))
    assert scores.data_copying(same, same, same) == {
        "nearer_than_held_out": 0.5,
        "data_copying": 0.0,
    }
    with pytest.raises(UserError, match="same features"):
        scores.authenticity(same, same)


def test_refusals():
    with pytest.raises(UserError, match="4 nearest of 3 rows: ask for 1 to 3"):
        scores.nearest_neighbours(np.ones((2, 2)), np.ones((3, 2)), 4)
    with pytest.raises(UserError, match="3 and 2 feature dimensions"):
        scores.nearest_neighbours(np.ones((2, 2)), np.ones((3, 3)))
    with pytest.raises(UserError, match="NaN"):
        memorisation.nearest_others(np.array([[1.0], [np.nan]]))
