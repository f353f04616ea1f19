"""Reading prepared records: images in sharded ArrayRecord files, beside an info.json.

A record is resolution * resolution * channels bytes of pixels (rows, columns, channels), or an
image file (`encoding`), and then the label as a little-endian int32. `record_writer.prepare` writes
them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import buckets, lanes, wording
from biggan_jax.data.encoding import Decoder, Encoding, labels
from biggan_jax.data.files import stamp_of_files
from biggan_jax.data.record_info import lane_counts, read_info, read_labels
from biggan_jax.data.shards import Shards
from biggan_jax.data.source import LABELS_AT_ONCE, Source
from biggan_jax.data.stage import Stage
from biggan_jax.data.stage_progress import File, NotStaged
from biggan_jax.errors import UserError


def record_dtype(resolution: int, channels: int) -> np.dtype:
    """The layout of one record, packed."""
    return np.dtype([("image", "u1", (resolution, resolution, channels)), ("label", "<i4")])


def open_spec(
    spec: str,
    argument: str,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str,
    stage: str | None = None,
    stage_gb: float | None = None,
) -> "RecordSource":
    """Opens the records that `records:DIR` names; see `RecordSource`.

    `on_bad_record` means nothing here: `prepare` wrote what it could read.
    """
    buckets.reach(argument, write=False)
    folder = buckets.workdir_path(argument)
    if buckets.is_remote(folder) and not stage:
        raise NotStaged(folder, f"give records:{folder.name}")
    return RecordSource(
        spec, folder, resolution=resolution, channels=channels, stage=stage, stage_gb=stage_gb
    )


def size_of(spec: str) -> dict[str, int]:
    """The one size that prepared records have.

    Args:
      spec: of any source.

    Returns:
      {resolution: in pixels, channels: 1 or 3}; nothing for other kinds.

    Raises:
      UserError: the records are missing or unfinished.
    """
    kind, _, argument = spec.partition(":")
    if kind != "records" or not argument.strip():
        return {}
    info = read_info(buckets.workdir_path(argument))
    return {name: info[name] for name in ("resolution", "channels")}


class RecordSource(Source):
    """Records written by `prepare`, read at random.

    Args:
      spec: the text that opened this source.
      folder: what `prepare` wrote.
      resolution: side of the images in pixels; must be that of the records.
      channels: must be that of the records.
      stage: a folder of a local disk, to which shards are copied before they are read; they are
        read where they lie if absent.
      stage_gb: how much of its disk this process may take, in 10**9 bytes.

    Raises:
      UserError: the folder is missing, unfinished, damaged, or of another resolution or channels.
    """

    def __init__(
        self,
        spec: str,
        folder: Any,
        *,
        resolution: int,
        channels: int,
        stage: str | None = None,
        stage_gb: float | None = None,
    ):
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
        encoding = Encoding.of_info(info)
        self._decoder = None if encoding.format == "raw" else Decoder(encoding)
        self._stage = _staged(folder, info, stage, stage_gb) if stage else None
        self._shards = Shards(folder, info["shards"], self._stage)
        self._places = None  # of the records in the shards, where it is not their own order
        if info.get("lanes"):
            self.num_lanes = info["lanes"]
            self.lane_of, self._places = lanes.of_records(lane_counts(info))
            self.labels_are_cheap = "labels" in info
        elif self._stage is None:
            self._shards.check(np.arange(len(info["shards"])))

    def __len__(self) -> int:
        return self.info["count"]

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        index_n = self._check_indices(indices)
        if not len(index_n):
            return np.empty((0, *self._dtype["image"].shape), np.uint8), np.empty(0, np.int32)
        data = self._shards.read(self._placed(index_n))
        if self._decoder is not None:
            return self._decoded(index_n, data)
        rows = np.frombuffer(b"".join(data), self._dtype)
        return rows["image"].copy(), rows["label"].astype(np.int32)

    def _decoded(
        self, index_n: np.ndarray, records: Sequence[bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(records), *self._dtype["image"].shape), np.uint8)
        damaged = self._decoder(records, images)
        if damaged is not None:
            raise UserError(
                f"record {index_n[damaged]} of {self._folder} is damaged; copy its shards there "
                "again or run `biggan prepare` again"
            )
        return images, labels(records)

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        if not self.labels_are_cheap:
            index_n = self._check_indices(indices)
            parts = np.array_split(index_n, max(1, len(index_n) // LABELS_AT_ONCE))
            read = (self._shards.read(self._placed(part)) for part in parts if len(part))
            return np.concatenate([np.empty(0, np.int32), *map(labels, read)])
        return self._labels[self._check_indices(indices)]

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        """Of all records, as they were written beside them."""
        return read_labels(self._folder, self.info)

    def expect(self, first: np.ndarray, others: np.ndarray, *, tell: bool) -> None:
        shards = self._shards.of(self._placed(np.concatenate([first, others])))
        if self._stage is None:
            self._shards.check(shards)
        else:
            self._stage.want(shards, tell=tell)

    def stored(self, places: Sequence[int]) -> np.ndarray:
        found = super().stored(places)
        return found if self._places is None else np.argsort(self._places)[found]

    def _placed(self, index_n: np.ndarray) -> np.ndarray:
        return index_n if self._places is None else self._places[index_n]

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


def _staged(folder: Any, info: dict, stage: str, stage_gb: float | None) -> Stage:
    """Where the shards are copied to: a folder of these very records, whatever else is there."""
    local = Path(stage) / info["digest"][:16]
    files = [
        File(shard["name"], shard.get("bytes"), shard.get("sha256")) for shard in info["shards"]
    ]
    return Stage(folder, files, local, stage_gb)


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
