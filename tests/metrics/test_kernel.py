"""Kernel distance against torch-fidelity (f11b), all pairs written out, and fresh draws."""

from pathlib import Path

import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.metrics import kernel, scores

FIXTURE = Path(__file__).parent.parent / "fixtures" / "f11b_metrics.npz"


@pytest.fixture(scope="module")
def peer():
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def sides(peer):
    return peer["in/features_real"], peer["in/features_fake"]


def test_kernel_distance_matches_torch_fidelity(peer, sides):
    prefix = "kid/torch-fidelity/subsets10_size100_seed2020"
    drawn = scores.kernel_distance(*sides, subsets=10, subset_size=100)
    given = scores.kernel_distance(*sides, indices=peer["kid/subset_indices"])
    assert drawn == given
    np.testing.assert_allclose(given["mean"], peer[f"{prefix}/mean"], rtol=1e-6)
    np.testing.assert_allclose(given["std"], peer[f"{prefix}/std"], rtol=1e-6)


@pytest.mark.parametrize("rows", [2048, 96])
def test_full_mmd_matches_torch_fidelity(peer, sides, rows, monkeypatch):
    monkeypatch.setattr(kernel, "ROWS", rows)
    want = peer["kid/torch-fidelity/full_unbiased_mmd2"]
    np.testing.assert_allclose(scores.squared_mmd(*sides), want, rtol=1e-6)


def test_mmd_written_out():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1
    k = lambda x, y: (x @ y / 3 + 1) ** 3
    mean = lambda a, b: np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(b)
                                 if a is not b or i != j])  # fmt: skip
    want = mean(real, real) + mean(fake, fake) - 2 * mean(real, fake)
    np.testing.assert_allclose(scores.squared_mmd(real, fake), want, rtol=1e-12)


def test_kernel_distance_standard_error_covers():
    """The spread of KID over fresh draws of the data is what its standard error says."""
    rng = np.random.default_rng(0)
    results = [
        scores.kernel_distance(
            rng.normal(size=(240, 4)), rng.normal(size=(240, 4)) + 0.5, 40, subset_size=60
        )
        for _ in range(40)
    ]
    spread = np.std([r["mean"] for r in results], ddof=1)
    claimed = np.sqrt(np.mean([r["standard_error"] ** 2 for r in results]))
    # 40 draws know the spread to 11%. Without the shared part the claim would be a third of it.
    assert 0.7 < claimed / spread < 1.4


def test_kernel_distance_sizes():
    x = np.random.default_rng(0).normal(size=(120, 2))
    one = scores.kernel_distance(x, x[::-1], subsets=1)
    assert np.isnan(one["standard_error"]) and one["std"] == 0
    assert np.isnan(scores.kernel_distance(x, x, subset_size=120)["standard_error"])
    # A tenth of the smaller side, but no less than 100 rows, but no more than there are.
    for rows, size in [(120, 100), (50, 50)]:
        default = scores.kernel_distance(x, x[:rows] + 1, subsets=3)
        given = scores.kernel_distance(x, x[:rows] + 1, subsets=3, subset_size=size)
        assert default["mean"] == given["mean"]
    with pytest.raises(UserError, match="100 KID subsets of 121 from 120 real and 120 fake"):
        scores.kernel_distance(x, x, subset_size=121)
    with pytest.raises(UserError, match="2 and 1 feature dimensions"):
        scores.kernel_distance(x, x[:, :1])
