"""Which examples are kept out of training: a hash of their indices says it, never the seed."""

import numpy as np

from biggan_jax.data.source import Source
from biggan_jax.errors import UserError, counts

_SALT = 0x686F6C646F7574 << 64
_BITS = 64
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *(k / 20 for k in range(2, 11)))  # at most 0.5


def of_indices(count: int, fraction: float) -> np.ndarray:
    """Whether each of the first indices is held out.

    Args:
      count: number of indices.
      fraction: of them, in [0, 1]; those of a smaller one are held out by a larger one too.

    Returns:
      bool [count]; an entry depends on (index, fraction) alone.
    """
    return _hashes(count) < fraction * 2.0**_BITS


def hold_out(source: Source, fraction: float, without: str = "") -> None:
    """Fills `source.held_out`, so that `Batches` leaves these examples out.

    Args:
      source: the data.
      fraction: `data.holdout`; 0 changes nothing.
      without: what must be set as well where no image is held out, as options.

    Raises:
      UserError: none would be held out, or all; it names a fraction that does neither.
    """
    if fraction == 0:
        return
    held_out = of_indices(len(source), fraction)
    for enough, none in ((held_out.any(), "none is held out"), (not held_out.all(), "all are")):
        if not enough:
            nothing = " ".join(filter(None, ("--config.data.holdout=0", without)))
            remedies = [*_other_fraction(len(source)), f"{nothing} to hold out none"]
            raise UserError(
                f"data.holdout is {fraction} and {source.spec} has "
                f"{counts(len(source), 'image', 'images')}, of which {none}: set "
                f"{', or '.join(remedies)}"
            )
    source.held_out = held_out


def _other_fraction(count: int) -> list[str]:
    """The option of a share that holds out some of the images, the fewest; [] where there is none.

    One image is either held out or not.
    """
    for fraction in _SHARES:
        held_out = of_indices(count, fraction).sum()
        if 0 < held_out < count:
            return [f"--config.data.holdout={fraction:g} to hold out {held_out:,}"]
    return []


def both_sides(source: Source, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As many training as held-out examples, the same ones in every run.

    Args:
      source: with `held_out`.
      most: of either side.

    Returns:
      (indices of training examples, indices of held-out ones), each [n], drawn evenly; sorted, or
      in the order of their lanes.
    """
    count = _even(min(most, *np.bincount(source.held_out, minlength=2)), source)
    return _drawn(source, ~source.held_out, count), drawn(source, count)


def drawn(source: Source, most: int) -> np.ndarray:
    """The first held-out examples of an order that is the same in every run.

    Args:
      source: with `held_out`.
      most: of them.

    Returns:
      Indices, at most `most`; sorted, or in the order of their lanes.
    """
    count = min(most, int(source.held_out.sum()))
    return _drawn(source, source.held_out, _even(count, source))


def by_columns(x: np.ndarray, width: int, source: Source) -> np.ndarray:
    """Lays drawn examples in rows, so that a column has those of its own lanes where there are any.

    Args:
      x: something of each of them, in the order in which they were drawn [rows * width].
      width: columns.
      source: from which they were drawn.

    Returns:
      The same values [rows, width]; without lanes one row after another.
    """
    return x.reshape(width, -1).T if source.num_lanes else x.reshape(-1, width)


def _even(count: int, source: Source) -> int:
    """At most so many examples, of as many as possible of the lanes and as many of each."""
    lanes = source.num_lanes
    if count >= lanes:
        return count - count % max(1, lanes)
    return next(n for n in range(count, 0, -1) if lanes % n == 0) if count else 0


def _drawn(source: Source, side: np.ndarray, count: int) -> np.ndarray:
    indices = np.flatnonzero(side)
    hashes = _hashes(len(source))[indices]
    if source.num_lanes and count:
        # In the order of the lanes, so that any number of hosts reads its own ones.
        lane, step = source.lane_of[indices], max(1, source.num_lanes // count)
        order = np.lexsort((hashes, lane))
        rank = np.arange(len(order)) - np.searchsorted(lane[order], lane[order])
        most = max(1, count // source.num_lanes)
        even = order[(rank < most) & (lane[order] % step == 0)]
        if len(even) == count:
            return indices[even]
        chosen = np.argsort(hashes)[:count]  # a lane has too few of them
        return indices[chosen[np.argsort(lane[chosen], kind="stable")]]
    return np.sort(indices[np.argsort(hashes)[:count]])


def _hashes(count: int) -> np.ndarray:
    """One word an index: a counter-based generator gives number i to index i."""
    return np.random.Philox(key=_SALT).random_raw(count)
