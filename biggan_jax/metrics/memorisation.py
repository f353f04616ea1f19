"""Whether samples are copies of training images: nearest neighbours, authenticity, data copying.

A distance is the Euclidean one of two rows of features. Candidates come from float64 products, and
their distances are computed again from the difference of the two rows: a copy is exactly 0 apart.
"""

import math
from typing import NamedTuple

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks
from biggan_jax.metrics.distances import Points, keep_nearest, squared
from biggan_jax.metrics.neighbours import SPARE


class Neighbours(NamedTuple):
    """The nearest reference rows of every query row, the nearest first.

    Attributes:
      indices: int64 [N, k], rows of the references.
      distances: float64 [N, k], Euclidean.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest_neighbours(queries: np.ndarray, references: np.ndarray, k: int = 1) -> Neighbours:
    """Finds the nearest rows of one set for every row of another.

    Args:
      queries: [N, d].
      references: [M, d].
      k: how many, 1 to M.

    Returns:
      The neighbours; of equal distances the lower index comes first.

    Raises:
      UserError: k out of range, dimensions that differ, a NaN or infinity.
    """
    queries = checks.matrix(queries, "query features")
    references = checks.matrix(references, "reference features")
    checks.same_dimension(references.shape[1], queries.shape[1])
    if not 1 <= k <= len(references):
        raise UserError(
            f"{k} nearest of {len(references)} rows: ask for 1 to {len(references)} of them"
        )
    centre = references.mean(axis=0, dtype=np.float64)
    x, y = Points(queries, centre), Points(references, centre)
    kept = min(k + SPARE, len(y))
    indices = np.empty((len(x), k), np.int64)
    distances = np.empty((len(x), k))
    for rows in x.slices():
        found = _candidates(x, rows, y, kept)
        first = np.repeat(np.arange(rows.start, rows.stop), kept)
        exact = np.sqrt(x.exact(first, y, found.ravel())).reshape(found.shape)
        order = np.lexsort((found, exact), axis=1)[:, :k]
        indices[rows] = np.take_along_axis(found, order, axis=1)
        distances[rows] = np.take_along_axis(exact, order, axis=1)
    return Neighbours(indices, distances)


def _candidates(x: Points, rows: slice, y: Points, kept: int) -> np.ndarray:
    """The nearest as far as float64 products tell, [rows, kept], in any order."""
    block = x.block(rows)
    distances = np.full((len(block), kept), np.inf)
    indices = np.zeros(distances.shape, np.int32)
    for columns in y.slices():
        d = squared(block, x.norms[rows], y.block(columns), y.norms[columns])
        keep_nearest(distances, indices, d, columns.start)
    return indices


def nearest_others(features: np.ndarray) -> np.ndarray:
    """The distance of every row to the nearest row that is not equal to it.

    Args:
      features: [N, d].

    Returns:
      float64 [N]; infinite where all rows are equal.

    Raises:
      UserError: a NaN or infinity.
    """
    features = checks.matrix(features, "training features")
    distinct, back = np.unique(features, axis=0, return_inverse=True)
    if len(distinct) == 1:
        return np.full(len(features), np.inf)
    return nearest_neighbours(distinct, distinct, 2).distances[back.ravel(), 1]


def authenticity(
    train: np.ndarray, fake: np.ndarray, neighbours: Neighbours | None = None
) -> float:
    """The share of samples that are no near copies of a training image.

    A sample is authentic where it is farther from its nearest training image than that image is
    from the nearest other training image. Training images that equal it are none of the others:
    beside a duplicate nothing would count as a copy.

    Args:
      train: [N, d], features of the training images, two different ones at least.
      fake: [M, d], of the samples.
      neighbours: `nearest_neighbours(fake, train)`, where it is known.

    Returns:
      The share, in [0, 1]: 0 where all samples are copies; about a half for samples of the
      distribution that the training images are drawn from.

    Raises:
      UserError: fewer than two different training images, dimensions that differ, a NaN or
        infinity.

    References:
      Alaa et al. 2022, How Faithful is your Synthetic Data?, the authenticity classifier.
    """
    apart = nearest_others(train)
    if not np.isfinite(apart).all():
        raise UserError("all training images have the same features: give more of them")
    found = nearest_neighbours(fake, train) if neighbours is None else neighbours
    return float(np.mean(found.distances[:, 0] > apart[found.indices[:, 0]]))


def data_copying(
    train: np.ndarray,
    held_out: np.ndarray,
    fake: np.ndarray,
    neighbours: Neighbours | None = None,
) -> dict[str, float]:
    """Compares how near samples and held-out images are to the training images.

    The three-sample test of Meehan et al. with one cell, all of the space: a Mann-Whitney test of
    the distances to the nearest training image.

    Args:
      train: [N, d], features of the training images.
      held_out: [M, d], of images of the same distribution that were not trained on.
      fake: [L, d], of the samples.
      neighbours: `nearest_neighbours(fake, train)`, where it is known.

    Returns:
      `nearer_than_held_out`: the share of the pairs (sample, held-out image) of which the sample is
      nearer to the training images, equal ones by half: 0.5 for fresh draws, 1 for copies;
      `data_copying`: C_T, about standard normal for fresh draws, far below 0 for copies, far above
      0 for samples that lie away from the data; 0 where all distances are equal.

    Raises:
      UserError: dimensions that differ, a NaN or infinity.

    References:
      Meehan et al. 2020, A Non-Parametric Test to Detect Data-Copying in Generative Models: U, its
      normal approximation Z_U, and C_T.
    """
    of_fake = nearest_neighbours(fake, train) if neighbours is None else neighbours
    of_held_out = nearest_neighbours(held_out, train)
    share, z = _mann_whitney(of_held_out.distances[:, 0], of_fake.distances[:, 0])
    return {"nearer_than_held_out": 1 - share, "data_copying": z}


def _mann_whitney(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(share of the pairs with y > x, ties by half; its z score, corrected for ties)."""
    n, m = len(x), len(y)
    values, where, times = np.unique(
        np.concatenate([x, y]), return_inverse=True, return_counts=True
    )
    below = np.cumsum(times) - times
    ranks = (below + (times + 1) / 2)[where]  # ties share the mean of their ranks
    u = ranks[n:].sum() - m * (m + 1) / 2
    total = n + m
    ties = float((times.astype(np.float64) ** 3 - times).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    z = (u - n * m / 2) / math.sqrt(variance) if len(values) > 1 else 0.0
    return float(u / (n * m)), float(z)
