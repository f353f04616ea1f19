"""Reading prepared records: raw pixels in sharded ArrayRecord files, beside an info.json.

A record is resolution * resolution * channels bytes of pixels (rows, columns, channels) and then
the label as a little-endian int32. `record_writer.prepare` writes them.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data import wording
from biggan_jax.data.files import read_regular, stamp_of_files
from biggan_jax.data.source import Source, one_line
from biggan_jax.errors import UserError

INFO_FILE = "info.json"
FORMAT = "biggan_jax records"
FORMAT_VERSION = 1

_INFO_TYPES = {
    "count": int,
    "resolution": int,
    "channels": int,
    "num_classes": int,
    "class_names": list,
    "histogram": list,
    "digest": str,
    "source": str,
    "shards": list,
}
_AGAIN = "run `biggan prepare` again"
HEAD_BYTES = 1 << 14  # of a shard, by which it is known


def record_dtype(resolution: int, channels: int) -> np.dtype:
    """The layout of one record, packed."""
    return np.dtype([("image", "u1", (resolution, resolution, channels)), ("label", "<i4")])


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> "RecordSource":
    """Opens the records that `records:DIR` names; see `RecordSource`.

    `on_bad_record` means nothing here: what `prepare` wrote is raw pixels.
    """
    return RecordSource(
        spec, Path(os.path.expanduser(argument)), resolution=resolution, channels=channels
    )


class RecordSource(Source):
    """Records written by `prepare`, read at random.

    Args:
      spec: the text that opened this source.
      folder: what `prepare` wrote.
      resolution: side of the images in pixels; must be that of the records.
      channels: must be that of the records.

    Raises:
      UserError: the folder is missing, unfinished, damaged, or of another resolution or channels.
    """

    def __init__(self, spec: str, folder: Path, *, resolution: int, channels: int):
        info = read_info(folder)
        for name, value in (("resolution", resolution), ("channels", channels)):
            if info[name] != value:
                raise OtherSize(folder, name, info[name], value)
        super().__init__(spec, resolution, channels, info["class_names"])
        self._folder, self.info = folder, info
        self.ignored_files = int(info.get("ignored_files", 0))
        self.empty_classes = tuple(info.get("empty_classes", ()))
        self.left_out = tuple(info.get("left_out", ()))
        self._dtype = record_dtype(resolution, channels)
        self._records = _open_shards(folder, info)

    def __len__(self) -> int:
        return self.info["count"]

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        index_n = self._check_indices(indices)
        if not len(index_n):
            return np.empty((0, *self._dtype["image"].shape), np.uint8), np.empty(0, np.int32)
        try:
            data = self._records.__getitems__(index_n.tolist())
        except RuntimeError as error:
            raise _damaged(self._folder, error) from error
        rows = np.frombuffer(b"".join(data), self._dtype)
        return rows["image"].copy(), rows["label"].astype(np.int32)

    def histogram(self) -> np.ndarray:
        return np.array(self.info["histogram"], np.int64)

    def digest(self) -> str:
        """Hash of all records in order, taken when they were written.

        Opening has checked that every shard is the one that was written then.
        """
        return self.info["digest"]

    def stamp(self) -> str:
        """Hash of the digest and of the names, sizes and times of the folder's files."""
        return stamp_of_files(self.digest(), self._folder)


class OtherSize(UserError):
    """Records of another resolution, or number of channels, than what is asked for."""

    def __init__(self, folder: Path, name: str, found: int, asked: int):
        super().__init__(f"{folder} holds records of {name} {found}, not {asked}")
        self.folder, self.name, self.found, self.asked = folder, name, found, asked

    def worded(self, words: wording.Wording) -> UserError:
        """The same with what to do under the command at hand."""
        form = getattr(words, self.name)
        again = f"prepare them again with `biggan prepare --{self.name} {self.asked}`"
        other = f", or give {form.format(self.found)}" if form else ""
        return UserError(f"{self}; {again}{other}")


def read_info(folder: Path) -> dict:
    """Reads and checks the description beside prepared records.

    Args:
      folder: what `prepare` wrote.

    Returns:
      The contents of its info.json.

    Raises:
      UserError: the folder or the file is missing, malformed or of another version.
    """
    path = folder / INFO_FILE
    try:
        info = json.loads(read_regular(path).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_dir():
            remedy = "give the folder that `biggan prepare` wrote, or folder:PATH for image files"
        else:
            remedy = (
                "correct the path, or write them with `biggan prepare --source SPEC --resolution R "
                f"--out {folder}`"
            )
        raise UserError(f"no {path}: no prepared records; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); {_AGAIN}") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise UserError(f"{path} does not describe {FORMAT}; choose another folder")
    if info.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {info.get('format_version')}, this program reads version "
            f"{FORMAT_VERSION}; {_AGAIN}"
        )
    for key, kind in _INFO_TYPES.items():
        if not isinstance(info.get(key), kind):
            raise UserError(f"{path} lacks {key!r} of type {kind.__name__}; {_AGAIN}")
    _check_counts(path, info)
    return info


def _check_counts(path: Path, info: dict) -> None:
    try:
        totals = {
            "shards": sum(int(shard["count"]) for shard in info["shards"] if shard["name"]),
            "histogram": sum(int(n) for n in info["histogram"]),
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} lists malformed shards or counts; {_AGAIN}") from error
    for name, total in totals.items():
        if total != info["count"] or total == 0:
            raise UserError(
                f"{path}: its {name} sum to {total} records but its count is {info['count']}; "
                f"{_AGAIN}"
            )
    if not len(info["class_names"]) == len(info["histogram"]) == info["num_classes"]:
        raise UserError(
            f"{path} has {len(info['class_names'])} class names and {len(info['histogram'])} "
            f"counts for {info['num_classes']} classes; {_AGAIN}"
        )


def _open_shards(folder: Path, info: dict):
    """The shards as one ArrayRecordDataSource, each checked against its count."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    paths = []
    for shard in info["shards"]:
        path = folder / shard["name"]
        if not path.is_file():
            raise UserError(f"{path} is missing; copy it there or {_AGAIN}")
        _check_head(path, shard)
        try:
            count = len(ArrayRecordDataSource(str(path)))
        except RuntimeError as error:
            raise _damaged(path, error) from error
        if count != shard["count"]:
            raise UserError(
                f"{path} holds {count} records but {INFO_FILE} says {shard['count']}; {_AGAIN}"
            )
        # The range in the name spares counting the shard a second time.
        paths.append(f"{path}[0:{count}]")
    return ArrayRecordDataSource(paths)


def head_of(path: Path) -> dict:
    """What a shard is known by: its size and the hash of its start, for info.json."""
    start = read_regular(path, HEAD_BYTES)
    return {"bytes": path.stat().st_size, "head": hashlib.sha256(start).hexdigest()}


def _check_head(path: Path, shard: dict) -> None:
    """Refuses a shard that another has replaced; older records say too little to tell."""
    known = {key: shard[key] for key in ("bytes", "head") if key in shard}
    with contextlib.suppress(OSError):  # array_record says what is wrong with reading it
        if known and known != head_of(path):
            raise UserError(
                f"{path} is not the shard that {INFO_FILE} describes (its size or its start "
                f"differs): copy it there again or {_AGAIN}"
            )


def _damaged(path: Path, error: RuntimeError) -> Exception:
    """array_record reports damage and disk errors alike as RuntimeError; tells them apart."""
    text = one_line(error)
    if re.match(r"\w+\(\) failed: ", text):
        return OSError(f"{path}: {text}")
    return UserError(f"{path}: a shard is damaged ({text}); {_AGAIN}")
