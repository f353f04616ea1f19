"""Kernel (Inception) distance: unbiased squared MMD with a cubic polynomial kernel."""

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks

# Rows and columns of the kernel matrix held at once (32 MB).
ROWS = 2048


def kernel_distance(
    real: np.ndarray,
    fake: np.ndarray,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 2020,
    indices: np.ndarray | None = None,
) -> dict[str, float]:
    """KID: the unbiased squared MMD of random subsets, k(x, y) = (x.y / d + 1)^3.

    The value is not multiplied by 1000. Subsets are drawn as torch-fidelity draws them (MT19937,
    the real rows of a subset before its fake ones), so equal settings give equal numbers.

    Args:
      real: [N, d].
      fake: [M, d].
      subsets: how many subsets.
      subset_size: rows of each side in a subset. If absent, a tenth of the smaller side, between
        100 and 1000: a subset that takes most of the rows tells nothing about the error.
      seed: of the subsets.
      indices: [subsets, 2, subset_size], rows of real and of fake, in place of random ones.

    Returns:
      `mean` and `std` (divided by `subsets`) over the subsets, and the `standard_error` of the mean
      as an estimate for all images, not only for these: subsets overlap, so it does not vanish
      with their number. NaN with one subset or subsets of all rows.

    Raises:
      UserError: subsets larger than the data, dimensions that differ, a NaN or infinity.

    References:
      Binkowski et al. 2018, Demystifying MMD GANs, section 4; Gretton et al. 2012, eq. 3.
    """
    real, fake = _both(real, fake)
    least = min(len(real), len(fake))
    if indices is None:
        size = min(least, max(100, min(1000, least // 10))) if subset_size is None else subset_size
        if subsets < 1 or not 2 <= size <= least:
            raise UserError(
                f"{subsets} KID subsets of {size} from {len(real)} real and {len(fake)} fake "
                f"features: at least one subset of 2 to {least} is needed"
            )
        rng = np.random.RandomState(checks.seed(seed))
        pairs = [
            [rng.choice(len(side), size, replace=False) for side in (real, fake)]
            for _ in range(subsets)
        ]
        indices = np.array(pairs)
    values = np.array([_mmd2(real[rows], fake[columns]) for rows, columns in indices])
    count, _, size = np.shape(indices)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "standard_error": _standard_error(values, count, size / least),
    }


def squared_mmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared MMD of all rows, with the kernel of `kernel_distance`.

    Args:
      real: [N, d], N >= 2.
      fake: [M, d], M >= 2.

    Returns:
      The estimate; below zero by chance where the distributions are equal.

    Raises:
      UserError: too few rows, dimensions that differ, a NaN or infinity.

    References:
      Gretton et al. 2012, A Kernel Two-Sample Test, eq. 3.
    """
    return _mmd2(*_both(real, fake))


def _both(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = checks.matrix(real, "real features", rows=2)
    fake = checks.matrix(fake, "fake features", rows=2)
    checks.same_dimension(real.shape[1], fake.shape[1])
    return real, fake


def _mmd2(real: np.ndarray, fake: np.ndarray) -> float:
    n, m = len(real), len(fake)
    within = _kernel_sum(real, real) / (n * (n - 1)) + _kernel_sum(fake, fake) / (m * (m - 1))
    return within - 2 * _kernel_sum(real, fake) / (n * m)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of k over all pairs; over i != j where both are the same array."""
    total = 0.0
    for i in range(0, len(x), ROWS):
        rows = np.asarray(x[i : i + ROWS], np.float64)
        for j in range(i if x is y else 0, len(y), ROWS):
            columns = np.asarray(y[j : j + ROWS], np.float64)
            k = (rows @ columns.T / x.shape[1] + 1) ** 3
            if x is y:
                # The other triangle is the same; the diagonal would make the estimate biased.
                total += 2 * k.sum() if i != j else k.sum() - np.trace(k)
            else:
                total += k.sum()
    return float(total)


def _standard_error(values: np.ndarray, count: int, fraction: float) -> float:
    if count < 2 or fraction >= 1:
        return float("nan")
    # A subset of a fraction f of the rows has variance v, of which f v is shared by all subsets of
    # the same rows (the variance of a U-statistic falls as 1/N): they scatter by (1 - f) v only.
    shared = fraction / (1 - fraction)
    return float(np.sqrt(values.var(ddof=1) * (shared + 1 / count)))
