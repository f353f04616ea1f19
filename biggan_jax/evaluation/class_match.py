"""Which class of the data is which class of the model: by name where both have names."""

import dataclasses
import unicodedata
from collections.abc import Sequence

import numpy as np

from biggan_jax.errors import UserError, counts
from biggan_jax.sampling.classes import listed

LISTED = 12  # names of each side that a message spells out


@dataclasses.dataclass(frozen=True)
class Match:
    """How the classes of some data are those of a model.

    Attributes:
      names: of the model's classes; none where classes mean nothing.
      how: 'by name', or 'by index' where the model does not know its names; None without classes.
      ids: the model's id of every class of the data; None where they are the same.
    """

    names: tuple[str, ...] = ()
    how: str | None = None
    ids: np.ndarray | None = None

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the data as the model's."""
        return labels if self.ids is None else self.ids[labels].astype(labels.dtype)

    def logits(self, logits: np.ndarray | None) -> np.ndarray | None:
        """Logits [N, K] of a classifier of the data, in the order of the model's classes."""
        return logits if self.ids is None or logits is None else logits[:, np.argsort(self.ids)]


def match(model: Sequence[str], data: Sequence[str], source: str, *, known: bool = True) -> Match:
    """Finds for every class of some data the one of a model.

    Args:
      model: names of the model's classes; none where it does not know them.
      data: names of the data's.
      source: what the data are, for the message.
      known: whether the names are the model's own; otherwise they are those of its training data
        today, and other names in equal number are taken by index.

    Returns:
      The match.

    Raises:
      UserError: they are not the same names; it lists both.
    """
    if not model:
        return Match(tuple(data), "by index")
    ours, theirs = ([unicodedata.normalize("NFC", n) for n in names] for names in (model, data))
    if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
        ids = np.array([ours.index(name) for name in theirs]) if ours != theirs else None
        return Match(tuple(model), "by name" if known or ids is not None else "by index", ids)
    if ours == theirs or (not known and len(ours) == len(theirs)):
        return Match(tuple(model), "by index")
    raise UserError(
        f"{source} has {counts(len(data), 'class', 'classes')} ({listed(data, LISTED)}), the model "
        f"{len(model)} ({listed(model, LISTED)}): give --data with the same names, or leave "
        "classes out with --no-intra-fid"
    )
