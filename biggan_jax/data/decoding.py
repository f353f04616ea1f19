"""Sources whose images are decoded at every read, and what happens to unreadable ones."""

import logging
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biggan_jax.data.images import BadImage, decode_image
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

logger = logging.getLogger(__name__)

# Each bad record is logged up to this many; all are counted.
LOGGED_BAD_RECORDS = 10


class Encoded(NamedTuple):
    """One example before decoding."""

    name: str  # what a person can look for: a path, or a position in a data set
    content: Path | bytes
    label: int


class DecodingSource(Source):
    """A source of encoded images; subclasses say where the bytes are.

    With `on_bad_record='skip'` an unreadable record i is replaced by the first readable one of
    i + 1, i + 2, ... (modulo the number of records), image and label together, so the replacement
    depends on the data alone.

    Args:
      spec: the text that opened this source.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      class_names: one name per class.
      on_bad_record: `error` or `skip`.

    Attributes:
      reduced: whether a JPEG is decoded at a reduced size; see `images.decode_image`.
    """

    reduced = False

    def __init__(
        self,
        spec: str,
        *,
        resolution: int,
        channels: int,
        class_names: Sequence[str],
        on_bad_record: str,
    ):
        super().__init__(spec, resolution, channels, class_names)
        self._skip = on_bad_record == "skip"
        self._lock = threading.Lock()
        self._bad: set[int] = set()
        self._replacements: dict[int, int] = {}
        # Pillow releases the interpreter lock while it decodes.
        self._num_workers = min(16, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="decode")

    @property
    def bad_records(self) -> int:
        with self._lock:
            return len(self._bad)

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        """The records at some indices, not yet decoded."""
        raise NotImplementedError

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        index_n = self._check_indices(indices)
        with self._lock:
            wanted = [self._replacements.get(i, i) for i in index_n.tolist()]
        records = self._encoded(wanted)
        labels = np.array([record.label for record in records], np.int32)
        size = (self.resolution, self.resolution, self.channels)
        images = np.empty((len(records), *size), np.uint8)

        def decode_some(positions: range) -> list[tuple[int, str]]:
            problems = []
            for position in positions:
                try:
                    images[position] = self._decode(records[position])
                except BadImage as error:
                    problems.append((position, str(error)))
            return problems

        # A few slices per worker: a future per image would cost as much as a small image.
        stride = max(1, math.ceil(len(records) / (4 * self._num_workers)))
        slices = [
            range(start, min(start + stride, len(records)))
            for start in range(0, len(records), stride)
        ]
        for problems in self._pool.map(decode_some, slices):
            for position, problem in problems:
                self._note_bad(wanted[position], records[position].name, problem)
                images[position], labels[position] = self._replace(wanted[position])
        return images, labels

    def _decode(self, record: Encoded) -> np.ndarray:
        content = record.content
        if isinstance(content, Path):
            try:
                content = content.read_bytes()
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                raise BadImage(error.strerror) from error
        return decode_image(content, self.resolution, self.channels, reduced=self.reduced)

    def _note_bad(self, index: int, name: str, problem: str) -> None:
        """Counts a bad record, or raises where bad records are errors."""
        if not self._skip:
            raise UserError(
                f"{name} is no readable image ({problem}); repair or remove it, or pass "
                "--config.data.on_bad_record=skip (biggan prepare, biggan evaluate: "
                "--on-bad-record skip) to replace it by the next one"
            )
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            count = len(self._bad)
        if count <= LOGGED_BAD_RECORDS:
            last = "; further ones are only counted" if count == LOGGED_BAD_RECORDS else ""
            logger.warning("%s is no readable image (%s), skipped%s", name, problem, last)

    def _replace(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label of the first readable record after a bad one."""
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if candidate in self._bad:
                continue
            (record,) = self._encoded([candidate])
            try:
                image = self._decode(record)
            except BadImage as error:
                self._note_bad(candidate, record.name, str(error))
                continue
            with self._lock:
                self._replacements[index] = candidate
            return image, record.label
        raise UserError(
            f"{self.spec}: none of the {len(self)} records is a readable image; choose other data"
        )
