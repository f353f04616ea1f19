"""Mean and covariance of a stream of features, in float64, and the files they are kept in."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.errors import UserError, some
from biggan_jax.metrics import archives, checks

# Rows taken at once: their float64 copy is 32 MB at 2048 dimensions.
ROWS = 2048
_MOST_SAMPLES = 10**12
_LARGEST = 1e100  # beyond it squares of differences are no longer finite
# Of the largest entry, or of the trace: files of other programs may have been float32 once.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of features, with what is known of their making.

    Attributes:
      mean: [d], float64.
      covariance: [d, d], float64, divided by N - 1.
      count: N, or None where the file does not say (files of pytorch-fid).
      protocol: how the features were made; JSON values by name.
      checked: whether they come from a file with a digest, which they have.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    checked: bool = False

    def to_bytes(self) -> bytes:
        """Gives the contents of an .npz without pickles, whose arrays pytorch-fid reads too.

        Returns:
          What `load` reads from a file.
        """
        arrays = {
            "mu": self.mean,
            "sigma": self.covariance,
            "protocol": np.array(json.dumps(self.protocol, sort_keys=True)),
        }
        if self.count is not None:
            arrays["count"] = np.array(self.count, np.int64)
        return archives.to_bytes(arrays)


def load(path: str | Path, dim: int | None = None) -> Statistics:
    """Reads statistics: files of `Statistics.to_bytes` and of pytorch-fid (`mu`, `sigma`).

    Args:
      path: an .npz file.
      dim: feature dimensions that the caller's own features have, if they are to be compared.

    Returns:
      The statistics, in float64.

    Raises:
      UserError: no such file, not an .npz of statistics, damaged, or of another dimension.
    """
    try:
        arrays, checked = archives.read(path)
        mean, covariance = (_real(arrays[key], key) for key in ("mu", "sigma"))
        count = _count(arrays["count"]) if "count" in arrays else None
        protocol = json.loads(str(arrays["protocol"])) if "protocol" in arrays else {}
        if not isinstance(protocol, dict):
            raise ValueError("`protocol` is no object")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such statistics file; correct the path") from None
    except KeyError:
        held = f"its arrays: {some(arrays, 6)}" if arrays else "it is empty"
        raise UserError(
            f"{path}: no arrays `mu` and `sigma` in it, not statistics ({held}); write both by "
            "numpy.savez('F.npz', mu=..., sigma=...)"
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: not a readable .npz of statistics ({error}); make or copy it again"
        ) from None
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: `mu` {list(mean.shape)} and `sigma` {list(covariance.shape)} do not match; "
            "write [D] and [D, D] of the same features"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: the statistics hold NaN or infinity; make them again")
    problem = _no_covariance(covariance)
    if problem is not None or not np.abs(mean).max() < _LARGEST:
        what = problem or "`mu` holds values that no features have"
        raise UserError(f"{path}: {what}; make the statistics again, or copy them again")
    if dim is not None and dim != len(mean):
        raise UserError(
            f"{path} has {len(mean)} feature dimensions, the features compared with it {dim}: "
            "take statistics of the same features network"
        )
    return Statistics(mean, covariance, count, protocol, checked)


def _real(x: np.ndarray, name: str) -> np.ndarray:
    if x.dtype.kind not in "fiu":
        raise ValueError(f"`{name}` holds {x.dtype}, no real numbers")
    return np.asarray(x, np.float64)


def _count(x: np.ndarray) -> int:
    if x.shape != () or x.dtype.kind not in "iu" or not 2 <= int(x) <= _MOST_SAMPLES:
        raise ValueError("`count` is no number of samples")
    return int(x)


def _no_covariance(covariance: np.ndarray) -> str | None:
    """Why a matrix is no covariance, up to the rounding of float32; None where it is one."""
    variances = covariance.diagonal()
    largest = np.abs(covariance).max()
    if not largest < _LARGEST:
        return "`sigma` holds values that no features have"
    if np.abs(covariance - covariance.T).max() > _ROUNDING * largest:
        return "`sigma` is not symmetric"
    if (variances < -_ROUNDING * largest).any():
        return "`sigma` has a negative variance"
    shift = _ROUNDING * max(variances.sum(), np.finfo(np.float64).tiny)
    try:  # a tenth of a second at 2048 dimensions, where eigenvalues take seconds
        np.linalg.cholesky(covariance + shift * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        return "`sigma` is not positive semi-definite"
    return None


class Moments:
    """Count, mean and scatter of a stream of features.

    Batches are centred before they are multiplied, so a large common offset costs no digits, and
    two streams merge exactly as one would have been summed, up to rounding.

    References:
      Chan, Golub, LeVeque 1983, Algorithms for Computing the Sample Variance, eq. 2.1.

    Attributes:
      count: samples seen.
      mean: [d], float64.
      scatter: [d, d], float64; sum of (x - mean)(x - mean)^T.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = np.zeros(dim)
        self.scatter = np.zeros((dim, dim))

    @property
    def dim(self) -> int:
        """Feature dimensions d."""
        return len(self.mean)

    def add(self, features: np.ndarray) -> None:
        """Takes in a batch.

        Args:
          features: [N, d], N may be 0; converted to float64 a few rows at a time.

        Raises:
          UserError: another dimension, or a NaN or infinity (nothing is added then).
        """
        features = checks.matrix(features, "features", rows=0)
        checks.same_dimension(self.dim, features.shape[1])
        for start in range(0, len(features), ROWS):
            # float64: the covariance is a small difference of large numbers.
            x = np.asarray(features[start : start + ROWS], np.float64)
            mean = x.mean(axis=0)
            x = x - mean
            self._combine(len(x), mean, x.T @ x)

    def merge(self, other: "Moments") -> "Moments":
        """Joins two streams.

        Args:
          other: moments of other samples, of the same dimension.

        Returns:
          The moments of all samples; both arguments stay as they are.

        Raises:
          UserError: another dimension.
        """
        checks.same_dimension(self.dim, other.dim)
        joined = Moments(self.dim)
        for part in (self, other):
            joined._combine(part.count, part.mean, part.scatter)
        return joined

    def statistics(self, protocol: dict[str, Any] | None = None) -> Statistics:
        """Ends the stream.

        Args:
          protocol: how the features were made; JSON values by name.

        Returns:
          Mean and covariance (divided by N - 1). Warns where N <= d.

        Raises:
          UserError: fewer than 2 samples.
        """
        if self.count < 2:
            raise UserError(
                f"{self.count} features seen, a covariance needs at least 2: raise the sample count"
            )
        checks.warn_if_rank_deficient(self.count, self.dim, "features")
        covariance = self.scatter / (self.count - 1)
        return Statistics(self.mean.copy(), covariance, self.count, dict(protocol or {}))

    def _combine(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(delta * (self.count * count / total), delta)
        self.mean = self.mean + delta * (count / total)
        self.count = total
