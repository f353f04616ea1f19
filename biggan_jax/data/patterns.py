"""Several files by one text: a folder, a pattern with * or ?, or numbers in braces."""

import glob
import itertools
import os
import re
from pathlib import Path

from biggan_jax.data import stored
from biggan_jax.data.listing import natural_key
from biggan_jax.errors import UserError, some

MOST_FILES = 1 << 20  # of the braces of one text
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def files(text: str, suffix: str, what: str) -> list[Path]:
    """The files that a text names.

    Args:
      text: a file; a folder, for all files in it that end in `suffix`; or a pattern: `*`, `?` and
        `[...]` as in a shell (`**` for folders at any depth), `{000..146}` and `{a,b}` for all of
        them, which must then be there.
      suffix: of the files of a folder, with its dot.
      what: the files are, for messages.

    Returns:
      The files, at least one, in the order in which a person sorts them, or in that of the braces.

    Raises:
      UserError: one is missing, or no regular file, or there are none.
    """
    if "://" in text:
        raise UserError(f"{text} is no local path; copy its files here")
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.name.lower().endswith(suffix)]
        found = sorted(found, key=lambda entry: natural_key(entry.name))
        if not found:
            raise UserError(
                f"{path} holds no file that ends in {suffix}; name the folder of the {what}"
            )
    elif path.exists():
        found = [path]
    else:
        found = _matching(os.path.expanduser(text), what)
    for path in found:
        if not path.exists():
            raise UserError(f"no file {path}; correct the path")
        if not stored.is_file(path):
            raise UserError(f"{path} is no regular file; name the {what} alone")
        if not os.access(path, os.R_OK):
            raise UserError(f"cannot read {path}; change its permissions")
    return found


def _matching(text: str, what: str) -> list[Path]:
    """The files of a pattern; those of braces whether they are there or not."""
    found = []
    for one in expanded(text):
        if glob.has_magic(one):
            found += sorted(glob.glob(one, recursive=True), key=natural_key)
        else:
            found.append(one)
    paths = [Path(one) for one in found]
    if not paths:
        raise UserError(f"no file matches {text}; name the {what}")
    missing = [path for path in paths if not path.exists()]
    if missing and len(paths) > 1:
        raise UserError(
            f"{len(missing):,} of the {len(paths):,} files of {text} are missing "
            f"({some([path.name for path in missing])}); copy them there, or name those that are"
        )
    return paths


def expanded(text: str) -> list[str]:
    """Expands braces: '{00..02}' is '00', '01', '02', and '{a,b}' is 'a', 'b'.

    Args:
      text: with any number of braces.

    Returns:
      All texts, the last braces changing fastest.

    Raises:
      UserError: they are more than `MOST_FILES`.
    """
    parts = _BRACES.split(text)
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    number = 1
    for some_of in choices:
        number *= len(some_of)
    if number > MOST_FILES:
        raise UserError(f"{text} means {number:,} files; correct its braces")
    return ["".join(one) for one in itertools.product(*choices)]


def _choices(inside: str) -> "list[str] | range":
    """What one pair of braces stands for."""
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = int(found[1]), int(found[2])
    if abs(last - first) >= MOST_FILES:
        raise UserError(f"{{{inside}}} means more than {MOST_FILES:,} files; correct the numbers")
    width = len(found[1]) if found[1].startswith("0") or len(found[1]) == len(found[2]) else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
