"""The info.json beside prepared records: what they are, and which shards hold them."""

import hashlib
import io
import json
from typing import Any

import numpy as np

from biggan_jax.data import buckets
from biggan_jax.data.files import read_regular
from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError

INFO_FILE = "info.json"
PARTS = "parts"  # a file for each finished lane, gone when info.json is there
FORMAT = "biggan_jax records"
PLAIN_VERSION = 1  # raw pixels in the order of the source
FORMAT_VERSION = 2  # what an older program would read in another order

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
AGAIN = "run `biggan prepare` again"


def read_info(folder: Any) -> dict:
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
        info = json.loads(_read(path).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if (folder / PARTS).is_dir():
            remedy = (
                "run again what has not ended of the workers of `biggan prepare --worker I/N` that "
                "write them"
            )
        elif folder.is_dir():
            remedy = "give the folder that `biggan prepare` wrote, or folder:PATH for image files"
        else:
            remedy = (
                "correct the path, or write them with `biggan prepare --source SPEC --resolution R "
                f"--out {folder}`"
            )
        raise UserError(f"no {path}: no prepared records; {remedy}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); {AGAIN}") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise UserError(f"{path} does not describe {FORMAT}; choose another folder")
    if info.get("format_version") not in (PLAIN_VERSION, FORMAT_VERSION):
        raise UserError(
            f"{path} has format version {info.get('format_version')}, this program reads versions "
            f"{PLAIN_VERSION} and {FORMAT_VERSION}; {AGAIN}, or install the version of biggan_jax "
            "that wrote it"
        )
    for key, kind in _INFO_TYPES.items():
        if not isinstance(info.get(key), kind):
            raise UserError(f"{path} lacks {key!r} of type {kind.__name__}; {AGAIN}")
    _check_counts(path, info)
    return info


def _read(path: Any) -> bytes:
    return buckets.read_bytes(path) if buckets.is_remote(path) else read_regular(path)


def _unreadable(path: Any, error: OSError) -> UserError:
    remedy = buckets.MAY_READ if buckets.is_refused(error) else AGAIN
    return UserError(f"{path} cannot be read ({error.strerror or one_line(error)}); {remedy}")


def _check_counts(path: Any, info: dict) -> None:
    try:
        totals = {
            "shards": sum(int(shard["count"]) for shard in info["shards"] if shard["name"]),
            "histogram": sum(int(n) for n in info["histogram"]),
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} lists malformed shards or counts; {AGAIN}") from error
    for name, total in totals.items():
        if total != info["count"] or total == 0:
            raise UserError(
                f"{path}: its {name} sum to {total} records but its count is {info['count']}; "
                f"{AGAIN}"
            )
    lane_counts(info, path)
    if not len(info["class_names"]) == len(info["histogram"]) == info["num_classes"]:
        raise UserError(
            f"{path} has {len(info['class_names'])} class names and {len(info['histogram'])} "
            f"counts for {info['num_classes']} classes; {AGAIN}"
        )


def lane_counts(info: dict, path: Any | None = None) -> np.ndarray:
    """Records of each lane, int64 [lanes]; [0] of records without lanes.

    Args:
      info: of records.
      path: where it was read, for the message.

    Raises:
      UserError: the shards do not lie in the order of the lanes that it names.
    """
    count = info.get("lanes", 0)
    of_shard = [shard.get("lane", -1) for shard in info["shards"]] if count else []
    if (
        not isinstance(count, int)
        or of_shard != sorted(of_shard)
        or not all(isinstance(lane, int) and 0 <= lane < count for lane in of_shard)
    ):
        raise UserError(f"{path} lists shards that are of no lane of {count}; {AGAIN}")
    records = np.zeros(max(1, count), np.int64)
    np.add.at(records, of_shard, [shard["count"] for shard in info["shards"][: len(of_shard)]])
    return records


def read_labels(folder: Any, info: dict) -> np.ndarray:
    """The labels of all records in lanes, int32 [count].

    Args:
      folder: of the records.
      info: of them, with `labels`.

    Raises:
      UserError: the file is missing or another one.
    """
    path = folder / info["labels"]["name"]
    try:
        content = _read(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if hashlib.sha256(content).hexdigest() != info["labels"]["sha256"]:
        raise UserError(
            f"{path} is not the file that {INFO_FILE} describes (its digest differs): copy it "
            f"there again or {AGAIN}"
        )
    return np.load(io.BytesIO(content)).astype(np.int32)
