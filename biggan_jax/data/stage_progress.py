"""What is to be staged, where to, and how far that is."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from biggan_jax.data.wording import Wording
from biggan_jax.errors import UserError

GIGABYTE = 10**9


class File(NamedTuple):
    """A file of the bucket.

    Attributes:
      name: in its folder.
      size: in bytes; None where it is not known.
      sha256: of its bytes; None where it is not known.
    """

    name: str
    size: int | None = None
    sha256: str | None = None


class NotStaged(UserError):
    """Data in a bucket, and no folder to copy them to.

    Args:
      folder: in the bucket.
      then: what to do after copying it by hand.
    """

    def __init__(self, folder: Any, then: str):
        super().__init__(f"{folder} is in a bucket, and data are read from a disk")
        self._folder, self._then = folder, then

    def worded(self, words: Wording) -> UserError:
        """The same with what to do under the command at hand."""
        if words.stage:
            setting = words.stage.format("FOLDER")
            return UserError(f"{self}: set {setting}, to which they are copied")
        return UserError(
            f"{self}: copy them by `gcloud storage cp -r {self._folder} .` and {self._then}"
        )


class Progress:
    """How far staging is: a bar on a terminal, and a line at the beginning and the end."""

    def __init__(self):
        self.retries = 0
        self._names: set[str] = set()
        self._bar, self._lock = None, threading.Lock()

    def begin(self, origin: Any, folder: Path, files: Sequence[File]) -> None:
        """Says what is to be done."""
        from tqdm import tqdm

        self._start = time.monotonic()
        self._names = {file.name for file in files}
        self._size = sum(file.size or 0 for file in files)
        self._what = f"{len(self._names):,} files ({self._size / GIGABYTE:.3g} GB)"
        print(f"staging {self._what} of {origin} in {folder}", file=sys.stderr)
        self._bar = tqdm(
            total=self._size, unit="B", unit_scale=True, desc="staging", disable=None, leave=False
        )

    def bytes(self, count: int) -> None:
        """Counts bytes that came."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(count)

    def file(self, file: File) -> None:
        """Counts a file that is there."""
        with self._lock:
            if file.name not in self._names:
                return
            self._names.remove(file.name)
            if self._names or self._bar is None:
                return
            self._bar.close()
        seconds = time.monotonic() - self._start
        again = f", {self.retries:,} of them asked for again" if self.retries else ""
        print(f"staged {self._what} in {seconds:.1f} s{again}", file=sys.stderr)
