"""Counts of the labels of a data set, kept so that a slow scan happens once."""

import json
from pathlib import Path

import numpy as np

from biggan_jax.data import DataReport, Source, data_report
from biggan_jax.storage import paths

_VERSION = 1


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
    histogram = _read(path, source, stamp)
    if histogram is None:
        histogram = source.histogram()
        if write:
            content = {"version": _VERSION, "digest": stamp, "histogram": histogram.tolist()}
            paths.write_bytes(path, json.dumps(content).encode())
    return data_report(source, histogram)


def _read(path: Path, source: Source, stamp: str) -> np.ndarray | None:
    """The counts, or None where they are absent, damaged or of other data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        histogram = np.array(content["histogram"], np.int64)
        head = (content["version"], content["digest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    fits = histogram.shape == (source.num_classes,) and histogram.sum() == len(source)
    return histogram if fits and head == (_VERSION, stamp) else None
