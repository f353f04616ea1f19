"""Parquet files with a column of encoded images and one of labels, as Hugging Face has them."""

import collections
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from biggan_jax.data import identity, parquet_files
from biggan_jax.data.decoding import Encoded
from biggan_jax.data.files import shown
from biggan_jax.data.finding import Finding
from biggan_jax.data.images import BadImage
from biggan_jax.data.labelled import LabelledSource
from biggan_jax.data.labels import numbered
from biggan_jax.data.source import one_line
from biggan_jax.data.stored import OpenFiles
from biggan_jax.errors import UserError

KEPT_BYTES = 1 << 29  # of row groups, besides those that are just read
_STRIPES = 16  # locks, of which a row group has one while it is read


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> "ParquetSource":
    """Opens the files that `parquet:PATH[:SPLIT[:COLUMN]]` names; see `parquet_files.chosen`.

    UserError where they are missing or damaged, or lack a column of images or of labels.
    """
    paths, column = parquet_files.chosen(argument)
    settings = {"resolution": resolution, "channels": channels, "on_bad_record": on_bad_record}
    return ParquetSource(spec, paths, column, **settings)


class ParquetSource(LabelledSource):
    """The rows of parquet files, in their order.

    A row group is the least that can be read of a parquet file: one image is read with all others
    of its row group, of which some are kept. For a random order over more than fits there,
    `biggan prepare` makes records, which reads every group once.

    Args:
      spec: the text that opened this source.
      paths: of the files, in their order.
      label: name of the column of labels, None to find it.
      **settings: those of `DecodingSource` but `class_names`.

    Raises:
      UserError: a file is damaged, lacks a column, or has a label that is no class.
    """

    def __init__(self, spec: str, paths: Sequence[Path], label: str | None, **settings):
        self._paths = tuple(paths)
        files = [_open(path) for path in paths]
        columns = parquet_files.columns_of(paths[0], files[0].schema_arrow, label)
        for path, file in zip(paths, files, strict=True):
            other = parquet_files.columns_of(path, file.schema_arrow, columns.label)
            if other != columns:
                raise UserError(
                    f"{path} has other columns or class names than {paths[0]}; name files of one "
                    "data set"
                )
        values = [v for path in paths for v in _labels(path, columns.label)]
        # Where each row group starts: file, number in it, first row of all.
        sizes = [
            (number, group, file.metadata.row_group(group).num_rows)
            for number, file in enumerate(files)
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(number, group) for number, group, _ in sizes]
        self._ends = np.cumsum([rows for *_, rows in sizes], dtype=np.int64)
        if not values:
            raise UserError(f"{paths[0]} holds no rows; name other files")
        labels, names = numbered(values, self._row, columns.names)
        super().__init__(spec, labels, class_names=names, **settings)
        self._column = RowGroups(self._paths, columns.image)
        self.remarks = self._remarks(files, columns.image)

    def _row(self, index: int) -> str:
        """Names a row for a message."""
        at = int(np.searchsorted(self._ends, index, side="right"))
        number = self._groups[at][0]
        first = next(i for i, (file, _) in enumerate(self._groups) if file == number)
        before = int(self._ends[first - 1]) if first else 0
        return f"row {index - before} of {shown(str(self._paths[number]))}"

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        at = np.searchsorted(self._ends, list(indices), side="right").tolist()
        labels = self._labels[list(indices)].tolist()
        return [
            Encoded(self._row(i), Cell(self._column, *self._groups[g], self._place(i, g)), label)
            for i, g, label in zip(indices, at, labels, strict=True)
        ]

    def _place(self, index: int, at: int) -> int:
        """The row of an example in its row group."""
        return int(index) - (int(self._ends[at - 1]) if at else 0)

    def digest(self) -> str:
        """Hash of the files' names, sizes, starts and ends, and of the labels.

        A file's end has the place and size of every row group.
        """
        return self._identity.digest

    def stamp(self) -> str:
        """Hash of the digest and of the files' sizes and times."""
        return self._identity.stamp

    @functools.cached_property
    def _identity(self) -> identity.Identity:
        files = OpenFiles(self._paths)
        known = files.sizes_and_times()

        def start_of(number: int) -> bytes:
            size = known[number][0]
            end = max(0, size - identity.DIGEST_BYTES)
            return b"".join(files.read(number, at, identity.DIGEST_BYTES) for at in (0, end))

        return identity.identify(
            [(path.name, size) for path, (size, _) in zip(self._paths, known, strict=True)],
            len(self._paths),
            start_of,
            map,
            lambda: repr(known).encode(),
            self._labels.astype("<i4").tobytes(),
        )

    def _remarks(self, files: Sequence[Any], image: str) -> tuple[Finding, ...]:
        """Says so where a random order would read the same row groups again and again."""
        total = sum(os.path.getsize(path) for path in self._paths)
        rows = len(self) / len(self._groups)
        if total <= KEPT_BYTES or rows < 2:
            return ()
        return (
            Finding(
                f"each image is read with the {rows:,.0f} of its row group, some "
                f"{total / len(self._groups) / 1e6:,.0f} MB",
                image,
                "training reads in a random order; make records of it once, with `biggan prepare`",
            ),
        )


