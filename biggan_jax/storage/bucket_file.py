"""A file in a bucket that grows: it is written as a whole, since objects cannot be appended to."""

import math
import time
from typing import Any

from biggan_jax.data import buckets


class BucketFile:
    """What was written so far, kept in memory, and what of it has been uploaded.

    Args:
      path: of the object, an `etils.epath.Path`; what it holds already is kept.
      upload_seconds: the least time between two uploads by `flush`: a bucket takes one write a
        second of an object.
    """

    def __init__(self, path: Any, upload_seconds: float):
        self._path, self._upload_seconds = path, upload_seconds
        with buckets.bucket_errors(path):
            self._data = bytearray(path.read_bytes() if path.exists() else b"")
        self._pending, self._uploaded = False, -math.inf

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self._data)

    def write(self, content: str | bytes) -> None:
        self._data += content.encode() if isinstance(content, str) else content
        self._pending = True

    def flush(self) -> None:
        """Uploads unless that has just been done."""
        if time.monotonic() - self._uploaded >= self._upload_seconds:
            self.upload()

    def upload(self) -> None:
        if self._pending:
            buckets.write_bytes(self._path, bytes(self._data))
            self._pending, self._uploaded = False, time.monotonic()

    def close(self) -> None:
        self.upload()
