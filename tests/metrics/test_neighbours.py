"""Precision, recall, density, coverage against the peers (f11b) and all pairs written out."""

from pathlib import Path

import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.metrics import distances, neighbours, scores

FIXTURE = Path(__file__).parent.parent / "fixtures" / "f11b_metrics.npz"


@pytest.fixture(scope="module")
def sides():
    with np.load(FIXTURE) as file:
        return file["in/features_real"], file["in/features_fake"]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 64)
    monkeypatch.setattr(neighbours, "ROWS", 24)
    # So that blocks of 64 columns are searched by groups.
    monkeypatch.setattr(distances, "GROUP", 2)


def all_pairs(real, fake, k, strict):
    """The definitions, in float64, from differences."""
    squared = lambda x, y: np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2)
    radii = lambda x: np.sort(squared(x, x), axis=1)[:, k]  # column 0 is the point itself
    less = np.less if strict else np.less_equal
    between = squared(real, fake)
    in_real, in_fake = less(between, radii(real)[:, None]), less(between, radii(fake)[None])
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_fake.any(axis=1).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": in_real.any(axis=1).mean(),
    }


def ours(real, fake, k, strict):
    return scores.precision_recall(real, fake, k, strict=strict) | scores.density_coverage(
        real, fake, k, strict=strict
    )


@pytest.mark.parametrize("k", [3, 5])
def test_matches_studiogan(sides, k, small_blocks):
    with np.load(FIXTURE) as file:
        names = ("precision", "recall", "density", "coverage")
        want = {name: float(file[f"prdc/studiogan/k{k}/{name}"]) for name in names}
    assert ours(*sides, k, strict=True) == pytest.approx(want, rel=1e-6)


def test_matches_torch_fidelity(sides):
    with np.load(FIXTURE) as file:
        want = {key: float(file[f"prc/torch-fidelity/k3/{key}"]) for key in ("precision", "recall")}
    # Their values are float32.
    assert scores.precision_recall(*sides) == pytest.approx(want, rel=1e-6)


def test_one_pass_gives_all_four(sides):
    want = scores.precision_recall(*sides) | scores.density_coverage(*sides)
    assert scores.prdc(*sides) == want
    # Whichever k is the larger.
    want = scores.precision_recall(*sides, k=4) | scores.density_coverage(*sides, k=2)
    assert scores.prdc(*sides, precision_k=4, density_k=2) == want


def data(kind, rng):
    real, fake = rng.normal(size=(150, 6)), rng.normal(size=(130, 6)) * 0.8 + 0.2
    if kind == "lattice":  # ties everywhere, duplicates among them
        return np.round(real[:, :3]), np.round(fake[:, :3])
    if kind == "far from the origin":
        return real + 1e6, fake + 1e6
    if kind == "collapsed":
        return real, np.repeat(fake[:1], 130, axis=0)
    if kind == "nearly collapsed":  # float32 sees one point
        return real, fake[:1] + fake * 1e-9
    if kind == "close pairs":  # float32 cannot tell the fakes of a cluster apart
        return real, np.repeat(fake[:10], 13, axis=0) + fake * 1e-6
    if kind == "near copies":
        return real, real[:130] + rng.normal(size=(130, 6)) * 1e-9
    if kind == "outlier":  # its norm swamps everybody's float32 distances
        fake[7] *= 1e6
        return real, fake
    if kind == "dead":
        return np.zeros((40, 6)), np.zeros((50, 6))
    if kind == "large":
        return real * 1e25, fake * 1e25
    return real.astype(np.float32), fake.astype(np.float32)


KINDS = ["plain", "lattice", "far from the origin", "collapsed", "nearly collapsed", "close pairs",
         "near copies", "outlier", "dead", "large"]  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_hard_data(kind, strict, small_blocks):
    real, fake = data(kind, np.random.default_rng(0))
    for pair in ((real, fake), (fake, real)):
        assert ours(*pair, 3, strict) == pytest.approx(all_pairs(*pair, 3, strict), rel=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lattice"])
def test_few_pairs_need_to_be_exact(kind, monkeypatch, small_blocks):
    """Only neighbours, and pairs that float32 leaves in doubt, are computed one by one."""
    real, fake = data(kind, np.random.default_rng(0))
    pairs = []
    exact = distances.Points.exact

    def watched(self, rows, *args):
        pairs.append(len(rows))
        return exact(self, rows, *args)

    monkeypatch.setattr(distances.Points, "exact", watched)
    scores.prdc(real, fake)
    # 11 or 13 neighbours each, twice where float64 had to find them, and then the balls.
    neighbours_of = 2 * (13 * len(real) + 11 * len(fake))
    assert sum(pairs) <= neighbours_of + len(real) * len(fake) * 0.03


@pytest.mark.parametrize("kind", ["plain", "far from the origin", "duplicates of one point"])
def test_float32_is_enough(kind, monkeypatch, small_blocks):
    """Neither a common offset nor strict balls of radius 0 make blocks fall back to float64."""
    if kind == "duplicates of one point":
        real = np.repeat(np.eye(1, 6), 90, axis=0)
        fake = real[:70] + np.random.default_rng(0).normal(size=(70, 6)) * 1e-9
        real[0] += 1  # so that the norms, and with them the doubt, are not 0
    else:
        real, fake = data(kind, np.random.default_rng(0))
    dtypes = set()
    squared = distances.squared

    def watched(x, *args):
        dtypes.add(x.dtype)
        return squared(x, *args)

    monkeypatch.setattr(distances, "squared", watched)
    scores.density_coverage(real, fake)
    assert dtypes == {np.dtype(np.float32)}


def test_same_features_on_both_sides(sides):
    real = sides[0]
    got = scores.prdc(real, real)
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    # Each strict ball of 5 neighbours holds its centre and 4 of them.
    assert got["density"] == 1


def test_nothing_is_as_large_as_all_pairs(monkeypatch, small_blocks):
    """Blocks, not rows of all columns: no array holds more than one block of pairs or features."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(900, 4)), rng.normal(size=(700, 4))
    shapes = []
    squared = distances.squared

    def watched(*args):
        d = squared(*args)
        shapes.append(d.shape)
        return d

    monkeypatch.setattr(distances, "squared", watched)
    monkeypatch.setattr(neighbours, "squared", watched)
    assert scores.prdc(real, fake)["coverage"] > 0.9
    assert max(rows * columns for rows, columns in shapes) == 64 * 64


def test_refusals():
    x = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(UserError, match="k = 5 nearest neighbours of 6 real and 5 fake"):
        scores.density_coverage(x, x[:5])
    with pytest.raises(UserError, match="k = 0 nearest"):
        scores.precision_recall(x, x, k=0)
    with pytest.raises(UserError, match="2 and 1 feature dimensions"):
        scores.precision_recall(x, x[:, :1])
    with pytest.raises(UserError, match=r"real features have shape \[6\]"):
        scores.prdc(x[:, 0], x)
    x[4] = np.inf
    with pytest.raises(UserError, match="1 of 6 fake features hold NaN"):
        scores.precision_recall(np.zeros((6, 2)), x)
