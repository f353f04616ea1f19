"""Writing examples of a source into ArrayRecord files of a bounded size."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data.encoding import Encoding
from biggan_jax.data.records import record_dtype
from biggan_jax.data.shards import described
from biggan_jax.data.source import Source, count_labels, one_line

# 'group_size:1' makes single records readable. Uncompressed: raw pixels hardly compress, and
# reading was measured twice as fast as with the default compression.
WRITER_OPTIONS = "group_size:1,uncompressed"
_READ_BYTES = 1 << 24


class Examples:
    """The readable ones of some examples of a source, as records, and what is counted of them.

    Args:
      source: what is written.
      indices: of the examples, in the order in which they are written.
      encoding: of the images.

    Attributes:
      labels: of the records that were made so far.
      dropped: labels of the unreadable examples so far.
      digest: hash of the records so far, of those of raw pixels where the encoding is lossless.
    """

    def __init__(self, source: Source, indices: range, encoding: Encoding):
        self._source, self._indices, self._encoding = source, indices, encoding
        self._dtype = record_dtype(source.resolution, source.channels)
        self.labels: list[int] = []
        self.dropped: list[int] = []
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[int, list[bytes]]]:
        """(how many examples were read, the records of some of them) until all are."""
        per_read = max(1, min(1024, _READ_BYTES // self._dtype.itemsize))
        starts = range(0, len(self._indices), per_read)
        parts = (self._indices[start : start + per_read] for start in starts)
        done = 0
        for part, (images, labels, good) in _read_ahead(self._source, parts):
            for kept, mine in ((good, self.labels), (~good, self.dropped)):
                count_labels(labels[kept], self._source.num_classes, self._source.spec)
                mine.extend(labels[kept].tolist())
            rows = np.empty(int(good.sum()), self._dtype)
            rows["image"], rows["label"] = images[good], labels[good]
            records = self._records(rows)
            if self._encoding.is_lossless:  # the data are the same, however they are stored
                self.digest.update(rows)
            else:
                for record in records:
                    self.digest.update(record)
            done += len(part)
            yield done, records

    def _records(self, rows: np.ndarray) -> list[bytes]:
        if self._encoding.format == "raw":
            return [row.tobytes() for row in rows]
        with ThreadPoolExecutor() as encoders:
            return list(encoders.map(self._encoding.record, rows["image"], rows["label"]))


def _read_ahead(
    source: Source, parts: Iterable[range]
) -> Iterator[tuple[range, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """(part, what `read_good` gives of it), each read while the one before it is written."""
    with ThreadPoolExecutor(1) as reader:
        running = None
        for part in parts:
            following = part, reader.submit(source.read_good, part)
            if running is not None:
                yield running[0], running[1].result()
            running = following
        if running is not None:
            yield running[0], running[1].result()


class ShardFiles:
    """Shards of so many records each, whose number is known only at the end.

    Args:
      folder: where they are made.
      per_shard: records of each.
      stem: how their names begin.
    """

    def __init__(self, folder: Path, per_shard: int, stem: str = "records"):
        self._folder, self._per_shard, self._stem = folder, per_shard, stem
        self._counts: list[int] = []
        self._open: _Shard | None = None

    def __enter__(self) -> "ShardFiles":
        return self

    def write(self, record: bytes) -> None:
        """Writes one record; OSError where it cannot."""
        if self._open is None:
            self._open = _Shard(self._path(len(self._counts)))
            self._counts.append(0)
        self._open.write(record)
        self._counts[-1] += 1
        if self._counts[-1] == self._per_shard:
            self._close()

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self._close()

    def named(self) -> list[dict[str, Any]]:
        """Gives the files their names; what info.json says of each."""
        shards = []
        for i, count in enumerate(self._counts):
            name = f"{self._stem}-{i:05d}-of-{len(self._counts):05d}.array_record"
            path = self._path(i).rename(self._folder / name)
            shards.append({"name": name, "count": count, **described(path)})
        return shards

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._stem}-{number:05d}.array_record"

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None


class _Shard:
    """One ArrayRecord file whose failures are OSErrors; array_record raises RuntimeError."""

    def __init__(self, path: Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._path = path
        self._writer = self._call(ArrayRecordWriter, str(path), WRITER_OPTIONS)

    def write(self, record: bytes) -> None:
        self._call(self._writer.write, record)

    def close(self) -> None:
        self._call(self._writer.close)

    def _call(self, function, *args):
        try:
            return function(*args)
        except RuntimeError as error:
            raise OSError(f"cannot write {self._path}: {one_line(error)}") from error
