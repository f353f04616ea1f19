"""Scores on plain arrays: numpy in (computed in float64), a float or a dict of floats out."""

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks
from biggan_jax.metrics.frechet import (
    frechet_distance,
    frechet_distance_infinity,
    intra_frechet_distance,
)
from biggan_jax.metrics.kernel import kernel_distance, squared_mmd
from biggan_jax.metrics.memorisation import authenticity, data_copying, nearest_neighbours
from biggan_jax.metrics.neighbours import density_coverage, prdc, precision_recall

__all__ = [
    "authenticity",
    "data_copying",
    "density_coverage",
    "frechet_distance",
    "frechet_distance_infinity",
    "inception_score",
    "intra_frechet_distance",
    "kernel_distance",
    "nearest_neighbours",
    "prdc",
    "precision_recall",
    "squared_mmd",
]

# Rows of logits in float64 at once: 33 MB at 1008 classes.
ROWS = 4096


def inception_score(
    logits: np.ndarray,
    splits: int = 10,
    *,
    drop_remainder: bool = False,
    shuffle_seed: int | None = None,
) -> dict[str, float]:
    """Inception score: exp of the mean KL divergence of p(y|x) from p(y), per split.

    Args:
      logits: [N, classes], before the softmax.
      splits: parts of consecutive rows that are scored apart, 1 to N.
      drop_remainder: leave out the last N mod splits rows, as BigGAN-PyTorch does. Otherwise every
        row counts and split i ends at row (i + 1) N // splits, as in torch-fidelity.
      shuffle_seed: shuffles the rows first (MT19937), as torch-fidelity does with 2020; needed
        where rows are sorted by class. The order is kept if absent.

    Returns:
      `mean` and `std` over the splits; std is divided by `splits`, as in Salimans' code (StudioGAN
      divides by splits - 1).

    Raises:
      UserError: fewer rows than splits, or a NaN or infinity.

    References:
      Salimans et al. 2016, Improved Techniques for Training GANs, section 4.
    """
    logits = checks.matrix(logits, "logits")
    n = len(logits)
    if not 1 <= splits <= n:
        raise UserError(f"{splits} splits of {n} logits: at least 1 and at most {n} can be made")
    order = np.arange(n)
    if shuffle_seed is not None:
        np.random.RandomState(checks.seed(shuffle_seed)).shuffle(order)
    n -= n % splits if drop_remainder else 0
    bounds = [i * n // splits for i in range(splits + 1)]
    values = [_split_score(logits, order[bounds[i] : bounds[i + 1]]) for i in range(splits)]
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _split_score(logits: np.ndarray, rows: np.ndarray) -> float:
    marginal, negative_entropy = np.zeros(logits.shape[1]), 0.0
    for start in range(0, len(rows), ROWS):
        x = np.asarray(logits[rows[start : start + ROWS]], np.float64)
        log_p = x - x.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        marginal += p.sum(axis=0)
        negative_entropy += (p * log_p).sum()
    marginal /= len(rows)
    # mean_x sum_y p(y|x) (log p(y|x) - log p(y)), so that one pass is enough. Classes whose
    # probability underflows to 0 add nothing: p log p -> 0.
    seen = marginal[marginal > 0]
    return float(np.exp(negative_entropy / len(rows) - (seen * np.log(seen)).sum()))
