"""Sources whose images are decoded at every read, and what happens to unreadable ones."""

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biggan_jax.data.files import OF_ONE_FILE, read_regular, shown
from biggan_jax.data.images import BadImage, Stored, decode_image
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

logger = logging.getLogger(__name__)

# Each bad record is logged up to this many; all are counted.
LOGGED_BAD_RECORDS = 10
_SCAN_SIZE = 1024  # records that are looked at together for one of a certain class


class Encoded(NamedTuple):
    """One example before decoding."""

    name: str  # what a person can look for: a path, or a position in a data set
    content: Path | bytes | Stored
    label: int


class DecodingSource(Source):
    """A source of encoded images; subclasses say where the bytes are.

    With `on_bad_record='skip'` an unreadable record i is replaced by the first readable one of its
    class among i + 1, i + 2, ... (modulo the number of records), so the replacement depends on the
    data alone and no class gets the images of another. A class without a readable image is an
    error.

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
        self._bad: dict[int, str] = {}  # its position -> its name
        self._replacements: dict[int, int] = {}
        # Pillow releases the interpreter lock while it decodes.
        self._num_workers = min(16, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="decode")

    @property
    def bad_records(self) -> int:
        with self._lock:
            return len(self._bad)

    def bad_names(self, limit: int) -> list[str]:
        with self._lock:
            return [self._bad[i] for i in sorted(self._bad)[:limit]]

    @property
    def skips(self) -> bool:
        """Whether unreadable records are replaced or left out, rather than errors."""
        return self._skip

    def record(self, index: int) -> Encoded:
        """One example before decoding."""
        return self._encoded([index])[0]

    def copies(self, seconds: float) -> list[tuple[int, int]]:
        """Pairs (earlier, later) of examples with the same bytes, as far as they are known.

        Args:
          seconds: to look for them.
        """
        return []

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        """The records at some indices, not yet decoded."""
        raise NotImplementedError

    def _others_of_class(self, index: int, label: int) -> Iterator[tuple[int, Encoded]]:
        """(index, record) of the other records of one class, from the next one on, around."""
        for start in range(1, len(self), _SCAN_SIZE):
            steps = range(start, min(start + _SCAN_SIZE, len(self)))
            others = [(index + step) % len(self) for step in steps]
            for other, record in zip(others, self._encoded(others), strict=True):
                if record.label == label:
                    yield other, record

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        index_n = self._check_indices(indices)
        with self._lock:
            wanted = [self._replacements.get(i, i) for i in index_n.tolist()]
        images, labels, bad = self._read(wanted)
        for position in bad:
            images[position] = self._replacement(wanted[position], int(labels[position]))
        return images, labels

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        index_n = self._check_indices(indices)
        parts = np.array_split(index_n, max(1, len(index_n) // _SCAN_SIZE))
        found = [[record.label for record in self._encoded(part.tolist())] for part in parts]
        return np.concatenate(found).astype(np.int32)

    def read_good(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        images, labels, bad = self._read(self._check_indices(indices).tolist())
        good = np.ones(len(labels), bool)
        good[bad] = False
        return images, labels, good

    def read_unchecked(self, indices: Sequence[int]) -> tuple[np.ndarray, dict[int, BadImage]]:
        """Reads examples for a look at them: unreadable ones are neither counted nor errors.

        Args:
          indices: integers in [0, len(self)).

        Returns:
          images uint8 [n, resolution, resolution, channels], what is wrong with the unreadable ones
          by their positions in it.
        """
        images, _, problems = self._decode_all(self._encoded(list(indices)))
        return images, dict(problems)

    def lacks_readable(self, index: int) -> bool:
        """Whether the class of an unreadable example has no readable one, as far as is looked.

        Args:
          index: of the unreadable one.
        """
        others = self._others_of_class(index, self.record(index).label)
        for number, (_, record) in enumerate(others):
            try:
                self._decode(record)
            except BadImage:
                if number < _SCAN_SIZE:
                    continue
            return False
        return True

    def _read(self, wanted: list[int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """(images, labels, positions of the unreadable ones among them)."""
        records = self._encoded(wanted)
        images, labels, problems = self._decode_all(records)
        for position, problem in problems:
            self._note_bad(wanted[position], records[position].name, problem)
        return images, labels, [position for position, _ in problems]

    def _decode_all(
        self, records: list[Encoded]
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, BadImage]]]:
        """(images, labels, [(position, what is wrong)] of the unreadable ones among them)."""
        labels = np.array([record.label for record in records], np.int32)
        size = (self.resolution, self.resolution, self.channels)
        images = np.empty((len(records), *size), np.uint8)

        def decode_some(positions: range) -> list[tuple[int, BadImage]]:
            problems = []
            for position in positions:
                try:
                    images[position] = self._decode(records[position])
                except BadImage as error:
                    problems.append((position, error))
            return problems

        # A few slices per worker: a future per image would cost as much as a small image.
        stride = max(1, math.ceil(len(records) / (4 * self._num_workers)))
        slices = [
            range(start, min(start + stride, len(records)))
            for start in range(0, len(records), stride)
        ]
        return images, labels, [bad for some in self._pool.map(decode_some, slices) for bad in some]

    def _decode(self, record: Encoded) -> np.ndarray:
        content = record.content
        if isinstance(content, Path):
            try:
                content = read_regular(content)
            except OSError as error:
                if error.errno not in OF_ONE_FILE:
                    raise
                raise BadImage(error.strerror) from error
        elif not isinstance(content, bytes):
            content = content.read()
        size = {"reduced": self.reduced, "max_pixels": self.max_pixels}
        return decode_image(content, self.resolution, self.channels, **size)

    def _note_bad(self, index: int, name: str, problem: BadImage) -> None:
        """Counts a bad record, or raises where bad records are errors."""
        if not self._skip:
            raise UserError(
                f"{name} is no readable image ({problem}); {self._let_in(problem)}repair or remove "
                f"it, or pass {self.wording.skip} to {self.wording.skip_does}"
            )
        with self._lock:
            if index in self._bad:
                return
            self._bad[index] = name
            count = len(self._bad)
        if count <= LOGGED_BAD_RECORDS:
            last = "; further ones are only counted" if count == LOGGED_BAD_RECORDS else ""
            let_in = self._let_in(problem).rstrip(", ")
            hint = f": {let_in}" if let_in else ""
            logger.warning("%s is no readable image (%s), skipped%s%s", name, problem, hint, last)

    def _let_in(self, problem: BadImage) -> str:
        """How an image that is too large is read nevertheless; '' for another problem."""
        if problem.pixels is None or not self.wording.max_pixels:
            return ""
        return f"give {self.wording.max_pixels.format(problem.pixels)} if it is meant, "

    def _replacement(self, index: int, label: int) -> np.ndarray:
        """The first readable image of a class after a bad one."""
        of_class = 1
        for other, record in self._others_of_class(index, label):
            if self.held_out is not None and self.held_out[other] != self.held_out[index]:
                continue  # what takes the place of a training image is one, too
            of_class += 1
            if other in self._bad:
                continue
            try:
                image = self._decode(record)
            except BadImage as error:
                self._note_bad(other, record.name, error)
                continue
            with self._lock:
                self._replacements[index] = other
            return image
        named = 0 <= label < self.num_classes
        name = shown(self.class_names[label]) if named else str(label)
        count = f"all of its {of_class} images are" if of_class > 1 else "its only image is"
        raise UserError(
            f"{self.spec}: class {name!r} has no readable image ({count} unreadable): repair one, "
            "or take the class out of the data"
        )
