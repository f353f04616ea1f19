"""A folder of this machine as the buckets of gs://, as slow and as unreliable as one asks.

It stands behind `etils.epath`, through which biggan_jax reads and writes buckets, and in the place
of Google's client, which is asked about permissions. Tests and `simulated_pod.py` use it.
"""

import collections
import contextlib
import os
import random
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils.epath import backend, gpath

from biggan_jax.data import buckets


class Unavailable(OSError):
    """A request that failed, and may succeed when it is made again."""


class FakeBucket:
    """Every bucket of gs://, in a folder.

    Args:
      root: the folder; gs://NAME is `root/NAME`.
      latency: seconds before a request is answered.
      failures: share of the requests that fail, in [0, 1).
      bytes_per_second: of all reads together; None for as fast as the disk.
      seed: of the failures.

    Attributes:
      reads: how often each file was opened for reading, by name.
      writes: the same for writing.
      bytes_read: of all files.
      truncated: names of files whose next read ends in the middle.
      missing: names of files that are not there.
      silent: names of files whose next read waits for `woken`.
      forbidden: names of files for which the permission is lacking.
      denied: whether every request lacks the permission.
    """

    def __init__(
        self,
        root: Path,
        *,
        latency: float = 0.0,
        failures: float = 0.0,
        bytes_per_second: float | None = None,
        seed: int = 0,
    ):
        self.root, self.latency, self.failures = Path(root), latency, failures
        self.bytes_per_second = bytes_per_second
        self.reads, self.writes = collections.Counter(), collections.Counter()
        self.bytes_read = self.failed = 0
        self.truncated, self.missing, self.silent = set(), set(), set()
        self.forbidden: set[str] = set()
        self.denied, self.woken = False, threading.Event()
        self.random, self._lock = random.Random(seed), threading.Lock()
        self._free_at = 0.0  # when all that was asked for before has been sent

    def local(self, path: str | os.PathLike) -> str:
        """Where a file of the bucket lies."""
        return os.fspath(path).replace("gs://", f"{self.root}/")

    @contextlib.contextmanager
    def open(self, path: str | os.PathLike, mode: str) -> Iterator[Any]:
        """Opens an object; one that is written is there, whole, when the context ends."""
        name, local = os.path.basename(os.fspath(path)), self.local(path)
        if "r" in mode:
            self.reads[name] += 1
            self._request(name)
            with open(local, mode) as file:
                yield _Read(self, name, file) if mode == "rb" else file
            return
        assert "w" in mode, f"a bucket cannot open {path} by {mode!r}"
        self._request(name)
        self.writes[name] += 1
        os.makedirs(os.path.dirname(local), exist_ok=True)
        fresh = f"{local}.{threading.get_ident()}.{os.getpid()}~"
        try:
            with open(fresh, mode) as file:
                yield file
            os.replace(fresh, local)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)

    def __getattr__(self, name: str) -> Any:
        method = getattr(backend.os_backend, name)

        def call(path, *args, **options):
            self._request(os.path.basename(os.fspath(path)))
            args = [self.local(a) if "gs://" in str(a) else a for a in args]
            found = method(self.local(path), *args, **options)
            if name == "glob":
                return [x.replace(f"{self.root}/", "gs://") for x in found]
            return found

        return call

    def sent(self, name: str, count: int) -> int:
        """Waits as long as `count` bytes take; how many of them come."""
        if name in self.silent:
            self.silent.remove(name)
            self.woken.wait()
        with self._lock:
            self.bytes_read += count
            now = time.monotonic()
            wait = count / self.bytes_per_second if self.bytes_per_second else 0.0
            self._free_at = max(now, self._free_at) + wait
            until = self._free_at
            short = name in self.truncated
            self.truncated.discard(name)
        time.sleep(max(0.0, until - now))
        return count // 2 if short else count

    def _request(self, name: str) -> None:
        time.sleep(self.latency)
        if self.denied or name in self.forbidden:
            raise PermissionError(13, "no permission", name)
        if name in self.missing:
            raise FileNotFoundError(2, "no such object", name)
        with self._lock:
            fails = self.random.random() < self.failures
            self.failed += fails
        if fails:
            raise Unavailable(f"503 of {name}")


class _Read:
    """An object that is read; its first part may be cut short, and then nothing follows."""

    def __init__(self, bucket: FakeBucket, name: str, file: Any):
        self._bucket, self._name, self._file = bucket, name, file
        self._ended = False

    def read(self, count: int = -1) -> bytes:
        data = b"" if self._ended else self._file.read(count)
        come = self._bucket.sent(self._name, len(data)) if data else 0
        self._ended = come < len(data)
        return data[:come]


def install(bucket: FakeBucket, patch=setattr, patch_item=dict.__setitem__) -> FakeBucket:
    """Puts a bucket behind gs:// in this process.

    Args:
      bucket: it.
      patch: sets an attribute; a test gives `monkeypatch.setattr`.
      patch_item: sets an item; a test gives `monkeypatch.setitem`.

    Returns:
      The same.
    """
    patch_item(gpath._PREFIX_TO_BACKEND, "gs", bucket)
    patch(gpath, "_is_tf_installed", lambda: False)
    patch(buckets, "_has_file_system", lambda: True)
    patch_item(sys.modules, "google.cloud", types.ModuleType("google.cloud"))
    storage = types.ModuleType("google.cloud.storage")
    storage.Client = lambda: _Client(bucket)
    sys.modules["google.cloud"].storage = storage
    patch_item(sys.modules, "google.cloud.storage", storage)
    return bucket


class _Client:
    """What is asked of Google's client: which permissions an account has."""

    def __init__(self, bucket: FakeBucket):
        self._bucket, self._credentials = bucket, None

    def bucket(self, name: str) -> "_Client":
        self._name = name
        return self

    def test_iam_permissions(self, permissions: list[str], **_: Any) -> list[str]:
        if not (self._bucket.root / self._name).is_dir():
            error = LookupError("not found")
            error.code = 404
            raise error
        return [] if self._bucket.denied else permissions
