"""Mean and covariance of a stream of features, in float64, and the files they are kept in."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks

# Rows taken at once: their float64 copy is 32 MB at 2048 dimensions.
ROWS = 2048


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of features, with what is known of their making.

    Attributes:
      mean: [d], float64.
      covariance: [d, d], float64, divided by N - 1.
      count: N, or None where the file does not say (files of pytorch-fid).
      protocol: how the features were made; JSON values by name.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)

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
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()


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
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[key], np.float64) for key in ("mu", "sigma"))
            count = int(file["count"]) if "count" in file.files else None
            protocol = json.loads(str(file["protocol"])) if "protocol" in file.files else {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such statistics file") from None
    except KeyError:
        raise UserError(f"{path}: no arrays `mu` and `sigma` in it, not statistics") from None
    except (AttributeError, OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        # AttributeError and TypeError: a lone .npy array opens too, but is no archive.
        raise UserError(f"{path}: not a readable .npz of statistics ({error})") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: `mu` {list(mean.shape)} and `sigma` {list(covariance.shape)} do not match"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: the statistics hold NaN or infinity; make them again")
    if dim is not None and dim != len(mean):
        raise UserError(
            f"{path} has {len(mean)} feature dimensions, the features compared with it {dim}: "
            "take statistics of the same features network"
        )
    return Statistics(mean, covariance, count, protocol)


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
