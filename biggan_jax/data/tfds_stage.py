"""A data set of TFDS in a bucket: the files of one split on a local disk."""

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from biggan_jax.data import buckets
from biggan_jax.data.stage import THREADS, Stage
from biggan_jax.data.stage_progress import File, NotStaged


class StagedBuilder:
    """A prepared builder whose files are copied to a local disk: those that describe it at once.

    Args:
      builder: of a data set in a bucket, prepared.
      split: whose shards may be read; one that the data set has.
      folder: local, `data.stage`.
      stage_gb: how much of its disk this process may take, in 10**9 bytes.

    Attributes:
      builder: the same data set on the local disk.

    Raises:
      UserError: no folder is given, a file cannot be had, or the split does not fit.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        folder: str | None,
        stage_gb: float | None,
    ):
        origin = buckets.workdir_path(str(builder.data_dir))
        if not folder:
            raise NotStaged(origin, "set TFDS_DATA_DIR to the folder above its name")
        instructions = builder.info.splits[split].file_instructions
        self._ends = np.cumsum([each.take for each in instructions])
        shards = [Path(each.filename).name for each in instructions]
        others = [
            path.name
            for path in buckets.retried(origin, lambda: list(origin.iterdir()))
            if ".array_record" not in path.name
        ]
        with ThreadPoolExecutor(THREADS) as threads:
            sizes = threads.map(lambda name: _size(origin / name), shards + others)
        files = [File(*fields) for fields in zip(shards + others, sizes, strict=True)]
        local = Path(folder) / hashlib.sha256(str(origin).encode()).hexdigest()[:16]
        remedy = f"prepare {builder.info.full_name} in the bucket again"
        self._stage = Stage(origin, files, local, stage_gb, remedy)
        self._stage.wait(range(len(shards), len(files)))
        self.builder = tfds.builder_from_directory(self._stage.folder)

    def expect(self, first: np.ndarray, others: np.ndarray, *, tell: bool) -> None:
        """Begins to copy the shards of some examples; see `Source.expect`."""
        self._stage.want(self._shards(np.concatenate([first, others])), tell=tell)

    def waiting(self, records: Sequence[dict]) -> "StagedRecords":
        """The records of the split as they are read when their shards are there."""
        return StagedRecords(records, self)

    def wait(self, indices: Sequence[int]) -> None:
        """Returns when the shards of some examples are there."""
        self._stage.wait(self._shards(np.asarray(indices)))

    def _shards(self, indices: np.ndarray) -> np.ndarray:
        found, at = np.unique(np.searchsorted(self._ends, indices, "right"), return_index=True)
        return found[np.argsort(at)]


class StagedRecords:
    """Records of a data set of which a shard is waited for before it is read."""

    def __init__(self, records: Sequence[dict], staged: StagedBuilder):
        self._records, self._staged = records, staged

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict]:
        self._staged.wait(indices)
        return self._records.__getitems__(indices)


def _size(path: Any) -> int | None:
    """Of a file, None where there is none: who reads it says so."""
    with contextlib.suppress(FileNotFoundError):
        return buckets.retried(path, lambda: path.stat().length)
    return None
