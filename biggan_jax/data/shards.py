"""The ArrayRecord files of prepared records: each is checked once, then read at random."""

import contextlib
import hashlib
import re
import resource
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data.files import open_regular, read_regular
from biggan_jax.data.record_info import AGAIN, INFO_FILE
from biggan_jax.data.source import one_line
from biggan_jax.data.stage import Stage
from biggan_jax.errors import UserError

HEAD_BYTES = 1 << 14  # of a shard, by which it is known
_OTHER_FILES = 512  # that a process may have open besides its shards


class Shards:
    """The records of some shards, one shard after another; a shard is opened when it is first read.

    Args:
      folder: where they lie.
      shards: what info.json says of each.
      stage: their copies on a local disk, where they are not read in their folder.
    """

    def __init__(self, folder: Any, shards: list[dict[str, Any]], stage: Stage | None = None):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        folder = folder if stage is None else stage.folder
        self._folder, self._shards, self._stage = folder, shards, stage
        self._ends = np.cumsum([shard["count"] for shard in shards])
        # The range in the name spares counting, for which every shard would be opened.
        paths = [f"{folder / shard['name']}[0:{shard['count']}]" for shard in shards]
        self._records = ArrayRecordDataSource(paths)
        self._checked, self._lock = np.zeros(len(shards), bool), threading.Lock()
        _allow_open_files(len(shards))

    def read(self, places: np.ndarray) -> Sequence[bytes]:
        """The records at some places in [0, total), in the order given.

        Raises:
          UserError: a shard is missing, damaged or another one.
          OSError: the disk fails.
        """
        self.check(self.of(places))
        try:
            return self._records.__getitems__(places.tolist())
        except RuntimeError as error:
            raise _damaged(self._folder, error) from error

    def of(self, places: np.ndarray) -> np.ndarray:
        """The numbers of the shards of some places, each once, in the order of their first use."""
        found, first = np.unique(np.searchsorted(self._ends, places, "right"), return_index=True)
        return found[np.argsort(first)]

    def check(self, numbers: np.ndarray) -> None:
        """Checks some shards, each once, against what info.json says of them.

        Raises:
          UserError: one is missing, damaged or another one.
        """
        if self._checked[numbers].all():
            return
        if self._stage is not None:
            self._stage.wait(numbers)
        with self._lock:
            for number in numbers[~self._checked[numbers]]:
                _check(self._folder / self._shards[number]["name"], self._shards[number])
                self._checked[number] = True


def described(path: Path) -> dict[str, Any]:
    """What info.json says of the file of a shard: size, hash of its start, hash of all of it."""
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {**_head_of(path), "sha256": digest}


def _head_of(path: Path) -> dict[str, Any]:
    start = read_regular(path, HEAD_BYTES)
    return {"bytes": path.stat().st_size, "head": hashlib.sha256(start).hexdigest()}


def _check(path: Path, shard: dict[str, Any]) -> None:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    if not path.is_file():
        raise UserError(f"{path} is missing; copy it there or {AGAIN}")
    # Older records say too little of a shard to tell that another has replaced it.
    known = {key: shard[key] for key in ("bytes", "head") if key in shard}
    with contextlib.suppress(OSError):  # array_record says what is wrong with reading it
        if known and known != _head_of(path):
            raise UserError(
                f"{path} is not the shard that {INFO_FILE} describes (its size or its start "
                f"differs): copy it there again or {AGAIN}"
            )
    try:
        count = len(ArrayRecordDataSource(str(path)))
    except RuntimeError as error:
        raise _damaged(path, error) from error
    if count != shard["count"]:
        raise UserError(
            f"{path} holds {count} records but {INFO_FILE} says {shard['count']}; {AGAIN}"
        )


def _damaged(path: Path, error: RuntimeError) -> Exception:
    """array_record reports damage and disk errors alike as RuntimeError; tells them apart."""
    text = one_line(error)
    if re.match(r"\w+\(\) failed: ", text):
        return OSError(f"{path}: {text}")
    return UserError(f"{path}: a shard is damaged ({text}); {AGAIN}")


def _allow_open_files(count: int) -> None:
    """Raises the limit of open files, as far as this process may, so that all shards can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft not in (resource.RLIM_INFINITY,) and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
