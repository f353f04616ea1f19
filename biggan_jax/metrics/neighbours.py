"""Precision, recall, density and coverage from balls around the k nearest neighbours.

Distances are computed block by block with float32 matrix products. Wherever a rounding error could
decide (a neighbour that may be the k-th, a point that may be inside a ball) they are computed again
in float64 from the difference of the two features, so the scores are those of exact arithmetic.
"""

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks
from biggan_jax.metrics.distances import ROWS, Block, Points, error_bound, keep_nearest, squared

# Neighbours kept beyond the k asked for: room for the float32 order to be wrong.
SPARE = 8


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = 3, *, strict: bool = False
) -> dict[str, float]:
    """Improved precision and recall: the share of each side inside the other side's balls.

    Args:
      real: [N, d].
      fake: [M, d].
      k: neighbour of the same side that a ball's radius reaches to, itself not counted.
      strict: whether a point on the surface is outside (`<`, as in prdc and StudioGAN) in place of
        inside (`<=`, the paper and torch-fidelity). Only duplicates tell them apart.

    Returns:
      `precision` and `recall`, in [0, 1].

    Raises:
      UserError: not more than k rows, dimensions that differ, a NaN or infinity.

    References:
      Kynkaanniemi et al. 2019, Improved Precision and Recall Metric, eq. 1 and 2.
    """
    points = _points(real, fake, k)
    return _scores(points, precision=(k, strict))


def density_coverage(
    real: np.ndarray, fake: np.ndarray, k: int = 5, *, strict: bool = True
) -> dict[str, float]:
    """Density (real balls that hold a fake, over k) and coverage (real balls that hold any).

    Args:
      real: [N, d].
      fake: [M, d].
      k: real neighbour that a ball's radius reaches to, itself not counted.
      strict: whether a point on the surface is outside (`<`, as in the authors' code).

    Returns:
      `density`, >= 0 and about 1 for equal distributions, and `coverage`, in [0, 1].

    Raises:
      UserError: not more than k rows, dimensions that differ, a NaN or infinity.

    References:
      Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models, eq. 4 and 6.
    """
    points = _points(real, fake, k)
    return _scores(points, density=(k, strict))


def prdc(
    real: np.ndarray, fake: np.ndarray, precision_k: int = 3, density_k: int = 5
) -> dict[str, float]:
    """`precision_recall` and `density_coverage` in one pass, for the price of the former.

    Args:
      real: [N, d].
      fake: [M, d].
      precision_k: k of precision and recall.
      density_k: k of density and coverage.

    Returns:
      `precision`, `recall`, `density`, `coverage`.

    Raises:
      UserError: not more than k rows, dimensions that differ, a NaN or infinity.
    """
    points = _points(real, fake, max(precision_k, density_k))
    return _scores(points, precision=(precision_k, False), density=(density_k, True))


def _points(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Points, Points]:
    real, fake = checks.matrix(real, "real features"), checks.matrix(fake, "fake features")
    checks.same_dimension(real.shape[1], fake.shape[1])
    if not 1 <= k < min(len(real), len(fake)):
        raise UserError(
            f"k = {k} nearest neighbours of {len(real)} real and {len(fake)} fake features: "
            "k must be at least 1, and both sides must have more than k"
        )
    centre = real.mean(axis=0, dtype=np.float64)
    points = Points(real, centre), Points(fake, centre)
    largest = max(side.norms.max() for side in points)
    if largest > 0:
        # A power of two rounds nothing, and float32 neither overflows nor underflows.
        for side in points:
            side.rescale(2.0 ** -np.round(np.log2(largest) / 2))
    return points


def _scores(
    points: tuple[Points, Points],
    precision: tuple[int, bool] | None = None,
    density: tuple[int, bool] | None = None,
) -> dict[str, float]:
    """Scores of one pass over all pairs; each argument is (k, strict), or None to leave it out."""
    real, fake = points
    real_radii = _radii(real, max(task[0] for task in (precision, density) if task))
    fake_radii = _radii(fake, precision[0]) if precision else None
    in_real = np.zeros(len(fake), bool)
    in_fake, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    pairs = 0
    for i in real.slices():
        for j in fake.slices():
            block = Block(real, i, fake, j)
            if precision:
                k, strict = precision
                in_real[j] |= block.inside(real_radii[i, k - 1, None], strict).any(axis=0)
                in_fake[i] |= block.inside(fake_radii[None, j, k - 1], strict).any(axis=1)
            if density:
                k, strict = density
                inside = block.inside(real_radii[i, k - 1, None], strict)
                pairs += np.count_nonzero(inside)
                covered[i] |= inside.any(axis=1)
    result = {}
    if precision:
        result |= {"precision": float(in_real.mean()), "recall": float(in_fake.mean())}
    if density:
        result |= {"density": float(pairs / (k * len(fake))), "coverage": float(covered.mean())}
    return result


def _radii(points: Points, k: int) -> np.ndarray:
    """Squared distances of each point to its k nearest others: [N, k], ascending."""
    kept = k + SPARE
    distances = np.full((len(points), kept), np.inf, np.float32)
    indices = np.zeros((len(points), kept), np.int32)
    slices = points.slices()
    for a, i in enumerate(slices):
        x = points.block(i).astype(np.float32)
        for j in slices[a:]:
            y = x if i == j else points.block(j).astype(np.float32)
            d = squared(x, points.norms[i], y, points.norms[j])
            if i == j:
                np.fill_diagonal(d, np.inf)
            else:
                keep_nearest(distances[j], indices[j], np.ascontiguousarray(d.T), i.start)
            keep_nearest(distances[i], indices[i], d, j.start)
    everyone = np.arange(len(points))
    radii = _refine(points, everyone, distances, indices, k)
    # Whoever was not kept is at least this far.
    bound = error_bound(points.norms, points.norms.max(), x)
    beyond = distances.max(axis=1) - bound
    doubtful = np.flatnonzero((radii[:, -1] > beyond) & (radii[:, -1] > 0))
    if len(doubtful):
        radii[doubtful] = _radii_in_float64(points, doubtful, k)
    return radii


def _radii_in_float64(points: Points, rows: np.ndarray, k: int) -> np.ndarray:
    """`_radii` of some points whose neighbours float32 cannot tell apart."""
    radii = np.empty((len(rows), k))
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        distances = np.full((len(some), k + SPARE), np.inf)
        indices = np.zeros(distances.shape, np.int32)
        x = points.block(some)
        for j in points.slices():
            d = squared(x, points.norms[some], points.block(j), points.norms[j])
            here = np.flatnonzero((some >= j.start) & (some < j.stop))
            d[here, some[here] - j.start] = np.inf
            keep_nearest(distances, indices, d, j.start)
        radii[start : start + ROWS] = _refine(points, some, distances, indices, k)
    return radii


def _refine(points: Points, rows: np.ndarray, distances, indices, k: int) -> np.ndarray:
    found = points.exact(np.repeat(rows, indices.shape[1]), points, indices.ravel())
    found = np.where(np.isinf(distances), np.inf, found.reshape(indices.shape))
    return np.sort(found, axis=1)[:, :k]
