"""Frechet distances: of two Gaussians, per class, and extrapolated to infinitely many fakes."""

from typing import Any

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks, moments


def frechet_distance(
    mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
    """Squared Frechet (Wasserstein-2) distance of two Gaussians; FID on Inception features.

    tr (S1 S2)^(1/2) is taken as tr (S1^(1/2) S2 S1^(1/2))^(1/2): two symmetric eigenproblems, so
    nothing complex appears and singular covariances need no offset on the diagonal.

    Args:
      mu1: [d], mean.
      sigma1: [d, d], covariance, symmetric and positive semi-definite.
      mu2: [d].
      sigma2: [d, d].

    Returns:
      |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), >= 0.

    Raises:
      UserError: shapes that do not match, or a NaN or infinity.

    References:
      Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6.
    """
    mu1, sigma1 = _gaussian(mu1, sigma1)
    mu2, sigma2 = _gaussian(mu2, sigma2)
    checks.same_dimension(len(mu1), len(mu2))
    return _distance(mu1, np.trace(sigma1), _root(sigma1), mu2, sigma2)


def intra_frechet_distance(
    real_features: np.ndarray,
    real_labels: np.ndarray,
    fake_features: np.ndarray,
    fake_labels: np.ndarray,
) -> dict[str, Any]:
    """Intra-class FID: the Frechet distance of each class by itself.

    Args:
      real_features: [N, d].
      real_labels: [N], integer classes.
      fake_features: [M, d].
      fake_labels: [M].

    Returns:
      `mean` over the classes and `per_class` {class: distance}. Warns once where the smallest class
      has no more samples than d.

    Raises:
      UserError: a class with fewer than 2 samples on either side, labels that do not match, or a
        NaN or infinity.

    References:
      Miyato and Koyama 2018, cGANs with Projection Discriminator, section 4.
    """
    real, real_labels = _labelled(real_features, real_labels, "real")
    fake, fake_labels = _labelled(fake_features, fake_labels, "fake")
    checks.same_dimension(real.shape[1], fake.shape[1])
    classes = [int(c) for c in np.union1d(real_labels, fake_labels)]
    counts = {c: (int((real_labels == c).sum()), int((fake_labels == c).sum())) for c in classes}
    for c, (n_real, n_fake) in counts.items():
        if min(n_real, n_fake) < 2:
            raise UserError(
                f"class {c} has {n_real} real and {n_fake} fake features: "
                "intra-class FID needs at least 2 on each side, raise the sample count"
            )
    smallest = min(min(pair) for pair in counts.values())
    checks.warn_if_rank_deficient(smallest, real.shape[1], "the smallest class")
    per_class = {
        c: _feature_distance(real[real_labels == c], fake[fake_labels == c]) for c in classes
    }
    return {"mean": float(np.mean(list(per_class.values()))), "per_class": per_class}


def frechet_distance_infinity(
    mu: np.ndarray,
    sigma: np.ndarray,
    fake: np.ndarray,
    sizes: tuple[int, ...] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """FID-infinity: the distance at several numbers of fakes, extrapolated to infinitely many.

    The bias of the distance falls as 1/N, so a line through (1/N, distance) meets 1/N = 0 at the
    unbiased value. Only the fakes are extrapolated; the real side stays as it is.

    Args:
      mu: [d], mean of the real features.
      sigma: [d, d], their covariance.
      fake: [N, d].
      sizes: numbers of fakes, at least 3 different ones; 15 from N / 10 to N if absent.
      seed: of the random subsets, one drawn without replacement per size.

    Returns:
      `value` (the intercept), its `standard_error`, `regression_error` (the part of it that tells
      how well the points lie on a line), `slope`, `sizes` and `distances`. The subsets share
      samples, so the rest of the standard error, how far another N fakes would move all points
      together, comes from the distance's influence function over the fakes.

    Raises:
      UserError: sizes that the fakes do not allow, shapes that do not match, a NaN or infinity.

    References:
      Chong and Forsyth 2020, Effectively Unbiased FID and Inception Score, section 4.
    """
    mu, sigma = _gaussian(mu, sigma)
    fake = checks.matrix(fake, "fake features", rows=2)
    checks.same_dimension(len(mu), fake.shape[1])
    if sizes is None:
        sizes = np.linspace(max(2, len(fake) // 10), len(fake), 15).astype(int)
    sizes = sorted({int(size) for size in sizes})
    if len(sizes) < 3 or sizes[0] < 2 or sizes[-1] > len(fake):
        raise UserError(
            f"FID-infinity over {sizes} of {len(fake)} fakes: "
            f"at least 3 different sizes from 2 to {len(fake)} are needed"
        )
    checks.warn_if_rank_deficient(sizes[0], len(mu), "the smallest subset")
    rng = np.random.default_rng(checks.seed(seed))
    root, trace = _root(sigma), np.trace(sigma)
    distances = []
    for size in sizes:
        mean, covariance = _moments(fake, rng.permutation(len(fake))[:size])
        distances.append(_distance(mu, trace, root, mean, covariance))
    value, slope, error = _line(1 / np.array(sizes, float), np.array(distances))
    return {
        "value": value,
        "standard_error": float(np.hypot(error, _sampling_error(mu, root, fake))),
        "regression_error": error,
        "slope": slope,
        "sizes": sizes,
        "distances": distances,
    }


def _gaussian(mu: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mu, sigma = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"mean {list(mu.shape)} and covariance {list(sigma.shape)} do not belong together: "
            "[d] and [d, d] are expected"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError("the moments hold NaN or infinity: check the features they come from")
    return mu, sigma


def _root(sigma: np.ndarray) -> np.ndarray:
    """F [r, d] with F^T F = sigma, r the numerical rank."""
    values, vectors = np.linalg.eigh(sigma)
    # The rule of numpy's matrix_rank. Rounding noise in the null space would come back as its
    # square root: 1e-16 of the largest eigenvalue is 1e-8 per direction of the distance.
    keep = values > values.max(initial=0) * len(values) * np.finfo(values.dtype).eps
    return (vectors[:, keep] * np.sqrt(values[keep])).T


def _distance(
    mu1: np.ndarray, trace1: float, root1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
    values = np.linalg.eigvalsh(root1 @ sigma2 @ root1.T)
    cross = np.sqrt(values.clip(min=0)).sum()
    return _positive(np.square(mu1 - mu2).sum() + trace1 + np.trace(sigma2) - 2 * cross)


def _positive(distance: float) -> float:
    # Equal Gaussians leave a rounding error of either sign.
    return max(float(distance), 0.0)


def _labelled(features: np.ndarray, labels: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    features, labels = checks.matrix(features, f"{side} features"), np.asarray(labels)
    if labels.shape != (len(features),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{side} labels have shape {list(labels.shape)} and type {labels.dtype} for "
            f"{len(features)} features: one integer class per feature is expected"
        )
    return features, labels


def _moments(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stream = moments.Moments(features.shape[1])
    for start in range(0, len(rows), moments.ROWS):
        stream.add(features[rows[start : start + moments.ROWS]])
    return stream.mean, stream.scatter / (stream.count - 1)


def _feature_distance(real: np.ndarray, fake: np.ndarray) -> float:
    if max(len(real), len(fake)) > real.shape[1]:
        mu1, sigma1 = _moments(real, np.arange(len(real)))
        mu2, sigma2 = _moments(fake, np.arange(len(fake)))
        return _distance(mu1, np.trace(sigma1), _root(sigma1), mu2, sigma2)
    # With A, B the centred rows over sqrt(N - 1), tr (S1 S2)^(1/2) is the nuclear norm of A B^T:
    # N x N in place of d x d, 20 s less for each class of 50 at 2048 dimensions.
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    mu1, mu2 = real.mean(axis=0), fake.mean(axis=0)
    a = (real - mu1) / np.sqrt(len(real) - 1)
    b = (fake - mu2) / np.sqrt(len(fake) - 1)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    traces = np.square(a).sum() + np.square(b).sum()
    return _positive(np.square(mu1 - mu2).sum() + traces - 2 * cross)


def _sampling_error(mu: np.ndarray, root: np.ndarray, fake: np.ndarray) -> float:
    """Standard error of the distance from the N fakes, to first order in their moments."""
    mean, covariance = _moments(fake, np.arange(len(fake)))
    values, vectors = np.linalg.eigh(root @ covariance @ root.T)
    keep = values > values.max(initial=0) * len(values) * np.finfo(values.dtype).eps
    # d tr (S1^(1/2) S S1^(1/2))^(1/2) = tr (G^T G dS) / 2.
    g = (vectors[:, keep] * values[keep] ** -0.25).T @ root
    stream = moments.Moments(1)
    for start in range(0, len(fake), moments.ROWS):
        x = np.asarray(fake[start : start + moments.ROWS], np.float64) - mean
        second = np.square(x).sum(axis=1) - np.square(x @ g.T).sum(axis=1)
        stream.add((2 * x @ (mean - mu) + second)[:, None])
    return float(np.sqrt(stream.scatter[0, 0] / (len(fake) - 1) / len(fake)))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares y = a + b x: a, b, and the standard error of a."""
    centred = x - x.mean()
    spread = np.square(centred).sum()
    slope = (centred * y).sum() / spread
    intercept = y.mean() - slope * x.mean()
    variance = np.square(y - intercept - slope * x).sum() / (len(x) - 2)
    error = np.sqrt(variance * (1 / len(x) + x.mean() ** 2 / spread))
    return float(intercept), float(slope), float(error)
