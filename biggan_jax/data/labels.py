"""Labels as people write them, numbers or names -> labels from 0 and one name a class."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from biggan_jax.data.listing import natural_key
from biggan_jax.errors import UserError

MOST_CLASSES = 1 << 20  # a label beyond them is no number of a class


def numbered(
    values: Sequence[Any], where: Callable[[int], str], names: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turns labels of one kind into numbers of classes.

    Args:
      values: the label of each example: all whole numbers, at least 0, or all texts.
      where: says of which example the label at a position is, for a message.
      names: of the classes 0, 1, ..., where they are known.

    Returns:
      (labels int32 [n], one name a class). Texts are numbered in the order in which a person sorts
      them; numbers stay what they are, and are names too where there are no others.

    Raises:
      UserError: labels are of several kinds, or no numbers of classes.
    """
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        _refuse_kinds(values, where)
    (kind,) = kinds or {int}
    if kind is str:
        blank = next((i for i, value in enumerate(values) if not value.strip()), None)
        if blank is not None:
            raise UserError(
                f"{where(blank)} has an empty label; write the number or name of its class"
            )
        ordered = sorted(set(values), key=natural_key)
        number = {name: i for i, name in enumerate(ordered)}
        return np.array([number[value] for value in values], np.int32), tuple(ordered)
    if kind is not int:
        what = "a list, not a class" if kind in (list, tuple) else f"{values[0]!r}"
        raise UserError(
            f"{where(0)} has the label {what}: labels are whole numbers from 0, or names; write "
            "one of them for each image"
        )
    labels = np.array(values, object)
    least, most = int(labels.argmin()), int(labels.argmax())
    known = MOST_CLASSES if names is None else len(names)
    for position in (least, most):
        if not 0 <= values[position] < known:
            raise UserError(
                f"{where(position)} has the label {values[position]}, outside 0 to {known - 1:,}; "
                "correct it"
            )
    if names is None:
        names = [str(i) for i in range(values[most] + 1)]
    return labels.astype(np.int32), tuple(names)


def _refuse_kinds(values: Sequence[Any], where: Callable[[int], str]) -> None:
    """Says which two labels are of different kinds."""
    other = next(i for i, value in enumerate(values) if type(value) is not type(values[0]))
    shown = [_shown(values[i]) for i in (0, other)]
    raise UserError(
        f"labels are of several kinds: {shown[0]} of {where(0)}, {shown[1]} of {where(other)}; "
        "give all of them the same, whole numbers from 0 or names"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
