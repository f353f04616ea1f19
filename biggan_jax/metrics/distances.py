"""Squared distances in blocks: float32 products, and exact values where rounding could decide."""

import numpy as np

# Rows and columns of a block of distances.
ROWS = 1024
# Columns of which only the smallest is looked at first when neighbours are sought.
GROUP = 16
# Share of a block's pairs that may be computed one by one: a pair takes 4 us at 2048 dimensions.
DOUBTFUL = 1 / 64


class Points:
    """Features, with the shift and scale that make float32 distances of them accurate.

    Args:
      features: [N, d].
      centre: [d], taken off. About the mean the norms are of the size of the distances, so that
        |x|^2 + |y|^2 - 2 x.y does not cancel.
    """

    def __init__(self, features: np.ndarray, centre: np.ndarray):
        self.features, self.centre, self.scale = features, centre, 1.0
        self.norms = np.concatenate([np.square(self.block(s)).sum(axis=1) for s in self.slices()])

    def __len__(self) -> int:
        return len(self.features)

    def slices(self) -> list[slice]:
        """Rows of each block."""
        return [slice(s, min(s + ROWS, len(self))) for s in range(0, len(self), ROWS)]

    def rescale(self, scale: float) -> None:
        """Multiplies every feature, and so every distance, from now on."""
        self.norms *= (scale / self.scale) ** 2
        self.scale = scale

    def block(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some features, shifted and scaled, in float64."""
        x = np.asarray(self.features[rows], np.float64) - self.centre
        x *= self.scale
        return x

    def exact(self, rows: np.ndarray, other: "Points", columns: np.ndarray) -> np.ndarray:
        """Squared distances of pairs, from differences: ties are ties, duplicates are 0 apart."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), ROWS):
            pairs = slice(start, start + ROWS)
            x = np.asarray(self.features[rows[pairs]], np.float64)
            x = x - other.features[columns[pairs]]
            x *= self.scale
            np.square(x, out=x)
            found[pairs] = x.sum(axis=1)
        return found


class Block:
    """Squared distances of some rows x to some columns y.

    Args:
      x, y: features, of one scale.
      rows, columns: which of them.
      dtype: float32, or float64 where that is too coarse.
    """

    def __init__(self, x: Points, rows: slice, y: Points, columns: slice, dtype=np.float32):
        self.x, self.rows, self.y, self.columns = x, rows, y, columns
        self.compute(x.block(rows).astype(dtype, copy=False))

    def compute(self, x_block: np.ndarray) -> None:
        """Fills in the distances in the dtype of the rows given."""
        y_block = self.y.block(self.columns).astype(x_block.dtype, copy=False)
        x_norms, y_norms = self.x.norms[self.rows], self.y.norms[self.columns]
        self.distances = squared(x_block, x_norms, y_block, y_norms)
        self.error = error_bound(x_norms.max(), y_norms.max(), x_block)

    def inside(self, radii: np.ndarray, strict: bool) -> np.ndarray:
        """Which pairs are nearer than squared radii [rows, 1] or [1, columns].

        Args:
          radii: squared, as `Points.exact` gives them.
          strict: whether `<` in place of `<=`.

        Returns:
          [rows, columns], bool.
        """
        less = np.less if strict else np.less_equal
        if strict:
            # Nothing is nearer than a duplicate: no need to look at the pairs around 0.
            radii = np.where(radii > 0, radii, -np.inf)
        dtype = self.distances.dtype
        inside = less(self.distances, (radii - self.error).astype(dtype))
        maybe = less(self.distances, (radii + self.error).astype(dtype))
        doubtful = np.count_nonzero(maybe) - np.count_nonzero(inside)
        if doubtful > inside.size * DOUBTFUL and dtype == np.float32:
            # Distances far smaller than the norms: one float64 product is cheaper than the pairs.
            self.compute(self.x.block(self.rows))
            return self.inside(radii, strict)
        if doubtful:
            i, j = np.nonzero(maybe & ~inside)
            exact = self.x.exact(i + self.rows.start, self.y, j + self.columns.start)
            inside[i, j] = less(exact, np.broadcast_to(radii, inside.shape)[i, j])
        return inside


def squared(x: np.ndarray, x_norms: np.ndarray, y: np.ndarray, y_norms: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs by one matrix product, in the dtype of x.

    Args:
      x: [N, d].
      x_norms: [N], |x|^2.
      y: [M, d], of the dtype of x.
      y_norms: [M].

    Returns:
      [N, M]; off by up to `error_bound`, so they may be negative.
    """
    d = x @ y.T
    d *= -2
    d += x_norms[:, None].astype(d.dtype)
    d += y_norms.astype(d.dtype)
    return d


def error_bound(x_norm: np.ndarray, y_norm: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Largest error of `squared`.

    Args:
      x_norm: |x|^2, of one point or several.
      y_norm: largest |y|^2 of the others.
      x: [N, d], for d and the dtype.

    Returns:
      The bound, of the shape of the norms.

    References:
      Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis, theorem 3.1:
      an inner product errs by lambda sqrt(d) u |x||y|; lambda = 6. |x||y| <= (|x|^2 + |y|^2) / 2.
    """
    unit_roundoff = np.finfo(x.dtype).eps / 2
    return (6 * np.sqrt(x.shape[1]) + 8) * unit_roundoff * (x_norm + y_norm)


def keep_nearest(distances: np.ndarray, indices: np.ndarray, d: np.ndarray, offset: int) -> None:
    """Keeps in place, per row, the nearest of those kept so far and of the columns of d.

    Args:
      distances: [N, kept], infinite where none was seen yet; in any order.
      indices: [N, kept], whose they are.
      d: [N, M], distances to further points.
      offset: index of the first of these.
    """
    kept = distances.shape[1]
    columns = _smallest(d, min(kept, d.shape[1]))
    both = np.concatenate([distances, np.take_along_axis(d, columns, axis=1)], axis=1)
    names = np.concatenate([indices, (columns + offset).astype(np.int32)], axis=1)
    order = np.argpartition(both, kept - 1, axis=1)[:, :kept]
    distances[:] = np.take_along_axis(both, order, axis=1)
    indices[:] = np.take_along_axis(names, order, axis=1)


def _smallest(d: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` smallest values of each row, in any order."""
    columns = d.shape[1]
    width = columns // GROUP
    if columns % GROUP or width <= count:
        return np.argpartition(d, count - 1, axis=1)[:, :count]
    # The smallest values lie in the groups with the smallest minima: a fifth of the time.
    minima = d.reshape(len(d), GROUP, width).min(axis=1)
    groups = np.argpartition(minima, count - 1, axis=1)[:, :count]
    inside = (groups[:, :, None] + width * np.arange(GROUP)).reshape(len(d), -1)
    best = np.argpartition(np.take_along_axis(d, inside, axis=1), count - 1, axis=1)[:, :count]
    return np.take_along_axis(inside, best, axis=1)