class Cell(NamedTuple):
    """The image of one row."""

    column: "RowGroups"
    file: int
    group: int
    row: int

    def read(self, limit: int | None = None) -> bytes:
        """Its bytes, `limit` at most; BadImage where the cell is empty."""
        found = self.column.group(self.file, self.group)[self.row].as_py()
        if found is None:
            raise BadImage(
                "its cell is empty: the file holds no bytes of the image, or its path alone"
            )
        return found[:limit]


class RowGroups:
    """One column of parquet files, a row group at a time; those read last are kept.

    Args:
      paths: of the files.
      column: name of the column, or of the field in it.
    """

    def __init__(self, paths: Sequence[Path], column: str):
        self._paths, self._column = paths, column
        self._kept: collections.OrderedDict[tuple[int, int], Any] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def group(self, file: int, group: int) -> Any:
        """The column of one row group.

        Args:
          file: number of the file.
          group: of the row group in it.

        Returns:
          A PyArrow array of bytes.

        Raises:
          UserError: the file is damaged.
          OSError: it cannot be read.
        """
        key = file, group
        with self._stripes[hash(key) % _STRIPES]:  # two threads do not read it twice
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            found = self._read(file, group)
            with self._lock:
                self._kept[key] = found
                while (
                    len(self._kept) > 1 and sum(c.nbytes for c in self._kept.values()) > KEPT_BYTES
                ):
                    self._kept.popitem(last=False)
        return found

    def _read(self, file: int, group: int) -> Any:
        path = self._paths[file]
        try:
            # Opened for every group: one object is not made for several threads.
            table = _open(path).read_row_group(group, columns=[self._column], use_threads=False)
        except OSError as error:
            raise _damaged(path, error) from error
        except ValueError as error:  # ArrowInvalid
            raise _damaged(path, error) from error
        column = table.column(0).combine_chunks()
        return column.field("bytes") if hasattr(column, "field") else column


def _open(path: Path) -> Any:
    parquet = parquet_files.pyarrow()
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _labels(path: Path, column: str) -> list:
    """The labels of a file; UserError where one is missing or they are no list of them."""
    try:
        found = _open(path).read(columns=[column]).column(0)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    values = found.to_pylist()
    if found.null_count:
        row = values.index(None)
        raise UserError(f"row {row} of {path} has no {column}; give every row one, or take it out")
    return values


def _damaged(path: Path, error: Exception) -> Exception:
    """PyArrow reports damage as OSError too, but without a number; tells it from a disk's."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return UserError(
        f"{path} is no parquet file, or damaged or truncated ({one_line(error)}); download it again"
    )
