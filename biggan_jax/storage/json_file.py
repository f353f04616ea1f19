"""JSON that may be damaged: parsed whole, or refused in a few words, whatever its bytes are."""

import json
import math
import os
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.data.files import read_regular
from biggan_jax.errors import UserError
from biggan_jax.storage import paths

MOST_BYTES = 1 << 26  # of a file; the largest of ours, a record of all arrays, has 1 MB
MOST_NESTED = 64  # objects and arrays inside of one another


def parse(text: bytes | str) -> Any:
    """Parses JSON more strictly than `json.loads`.

    Args:
      text: UTF-8.

    Returns:
      What it holds: every number finite, no key of an object twice, nothing nested so deeply that
      walking through it would fail, and text that can be encoded again.

    Raises:
      ValueError: it is anything else; the message is a few words on one line.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # an editor may have put the mark before it
    try:
        found = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(found)
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
    return found


def read(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Args:
      path: local, or in a bucket.

    Returns:
      See `parse`.

    Raises:
      FileNotFoundError, NotADirectoryError: there is no such file.
      OSError: the disk, or the bucket, does not give it.
      UserError: it is no JSON, or no file but a folder, a pipe or a device.
    """
    path = paths.workdir_path(path)
    try:
        if paths.is_remote(path):
            with buckets.bucket_errors(path):
                return parse(path.read_bytes())
        try:
            data = read_regular(path, MOST_BYTES + 1)
        except OSError as error:
            if error.filename is None or path.is_file() or not os.path.lexists(path):
                raise
            raise ValueError(error.strerror) from None  # no file, but there is something
        if len(data) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        return parse(data)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is too large a number")
    return float(text)


def _check_depth(found: Any) -> None:
    level, depth = [found], 0
    while level:
        inner = [x for x in level if isinstance(x, dict | list)]
        level = [y for x in inner for y in (x.values() if isinstance(x, dict) else x)]
        depth += bool(inner)
        if depth > MOST_NESTED:
            raise ValueError("it is nested too deeply")
