"""Classes by id or by name: those of a user's list, and whether a model has them."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from biggan_jax.errors import UserError, nearest, some

PICTURE_CLASSES = 10  # rows of a picture when no classes were asked for

# An item of a list: what kind it is said to be, and a quoted or a plain text.
_ITEM = re.compile(r'\s*(?:(id|name):\s*)?(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?=,|\Z)', re.DOTALL)
_RANGE = re.compile(r"([0-9]+)(?:\s*-\s*([0-9]+))?")
_PLAIN_RANGE = re.compile(r"(0|[1-9][0-9]*)(-(0|[1-9][0-9]*))?")


def names_of(config: ConfigDict) -> tuple[str, ...]:
    """One name per class of a model; none where the config does not know them all."""
    names = tuple(config.class_names)
    return names if len(names) == config.model.num_classes else ()


def described(label: int, names: Sequence[str]) -> str:
    """A class for a line of text: its name, its id where it has none."""
    return _printable(names[label]) if names else str(label)


def listed(names: Sequence[str], limit: int) -> str:
    """A few names on one line, as --classes takes them."""
    return some(map(_written, names), limit)


def check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns labels as int32; UserError when one is no class id of the model."""
    labels = np.asarray(labels)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"labels are {labels.dtype}; class ids are integers (labels('cat,dog') of the loaded "
            "network gives those of names)"
        )
    bad = labels[(labels < 0) | (labels >= num_classes)]
    if bad.size:
        raise UserError(
            f"class {bad[0]} does not exist: this model has classes 0 to {num_classes - 1}"
        )
    return labels.astype(np.int32)


def spread(num_classes: int, count: int) -> np.ndarray:
    """At most `count` class ids, int32, spread evenly over all classes."""
    return np.linspace(0, num_classes - 1, min(num_classes, count)).round().astype(np.int32)


def parse_classes(
    text: str | None,
    num_classes: int,
    *,
    picture: bool,
    names: Sequence[str] = (),
    option: str = "--classes",
) -> np.ndarray:
    """Class ids of a list such as '0,3,5-7' or 'cat,dog'.

    An item is a name exactly as written (case counts), an id, or a range of ids. `id:` and `name:`
    before an item say which; double quotes around a name keep its commas and outer spaces ("" is
    one of its own quotes). An item that could be both, of different classes, is refused.

    Args:
      text: what the user wrote; None asks for the default.
      num_classes: of the model.
      picture: whether the default is at most 10 classes.
      names: one per class; none where the model does not know them.
      option: where the user wrote it, for messages.

    Returns:
      Class ids, int32 [K].

    Raises:
      UserError: for text that is no list of classes, a class that does not exist, or an item that
        could mean several.
    """
    if text is None:
        return spread(num_classes, PICTURE_CLASSES if picture else num_classes)
    if not isinstance(text, str):
        raise UserError(f"{option} {text!r}: write them as one text, such as 'cat,dog' or '0,3-5'")
    whole = _named(text, names) if "," in text else []
    try:
        ids = _list(text, num_classes, names)
    except UserError as error:
        if not whole:
            raise UserError(f"{option} {text!r}: {error}") from error
        ids = whole[:1]
    else:
        if whole:
            raise UserError(
                f"{option} {text!r} is the name of one class and a list of others: put the name "
                "into double quotes, or write name: before each item"
            )
    return check_labels(np.array(ids), num_classes)


def labels(network: Any, text: str, option: str) -> np.ndarray:
    """`parse_classes` for the classes of a loaded network."""
    names = network.class_names
    return parse_classes(text, network.num_classes, picture=False, names=names, option=option)


def row_labels(ids: Sequence[int], network: Any) -> dict[str, list[str]]:
    """Names of rows of a picture, as arguments of `grids.grid`; none for an unconditional model."""
    if network.num_classes == 1:
        return {}
    named = [described(int(i), network.class_names) for i in ids]
    return {"row_labels": named, "row_fallbacks": [f"class {i}" for i in ids]}


def _list(text: str, num_classes: int, names: Sequence[str]) -> list[int]:
    ids, at = [], 0
    while at <= len(text):
        item = _ITEM.match(text, at)
        ids += _item(item, num_classes, names)
        at = item.end() + 1
    return ids


