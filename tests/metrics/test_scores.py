"""Scores against the peers' values (f11b), scipy, and truths written out in plain numpy."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from biggan_jax.errors import UserError
from biggan_jax.metrics import moments, scores
from tests import runs

FIXTURE = Path(__file__).parent.parent / "fixtures" / "f11b_metrics.npz"


@pytest.fixture(scope="module")
def peer():
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def sides(peer):
    return peer["in/features_real"], peer["in/features_fake"]


def gaussian(rng, n, d, scale=1.0):
    """Features with a spread of variances, correlated, off the origin."""
    mix = rng.normal(size=(d, d)) * np.exp(-np.arange(d) / 5) * scale
    return rng.normal(size=(n, d)) @ mix.T + rng.normal(size=d)


def fit(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


# Frechet distance


PEERS = [
    ("pytorch-fid", 1e-6),
    ("studiogan", 1e-6),
    ("biggan-pytorch_numpy", 1e-6),
    ("biggan-pytorch_newtonschulz_f64", 1e-6),
    ("torch-fidelity", 1e-6),
    # In float32 these two differ from the other five by 8e-7 and 2e-7 themselves.
    ("biggan-pytorch_newtonschulz_f32", 2e-6),
    ("torch-fidelity_float32_means", 1e-6),
]


@pytest.mark.parametrize(("name", "rtol"), PEERS)
def test_frechet_matches_peers(peer, name, rtol):
    moments_of = (
        peer[f"stats/{key}"] for key in ("mu_real", "sigma_real", "mu_fake", "sigma_fake")
    )
    np.testing.assert_allclose(scores.frechet_distance(*moments_of), peer[f"fid/{name}"], rtol=rtol)


def test_frechet_of_features_matches_peers(peer, sides):
    """End to end from float32 features, through the streaming moments."""
    statistics = []
    for features in sides:
        stream = moments.Moments(64)
        for start in range(0, 500, 150):
            stream.add(features[start : start + 150])
        statistics.append(stream.statistics())
    real, fake = statistics
    np.testing.assert_allclose(fake.covariance, peer["stats/sigma_fake"], rtol=0, atol=1e-12)
    got = scores.frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)
    np.testing.assert_allclose(got, peer["fid/torch-fidelity"], rtol=1e-6)


def test_frechet_of_rank_deficient_covariances(peer, sides):
    real, fake = (fit(x[:40].astype(np.float64)) for x in sides)
    for name in ("torch-fidelity", "pytorch-fid"):
        want = peer[f"fid_first40_rankdeficient/{name}"]
        np.testing.assert_allclose(scores.frechet_distance(*real, *fake), want, rtol=1e-6)
    # Null spaces add no noise: the nuclear norm over the 40 samples knows no null space.
    one_class = np.zeros(40, int)
    with pytest.warns(UserWarning, match="40 samples of the smallest class for 64 dimensions"):
        want = scores.intra_frechet_distance(sides[0][:40], one_class, sides[1][:40], one_class)
    np.testing.assert_allclose(scores.frechet_distance(*real, *fake), want["mean"], rtol=1e-12)
    assert scores.frechet_distance(*real, *real) < 1e-10
    flat = np.zeros((64, 64))
    want = np.square(real[0] - fake[0]).sum() + np.trace(real[1])
    for pair in [(*real, fake[0], flat), (fake[0], flat, *real)]:
        np.testing.assert_allclose(scores.frechet_distance(*pair), want, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_against_scipy_sqrtm(seed):
    rng = np.random.default_rng(seed)
    (mu1, s1), (mu2, s2) = (fit(gaussian(rng, 60, 12, scale)) for scale in (1.0, 3.0))
    root = scipy.linalg.sqrtm(s1 @ s2).real
    want = np.square(mu1 - mu2).sum() + np.trace(s1 + s2 - 2 * root)
    np.testing.assert_allclose(scores.frechet_distance(mu1, s1, mu2, s2), want, rtol=1e-9)


def test_frechet_refuses_what_does_not_match():
    mu, sigma = np.zeros(4), np.eye(4)
    with pytest.raises(UserError, match="4 and 3 feature dimensions"):
        scores.frechet_distance(mu, sigma, np.zeros(3), np.eye(3))
    with pytest.raises(UserError, match=r"mean \[4\] and covariance \[3, 3\]"):
        scores.frechet_distance(mu, np.eye(3), mu, sigma)
    with pytest.raises(UserError, match="NaN or infinity"):
        scores.frechet_distance(mu, sigma, mu * np.nan, sigma)


# Intra-class and extrapolated Frechet distance


@pytest.mark.parametrize("n", [8, 40])
def test_intra_frechet_is_the_mean_over_classes(n):
    """Classes smaller (nuclear norm) and larger (moments) than the 10 dimensions."""
    rng = np.random.default_rng(n)
    real, fake = gaussian(rng, 3 * n, 10), gaussian(rng, 3 * n + 2, 10)
    real_labels = rng.permutation(np.arange(3 * n) % 3) + 4
    fake_labels = np.concatenate([rng.permutation(np.arange(3 * n) % 3), [0, 1]]) + 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = scores.intra_frechet_distance(real, real_labels, fake, fake_labels)
    assert [str(w.message) for w in caught if "rank-deficient" in str(w.message)] == (
        [f"{n} samples of the smallest class for 10 dimensions: the covariance is rank-deficient "
         "and the Frechet distance biased upwards; take more samples"] if n == 8 else []
    )  # fmt: skip
    want = {
        c: scores.frechet_distance(*fit(real[real_labels == c]), *fit(fake[fake_labels == c]))
        for c in (4, 5, 6)
    }
    assert list(got["per_class"]) == [4, 5, 6]
    for c, value in want.items():
        np.testing.assert_allclose(got["per_class"][c], value, rtol=1e-7)
    np.testing.assert_allclose(got["mean"], np.mean(list(want.values())), rtol=1e-7)
    json.dumps(got)


@pytest.mark.parametrize(
    ("real_labels", "fake_labels", "message"),
    [
        ([0, 0, 1, 1, 7, 7], [0, 0, 1, 1, 0, 1], "class 7 has 2 real and 0 fake features"),
        ([0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 5], "class 5 has 0 real and 1 fake features"),
        ([0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 0], r"real labels have shape \[5\]"),
        ([0.0] * 6, [0] * 6, "real labels have shape .* type float64"),
    ],
)
def test_intra_frechet_names_the_class(real_labels, fake_labels, message):
    x = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(UserError, match=message):
        scores.intra_frechet_distance(x, np.array(real_labels), x, np.array(fake_labels))


def test_frechet_infinity_is_nearer_to_the_truth():
    """The fakes are drawn from the very Gaussian they are compared with: the truth is 0."""
    d, n = 16, 600
    sigma = np.diag(np.linspace(0.5, 1.5, d) ** 2)
    values, plain = [], []
    for seed in range(8):
        fake = np.random.default_rng(seed).normal(size=(n, d)) @ np.sqrt(sigma)
        got = scores.frechet_distance_infinity(np.zeros(d), sigma, fake, seed=seed)
        values.append(got["value"])
        plain.append(got["distances"][-1])
        assert got["sizes"][0] == n // 10 and got["sizes"][-1] == n and len(got["sizes"]) == 15
        assert got["slope"] > 0
    want = scores.frechet_distance(np.zeros(d), sigma, *fit(fake))
    np.testing.assert_allclose(plain[-1], want, rtol=1e-9)
    # The second order of the bias, 1/N^2, is what is left of it.
    assert abs(np.mean(values)) < np.mean(plain) / 4
    json.dumps(got)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_frechet_infinity_error_covers(shift):
    """The spread over fresh fakes is what the standard error says, whatever the distance."""
    d, n = 8, 400
    sigma, root = np.diag(np.linspace(0.5, 1.5, d) ** 2), np.diag(np.linspace(0.5, 1.5, d))
    results = []
    for seed in range(30):
        fake = np.random.default_rng(seed).normal(size=(n, d)) @ root * (1 + shift) + shift
        results.append(scores.frechet_distance_infinity(np.zeros(d), sigma, fake, seed=seed))
    spread = np.std([r["value"] for r in results], ddof=1)
    claimed = np.sqrt(np.mean([r["standard_error"] ** 2 for r in results]))
    # 30 draws know the spread to 13%. Apart, the regression alone claims less than half.
    assert 0.6 < claimed / spread < 1.6


def test_frechet_infinity_regression_and_refusals():
    rng = np.random.default_rng(0)
    fake, mu, sigma = rng.normal(size=(50, 3)), np.zeros(3), np.eye(3)
    got = scores.frechet_distance_infinity(mu, sigma, fake, sizes=(10, 20, 30, 50))
    design = np.stack([np.ones(4), 1 / np.array([10, 20, 30, 50])], axis=1)
    line, residual = np.linalg.lstsq(design, np.array(got["distances"]))[:2]
    covariance = np.linalg.inv(design.T @ design) * residual[0] / 2
    np.testing.assert_allclose([got["value"], got["slope"]], line, rtol=1e-9)
    np.testing.assert_allclose(got["regression_error"], np.sqrt(covariance[0, 0]), rtol=1e-9)
    with pytest.raises(UserError, match=r"over \[10, 20\] of 50 fakes"):
        scores.frechet_distance_infinity(mu, sigma, fake, sizes=(10, 20))
    with pytest.raises(UserError, match=r"over \[10, 20, 60\] of 50 fakes"):
        scores.frechet_distance_infinity(mu, sigma, fake, sizes=(10, 20, 60))
    with pytest.warns(UserWarning, match="3 samples of the smallest subset for 3 dimensions"):
        scores.frechet_distance_infinity(mu, sigma, fake, sizes=(3, 20, 50))


# Inception score


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_matches_peers(peer, splits):
    logits = peer["in/logits_200x200"]
    got = scores.inception_score(logits, splits)
    shuffled = scores.inception_score(logits, splits, shuffle_seed=2020)
    cases = [
        (got, f"is/biggan-pytorch/splits{splits}", "std", 1.0),
        (got, f"is/torch-fidelity/splits{splits}/shuffleFalse", "std", 1.0),
        (shuffled, f"is/torch-fidelity/splits{splits}/shuffleTrue", "std", 1.0),
    ]
    if splits > 1:
        # StudioGAN divides by splits - 1 (and gives NaN for one split).
        unbiased = np.sqrt(splits / (splits - 1))
        cases.append((got, f"is/studiogan/splits{splits}", "std_unbiased", unbiased))
    for score, prefix, std, factor in cases:
        np.testing.assert_allclose(score["mean"], peer[f"{prefix}/mean"], rtol=1e-6)
        np.testing.assert_allclose(score["std"] * factor, peer[f"{prefix}/{std}"], rtol=1e-6)


@pytest.mark.parametrize(
    ("drop", "prefix"),
    [
        (True, "is/biggan-pytorch/first197_splits10"),
        (False, "is/torch-fidelity/first197_splits10/shuffleFalse"),
    ],
)
def test_inception_score_remainder(peer, drop, prefix):
    got = scores.inception_score(peer["in/logits_200x200"][:197], drop_remainder=drop)
    np.testing.assert_allclose(got["mean"], peer[f"{prefix}/mean"], rtol=1e-6)
    np.testing.assert_allclose(got["std"], peer[f"{prefix}/std"], rtol=1e-6)


def test_inception_score_of_certain_predictions(monkeypatch):
    """One class per row, all classes equally often: the number of classes; no overflow, no NaN."""
    monkeypatch.setattr(scores, "ROWS", 7)  # several blocks in a split
    logits = np.tile(np.eye(5, 6), (8, 1)) * 1e4  # nobody is ever in class 5
    assert scores.inception_score(logits, 2) == pytest.approx({"mean": 5.0, "std": 0.0}, abs=1e-9)
    assert scores.inception_score(logits * 0 + 3, 4)["mean"] == pytest.approx(1.0)
    with pytest.raises(UserError, match="10 splits of 4 logits"):
        scores.inception_score(logits[:4])
    logits[[3, 6], 2] = np.nan, np.inf
    with pytest.raises(UserError, match=r"2 of 40 logits hold NaN or infinity \(first: row 3\)"):
        scores.inception_score(logits)


def test_scores_need_no_jax():
    code = "from biggan_jax.metrics import moments, scores\nimport sys, json\n"
    code += "print(json.dumps('jax' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) is False


def test_seeds():
    """The same for every seed: 32 bits, with or without a sign."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 300, 4))
    mu, sigma, logits = real.mean(0), np.cov(real.T), rng.normal(size=(40, 3))
    for score in (
        lambda seed: scores.kernel_distance(real, fake, subsets=3, seed=seed),
        lambda seed: scores.frechet_distance_infinity(mu, sigma, fake, seed=seed),
        lambda seed: scores.inception_score(logits, shuffle_seed=seed),
    ):
        assert score(-1) == score(2**32 - 1) != score(5)
        for seed in (2**32, -(2**31) - 1, 0.5):
            with pytest.raises(UserError, match=f"seed is {seed}; it must be an integer"):
                score(seed)
