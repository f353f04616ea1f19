"""Reading prepared records: raw pixels in sharded ArrayRecord files, beside an info.json.

A record is resolution * resolution * channels bytes of pixels (rows, columns, channels) and then
the label as a little-endian int32. `record_writer.prepare` writes them.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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


def record_dtype(resolution: int, channels: int) -> np.dtype:
    """The layout of one record, packed."""
    return np.dtype([("image", "u1", (resolution, resolution, channels)), ("label", "<i4")])


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> "RecordSource":
    """Opens the records that `records:DIR` names; see `RecordSource`.

    `on_bad_record` means nothing here: what `prepare` wrote is raw pixels.
    """
    return RecordSource(spec, Path(argument).expanduser(), resolution=resolution, channels=channels)


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
                raise UserError(
                    f"{folder} holds records of {name} {info[name]}, not {value}; prepare "
                    f"them again with --{name} {value}, or train with "
                    f"--config.model.{name}={info[name]}"
                )
        super().__init__(spec, resolution, channels, info["class_names"])
        self._folder, self._info = folder, info
        self._dtype = record_dtype(resolution, channels)
        self._records = _open_shards(folder, info)

    def __len__(self) -> int:
        return self._info["count"]

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
        return np.array(self._info["histogram"], np.int64)

    def digest(self) -> str:
        """Hash of all records in order, taken when they were written."""
        return self._info["digest"]


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
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"no {path}: no prepared records; write them with `biggan prepare --out {folder}`"
        ) from error
    except ValueError as error:
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


def _damaged(path: Path, error: RuntimeError) -> Exception:
    """array_record reports damage and disk errors alike as RuntimeError; tells them apart."""
    text = one_line(error)
    if re.match(r"\w+\(\) failed: ", text):
        return OSError(f"{path}: {text}")
    return UserError(f"{path}: a shard is damaged ({text}); {_AGAIN}")
