"""Files of one JSON object a line, written line by line: a kill may tear the last one."""

import os
from typing import Any, NamedTuple

from biggan_jax.data import buckets
from biggan_jax.errors import some
from biggan_jax.storage import json_file, paths


class Lines(NamedTuple):
    """What such a file holds.

    Attributes:
      records: the objects, in their order.
      texts: their lines, without the end.
      numbers: of their lines, from 1.
      damaged: numbers of the lines that are no objects; a torn last line is none of them.
      unended: whether the last line has no end.
    """

    records: list[dict[str, Any]]
    texts: list[bytes]
    numbers: list[int]
    damaged: list[int]
    unended: bool


def read(path: str | os.PathLike) -> Lines:
    """Reads a file of lines; one that is not there holds none.

    Args:
      path: local, or in a bucket.

    Raises:
      OSError: it is there and cannot be read.
    """
    path = paths.workdir_path(path)
    try:
        with buckets.bucket_errors(path):
            data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    return split(data)


def split(data: bytes) -> Lines:
    """The lines of such a file.

    Args:
      data: its bytes.
    """
    found = Lines([], [], [], [], False)
    *ended, last = data.split(b"\n")
    for number, text in enumerate([*ended, last], 1):
        record = _record(text)
        if record is not None:
            found.records.append(record)
            found.texts.append(text)
            found.numbers.append(number)
        elif text.strip() and number <= len(ended):
            found.damaged.append(number)
    return found._replace(unended=bool(last))


def told(path: str | os.PathLike, numbers: list[int], what: str) -> str:
    """Says of some lines of a file what is wrong with them.

    Args:
      path: the file.
      numbers: of the lines.
      what: such as 'cannot be read'.

    Returns:
      'FILE: line 3 WHAT', or 'FILE: lines 3, 7 WHAT'.
    """
    return f"{path}: line{'s' if len(numbers) > 1 else ''} {some(numbers, 9)} {what}"


def _record(text: bytes) -> dict[str, Any] | None:
    try:
        record = json_file.parse(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
