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
