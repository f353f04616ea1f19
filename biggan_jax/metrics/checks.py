"""Checks of the arrays that scores are computed from."""

import warnings

import numpy as np

from biggan_jax.errors import UserError

# Rows looked at together: a mask of 50,000 x 2048 features would take 100 MB by itself.
ROWS = 2048


def matrix(x: np.ndarray, name: str, *, rows: int = 1) -> np.ndarray:
    """Checks a matrix of features or logits and returns it as a float array, copied only if needed.

    Args:
      x: [N, d], any real dtype.
      name: what it is, for the message: 'real features'.
      rows: least N that the caller can use.

    Returns:
      The array, float32 or float64; other dtypes become float64.

    Raises:
      UserError: another rank, too few rows, or a NaN or infinity.
    """
    x = np.asarray(x)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    if x.ndim != 2 or x.shape[1] == 0:
        raise UserError(f"{name} have shape {list(x.shape)}: one row per image is expected, [N, d]")
    if len(x) < rows:
        raise UserError(f"{len(x)} {name} given, at least {rows} needed: raise the sample count")
    bad = [
        i + start
        for start in range(0, len(x), ROWS)
        for i in np.flatnonzero(~np.isfinite(x[start : start + ROWS]).all(axis=1))
    ]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(x)} {name} hold NaN or infinity (first: row {bad[0]}): "
            "check the images they come from"
        )
    return x


def same_dimension(d_real: int, d_fake: int) -> None:
    """Refuses features of two dimensions.

    Args:
      d_real: dimensions on the real side.
      d_fake: dimensions on the fake side.

    Raises:
      UserError: they differ.
    """
    if d_real != d_fake:
        raise UserError(
            f"the two sides have {d_real} and {d_fake} feature dimensions: "
            "both must come from the same features network"
        )


def warn_if_rank_deficient(count: int, dim: int, what: str) -> None:
    """Warns where a covariance is estimated from too few samples to have full rank.

    Args:
      count: samples behind the covariance.
      dim: feature dimensions d; N samples give rank N - 1 at most.
      what: whose covariance, for the message: 'features', 'the smallest class'.
    """
    if count <= dim:
        warnings.warn(
            f"{count} samples of {what} for {dim} dimensions: the covariance is rank-deficient "
            "and the Frechet distance biased upwards; take more samples",
            stacklevel=3,
        )


def seed(value: int) -> int:
    """Takes a seed of 32 bits, with or without a sign, for numpy, which wants none.

    Args:
      value: -1 is the same as 2**32 - 1.

    Returns:
      The seed in [0, 2**32).

    Raises:
      UserError: it is no integer of 32 bits.
    """
    if not isinstance(value, int | np.integer) or not -(2**31) <= value < 2**32:
        raise UserError(f"seed is {value}; it must be an integer of 32 bits (-2**31 to 2**32 - 1)")
    return int(value) % 2**32
