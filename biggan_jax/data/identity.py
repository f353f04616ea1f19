"""By what the files of a source are known: names, sizes, and how some of them begin."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

# Contents take part in the digest by the start of so many files, spread evenly over the set.
DIGEST_FILES = 4096
DIGEST_BYTES = 1 << 14


class Identity(NamedTuple):
    """What files are known by.

    Attributes:
      digest: hash of all names and sizes, and of the starts of up to `DIGEST_FILES` files.
      stamp: hash of the digest and of the times at which files were last changed.
      earlier: hash of names and sizes alone, as older versions took it for the digest.
      starts: position -> (size, hash of the start) of the files whose starts were read.
    """

    digest: str
    stamp: str
    earlier: str
    starts: dict[int, tuple[int, bytes]]


def identify(
    files: Iterable[tuple[str, int]],
    count: int,
    start_of: Callable[[int], bytes],
    mapped: Callable[..., Iterable[bytes]],
    times: Callable[[], Any],
    labels: bytes = b"",
) -> Identity:
    """Identifies some files.

    Args:
      files: the name and size in bytes of each, in their order.
      count: of them.
      start_of: the first `DIGEST_BYTES` bytes of the file at a position.
      mapped: `map`, or that of a pool of threads.
      times: bytes of the times at which they were last changed; called after the names are read.
      labels: that are not in the names.

    Returns:
      Their identity.
    """
    names, sizes = hashlib.sha256(), np.empty(count, "<i8")
    for i, (name, size) in enumerate(files):
        sizes[i] = size
        names.update(os.fsencode(f"{name}\0{size}\n"))
    names.update(labels)
    chosen = np.linspace(0, count - 1, min(count, DIGEST_FILES)).astype(np.int64).tolist()
    starts, known = hashlib.sha256(names.digest()), {}
    for i, start in zip(chosen, mapped(start_of, chosen), strict=True):
        digest = hashlib.sha256(start).digest()
        known[i] = int(sizes[i]), digest
        starts.update(digest)
    stamp = hashlib.sha256(starts.digest() + times())
    return Identity(starts.hexdigest(), stamp.hexdigest(), names.hexdigest(), known)


def copies(
    starts: dict[int, tuple[int, bytes]], read: Callable[[int], bytes], seconds: float
) -> list[tuple[int, int]]:
    """Finds files with the same contents among those whose starts are known.

    Args:
      starts: as in `Identity`.
      read: the whole of the file at a position; OSError where it cannot be read.
      seconds: to look for them.

    Returns:
      Pairs of positions (earlier, later).
    """
    alike: dict[tuple[int, bytes], list[int]] = {}
    for i, key in starts.items():
        if key[0] > 0:
            alike.setdefault(key, []).append(i)
    pairs, end = [], time.monotonic() + seconds
    for (size, _), group in alike.items():
        first: dict[bytes, int] = {}
        for i in group if len(group) > 1 and time.monotonic() < end else ():
            try:
                whole = read(i) if size > DIGEST_BYTES else b""
            except OSError:  # a bad record is no copy of another
                continue
            key = hashlib.sha256(whole).digest()
            if key in first:
                pairs.append((first[key], i))
            first.setdefault(key, i)
    return pairs
