"""Indexes of large archives, kept between runs: a scan of a million members takes minutes."""

import contextlib
import hashlib
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data.stored import OpenFiles

KEPT_SECONDS = 1.0  # a scan that takes longer is kept
KEPT_FILES = 32  # those that were not used for the longest time go first
_VERSION = 2
_OFF = ("off", "0", "no", "false")

Index = dict[str, np.ndarray]


def indexed(kind: str, paths: Sequence[Path], scan: Callable[[], Index]) -> Index:
    """The index of some files, from the cache where they have not changed since.

    It is kept where the programs are (`storage.compiled.root`): in `biggan_jax/indexes` in
    $XDG_CACHE_HOME or ~/.cache, or in `indexes` in the folder that BIGGAN_CACHE names. With
    BIGGAN_CACHE=off, and where that folder cannot be written, nothing is kept.

    Args:
      kind: of the index.
      paths: the files; their paths, sizes and times are the key.
      scan: makes the index.

    Returns:
      The index.
    """
    key = hashlib.sha256(f"{_VERSION} {kind}".encode())
    for path, known in zip(paths, OpenFiles(paths).sizes_and_times(), strict=True):
        key.update(os.fsencode(f"\0{path.absolute()}\0{known[0]} {known[1]}"))
    folder = _folder()
    place = folder / f"{key.hexdigest()[:40]}.npz" if folder else None
    found = _read(place) if place else None
    if found is not None:
        return found
    start = time.monotonic()
    found = scan()
    if place and time.monotonic() - start > KEPT_SECONDS:
        with contextlib.suppress(OSError):
            _write(place, found)
    return found


def joined(names: Sequence[str]) -> np.ndarray:
    """Texts without a zero byte as one array of bytes, uint8 [size]."""
    return np.frombuffer(b"\0".join(map(os.fsencode, names)), np.uint8)


def parted(array: np.ndarray) -> list[str]:
    """The texts that `joined` has joined, at least one of them."""
    return list(map(os.fsdecode, array.tobytes().split(b"\0")))


def _folder() -> Path | None:
    given = os.environ.get("BIGGAN_CACHE", "")
    if given.strip().lower() in _OFF:
        return None
    if given:
        return Path(given).expanduser() / "indexes" if os.path.isabs(given) else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError):  # no home directory
        base = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
        return base / "biggan_jax" / "indexes"
    return None


def _read(place: Path) -> Index | None:
    """The index there; None where it is absent or damaged."""
    try:
        with np.load(place, allow_pickle=False) as file:
            found = dict(file)
        os.utime(place)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found


def _write(place: Path, index: Index) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=place.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **index)
        os.replace(partial, place)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    others = sorted(place.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
