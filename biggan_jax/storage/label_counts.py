"""The labels of a data set and their counts, kept so that a slow scan happens once."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from biggan_jax.data import DataReport, Source, data_report
from biggan_jax.data.files import read_regular
from biggan_jax.data.source import count_labels
from biggan_jax.parallel import processes
from biggan_jax.storage import json_file, paths

_VERSION = 1
_DIGEST_BYTES = 32
_MANY = 100_000  # examples whose labels take long enough to say so


def cached_report(source: Source, cache: Path, *, write: bool = True) -> DataReport:
    """Describes a source without a scan of all its labels at each start.

    Args:
      source: the data.
      cache: folder of the counts of sources that must be scanned, one file per stamp.
      write: whether this process may write them there.

    Returns:
      The report.

    Raises:
      UserError: a label lies outside [0, num_classes).
    """
    if source.histogram_is_cheap:
        return data_report(source)
    stamp = source.stamp()  # not the digest: counts of files that were replaced are stale
    path = Path(cache) / f"labels-{stamp[:32]}.json"
    histogram = _read(path, source, stamp, len(source))
    if histogram is None:
        histogram = source.histogram()
        if write:
            _write(path, stamp, histogram)
    return data_report(source, histogram)


def labels(source: Source, cache: Path) -> np.ndarray:
    """The label of every example; those of a slow source are kept.

    Args:
      source: the data.
      cache: folder of the labels, one file per stamp.

    Returns:
      int32 [n].

    Raises:
      UserError: a label lies outside [0, num_classes), or a record is damaged.
    """
    if source.labels_are_cheap:
        return source.labels_of(np.arange(len(source)))
    path = Path(cache) / f"labels-of-all-{source.stamp()[:32]}"
    found = _read_labels(path, len(source))
    if found is None:
        if len(source) >= _MANY and processes.is_main():
            print(f"reading all labels of {source.spec} once", file=sys.stderr)
        found = source.labels_of(np.arange(len(source))).astype("<i4")
        count_labels(found, source.num_classes, source.spec)
        paths.write_bytes(path, hashlib.sha256(found).digest() + found.tobytes())
    return found


def _read_labels(path: Path, count: int) -> np.ndarray | None:
    """The labels, or None where they are absent or damaged."""
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if len(content) != 4 * count or hashlib.sha256(content).digest() != digest:
        return None
    return np.frombuffer(content, "<i4")


def held_out_counts(source: Source, cache: Path) -> tuple[int, ...]:
    """Counts the held-out examples of each class; the counts of a slow source are kept.

    Args:
      source: the data, with `held_out` where some are.
      cache: folder of the counts.

    Returns:
      One number a class; none where nothing is held out.

    Raises:
      UserError: a label lies outside [0, num_classes).
    """
    if source.held_out is None:
        return ()
    held_out = np.flatnonzero(source.held_out)
    stamp = source.stamp()
    path = Path(cache) / f"held-out-{len(held_out)}-{stamp[:32]}.json"
    histogram = _read(path, source, stamp, len(held_out))
    if histogram is None:
        labels = source.labels_of(held_out)
        histogram = count_labels(labels, source.num_classes, source.spec)
        if not source.labels_are_cheap:
            _write(path, stamp, histogram)
    return tuple(histogram.tolist())


def _write(path: Path, stamp: str, histogram: np.ndarray) -> None:
    content = {"version": _VERSION, "digest": stamp, "histogram": histogram.tolist()}
    paths.write_bytes(path, json.dumps(content).encode())


def _read(path: Path, source: Source, stamp: str, count: int) -> np.ndarray | None:
    """The counts, or None where they are absent, damaged or of other data."""
    try:
        content = json_file.read(path)
        histogram = np.array(content["histogram"], np.int64)
        head = (content["version"], content["digest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
        return None
    fits = histogram.shape == (source.num_classes,) and histogram.sum() == count
    return histogram if fits and head == (_VERSION, stamp) else None
