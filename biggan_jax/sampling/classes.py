"""Class ids: those of a user's list, and whether a model has them."""

import numpy as np

from biggan_jax.errors import UserError

PICTURE_CLASSES = 10  # rows of a picture when no classes were asked for


def check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns labels as int32; UserError when one is no class id of the model."""
    labels = np.asarray(labels)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels are {labels.dtype}; class ids are integers")
    bad = labels[(labels < 0) | (labels >= num_classes)]
    if bad.size:
        raise UserError(
            f"class {bad[0]} does not exist: this model has classes 0 to {num_classes - 1}"
        )
    return labels.astype(np.int32)


def spread(num_classes: int, count: int) -> np.ndarray:
    """At most `count` class ids, int32, spread evenly over all classes."""
    return np.linspace(0, num_classes - 1, min(num_classes, count)).round().astype(np.int32)


def parse_classes(text: str | None, num_classes: int, *, picture: bool) -> np.ndarray:
    """Class ids of a list such as '0,3,5-7'.

    Args:
      text: what the user wrote; None asks for the default.
      num_classes: of the model.
      picture: whether the default is at most 10 classes.

    Returns:
      Class ids, int32 [K].

    Raises:
      UserError: for text that is no list of classes, or a class outside the range.
    """
    if text is None:
        return spread(num_classes, PICTURE_CLASSES if picture else num_classes)
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            start, stop = int(first), int(last or first)
            check_labels(np.array([start, stop]), num_classes)  # before a list of 10**12
            ids += range(start, stop + 1)
    except UserError:
        raise
    except ValueError:
        ids = []
    if not ids:
        raise UserError(f"--classes {text!r}: write class ids such as 0,3 or 0-9")
    return check_labels(np.array(ids), num_classes)