def _item(item: re.Match, num_classes: int, names: Sequence[str]) -> list[int]:
    """The class ids of one item; UserError, without the option, where it means none or several."""
    kind, quoted, plain = item.groups()
    raw = item[0].strip()
    name = plain if quoted is None else quoted.replace('""', '"')
    if not raw or not name:
        raise UserError("write class names such as cat,dog or ids such as 0,3 or 0-9")
    meanings: list[list[int]] = []
    if kind != "id":
        meanings += [[i] for i in _named(name, names)]
    if kind is None and quoted is None:
        meanings = _with_spaces(item[0], name, meanings, names)
    if kind is not None:  # a name may begin like this itself
        meanings += [[i] for i in _named(raw, names)]
    if kind == "id" or (kind is None and quoted is None):
        others = () if kind == "id" else names
        meanings += _ids(name, num_classes, others, needed=not meanings)
    distinct = [m for i, m in enumerate(meanings) if m not in meanings[:i]]
    if not distinct and kind == "id":
        raise UserError(f"{name!r} is no id: write a number, or a range such as id:0-9")
    if not distinct:
        raise UserError(_unknown(name, names))
    if len(distinct) > 1:
        if kind is not None and len(_named(raw, names)) == 1:
            other = re.sub("(?=[0-9])", "0", raw, count=1) if kind == "id" else f'name:"{name}"'
            raise UserError(f"{raw!r} could be several classes: write name:{raw} or {other}")
        raise UserError(_ambiguous(name, distinct, names))
    return distinct[0]


def _with_spaces(
    whole: str, name: str, meanings: list[list[int]], names: Sequence[str]
) -> list[list[int]]:
    """The classes of an item, where a name may begin or end with the spaces around the item."""
    spaced = [[i] for i in _named(whole, names)] if whole != name else []
    if spaced and meanings:
        raise UserError(
            f"{whole!r} and {name!r} are names of two classes: put the one that is meant into "
            "double quotes"
        )
    return spaced or meanings


def _named(name: str, names: Sequence[str]) -> list[int]:
    """The classes of a name; file systems may store é as e and an accent."""
    exact = [i for i, known in enumerate(names) if known == name]
    return exact or [i for i, known in enumerate(names) if _composed(known) == _composed(name)]


def _ids(text: str, num_classes: int, names: Sequence[str], *, needed: bool) -> list[list[int]]:
    """What a text means as an id or a range: nothing, or one or two lists of ids."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return []
    first, last = (int(part or found[1]) for part in found.groups())
    if not needed and (not _PLAIN_RANGE.fullmatch(text) or not first <= last < num_classes):
        return []  # a name such as 007 or 1990-1999 that no id looks like
    check_labels(np.array([first, last]), num_classes)  # before a list of 10**12
    if first > last:
        raise UserError(f"{text} runs backwards; write {last}-{first}")
    ends = [_named(part, names) for part in found.groups() if part is not None]
    if len(ends) == 2 and all(ends) and [e[0] for e in ends] != [first, last]:
        raise UserError(
            f"{text} is a range of ids, and {found[1]} and {found[2]} are names of other classes: "
            f"write id:{text}, or the names one by one with name: before each"
        )
    return [list(range(first, last + 1))]


def _unknown(name: str, names: Sequence[str]) -> str:
    if not names:
        return "this model does not know the names of its classes: write ids such as 0,3 or 0-9"
    known = {other.lower(): other for other in reversed(names)}
    near = known.get(nearest(name, known) or "")
    hint = "" if near is None else f" (did you mean '{_written(near)}'?)"
    return f"no class is named {name!r}{hint}; there are {listed(names, 6)}"


def _ambiguous(name: str, meanings: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    as_name = [m[0] for m in meanings if len(m) == 1 and _composed(names[m[0]]) == _composed(name)]
    if len(as_name) > 1:
        ids = " or ".join(f"id:{i}" for i in as_name)
        return f"{len(as_name)} classes are named {name!r}: write {ids}"
    other = next(m for m in meanings if m != as_name)
    what = f"id {other[0]} ({_printable(names[other[0]])!r})" if len(other) == 1 else "a range"
    return (
        f"{name} is the name of class {as_name[0]} and {what} of other classes: write name:{name} "
        f"or id:{name}"
    )


def _written(name: str) -> str:
    """A name as --classes takes it: in double quotes where a comma or outer spaces need them."""
    text = _printable(name)
    return f'"{text}"' if "," in text or text != text.strip() else text


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _printable(name: str) -> str:
    """A name on one line, whatever a folder may be called."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)
