"""Which examples are kept out of training: a hash of their indices says it, never the seed."""

import numpy as np

from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

_SALT = 0x686F6C646F7574 << 64
_BITS = 64


def of_indices(count: int, fraction: float) -> np.ndarray:
    """Whether each of the first indices is held out.

    Args:
      count: number of indices.
      fraction: of them, in [0, 1]; those of a smaller one are held out by a larger one too.

    Returns:
      bool [count]; an entry depends on (index, fraction) alone.
    """
    return _hashes(count) < fraction * 2.0**_BITS


def hold_out(source: Source, fraction: float) -> None:
    """Fills `source.held_out`, so that `Batches` leaves these examples out.

    Args:
      source: the data.
      fraction: `data.holdout`; 0 changes nothing.

    Raises:
      UserError: none would be held out, or all.
    """
    if fraction == 0:
        return
    held_out = of_indices(len(source), fraction)
    for enough, none in ((held_out.any(), "none is held out"), (not held_out.all(), "all are")):
        if not enough:
            raise UserError(
                f"data.holdout is {fraction} and {source.spec} has {len(source):,} images, of "
                f"which {none}: set another --config.data.holdout, or 0"
            )
    source.held_out = held_out


def both_sides(source: Source, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As many training as held-out examples, the same ones in every run.

    Args:
      source: with `held_out`.
      most: of either side.

    Returns:
      (indices of training examples, indices of held-out ones), each [n] and sorted, drawn evenly.
    """
    count = min(most, *np.bincount(source.held_out, minlength=2))
    return _drawn(source, ~source.held_out, count), drawn(source, count)


def drawn(source: Source, most: int) -> np.ndarray:
    """The first held-out examples of an order that is the same in every run.

    Args:
      source: with `held_out`.
      most: of them.

    Returns:
      Indices, sorted, at most `most`.
    """
    return _drawn(source, source.held_out, most)


def _drawn(source: Source, side: np.ndarray, most: int) -> np.ndarray:
    indices = np.flatnonzero(side)
    return np.sort(indices[np.argsort(_hashes(len(source))[indices])[:most]])


def _hashes(count: int) -> np.ndarray:
    """One word an index: a counter-based generator gives number i to index i."""
    return np.random.Philox(key=_SALT).random_raw(count)
