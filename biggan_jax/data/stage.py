"""Files of a bucket on a local disk: fetched by threads, checked, kept for the next start.

A file takes its name when all of it is there and right, so that a process that is killed leaves
nothing wrong behind, and the next one fetches only what is missing.
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.data.record_info import AGAIN
from biggan_jax.data.source import one_line
from biggan_jax.data.stage_progress import GIGABYTE, File, Progress
from biggan_jax.errors import UserError

THREADS = 16  # a bucket sends so many objects at once that one thread would not fill a network
THREAD = "staging"  # the name of each
STALL_SECONDS = 60.0  # without a byte, after which a file is asked for once more
BLOCK_BYTES = 1 << 20
_UNFINISHED = ".unfinished"
_URGENT = -1  # before all that was asked for in advance


class Stage:
    """Copies of some files of a folder.

    Args:
      origin: the folder, a path object; in a bucket or local.
      files: of it, by their numbers.
      folder: local; files of other data may lie in it under other names.
      limit_gb: of all files that are wanted, in 10**9 bytes; None for what the disk has.
      remedy: what to do about a file that the bucket does not have, or another one.
    """

    def __init__(
        self,
        origin: Any,
        files: Sequence[File],
        folder: Path,
        limit_gb: float | None = None,
        remedy: str = f"put the file there that `biggan prepare` wrote, or {AGAIN}",
    ):
        self._origin, self._files = origin, files
        self.folder = folder = folder.expanduser().absolute()
        self._limit_gb, self._remedy = limit_gb, remedy
        self._lock = threading.Lock()
        self._done: dict[int, concurrent.futures.Future] = {}
        self._moved: dict[int, float] = {}  # when a byte of a file came last
        self._waiting: queue.PriorityQueue = queue.PriorityQueue()
        self._order = itertools.count()
        self._failed: Exception | None = None
        self._threads = 0
        self._progress = Progress()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made to stage data in ({error.strerror}): set data.stage to a "
                "folder of a local disk"
            ) from error
        _remove_remains(folder)

    def want(self, numbers: Sequence[int], *, tell: bool = False) -> None:
        """Begins to fetch some files, in the order given; returns at once.

        Args:
          numbers: of the files.
          tell: whether stderr gets a line of progress.

        Raises:
          UserError: they do not fit into the limit or on the disk.
        """
        numbers = [n for n in map(int, numbers) if not self._is_there(n)]
        if not numbers:
            return
        self._check_room({*numbers, *self._done})
        if tell:
            self._progress.begin(self._origin, self.folder, [self._files[n] for n in numbers])
        for number in numbers:
            self._ask(number, next(self._order))
        self._start_threads()

    def wait(self, numbers: Sequence[int]) -> None:
        """Returns when some files are there; those that nobody wanted yet are fetched first.

        Raises:
          UserError: a file is missing, damaged or does not come, one of these or one that was
            wanted in advance.
          OSError: the local disk fails.
        """
        missing = [n for n in map(int, numbers) if not self._is_there(n)]
        for number in missing:
            self._ask(number, _URGENT)
        self._start_threads()
        for number in missing:
            self._wait_for(number)

    def _is_there(self, number: int) -> bool:
        done = self._done.get(number)
        return done is not None and done.done() and done.exception() is None

    def _ask(self, number: int, priority: int) -> None:
        with self._lock:
            self._done.setdefault(number, concurrent.futures.Future())
        self._waiting.put((priority, next(self._order), number))

    def _start_threads(self) -> None:
        with self._lock:
            new = min(THREADS, self._threads + self._waiting.qsize()) - self._threads
            self._threads += max(0, new)
        for _ in range(new):
            threading.Thread(target=self._work, name=THREAD, daemon=True).start()

    def _work(self) -> None:
        """Fetches what is waiting until nothing is."""
        while True:
            with self._lock:
                try:
                    *_, number = self._waiting.get_nowait()
                except queue.Empty:
                    self._threads -= 1
                    return
                asked_twice = number in self._moved
                self._moved.setdefault(number, time.monotonic())
            if not asked_twice:
                self._fetch(number)

    def _wait_for(self, number: int) -> None:
        done, stalls = self._done[number], 0
        while True:
            if self._failed is not None:
                raise self._failed
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return done.result(timeout=min(1.0, STALL_SECONDS))
            since = time.monotonic() - self._moved.get(number, time.monotonic())
            if since < STALL_SECONDS:
                continue
            stalls += 1
            if stalls == buckets.ATTEMPTS:
                raise UserError(
                    f"{self._origin / self._files[number].name} sent no byte for "
                    f"{STALL_SECONDS:g} s, asked {stalls} times: is the bucket in reach and near "
                    "this machine? Start again to go on with what is staged"
                )
            self._moved[number] = time.monotonic()
            threading.Thread(target=self._fetch, args=(number,), name=THREAD, daemon=True).start()

    def _fetch(self, number: int) -> None:
        """Fetches a file, with some attempts, and says so to whoever waits for it."""
        file, done = self._files[number], self._done[number]
        try:
            if not self._is_right(file):
                self._try(number, file)
            self._progress.file(file)
        except Exception as error:
            self._failed = self._failed or error
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                done.set_exception(error)
            return
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # a second one was faster
            done.set_result(None)

    def _is_right(self, file: File) -> bool:
        """Whether a file is there already, from an earlier start."""
        path = self.folder / file.name
        try:
            if file.size not in (None, path.stat().st_size):
                return False
            with open(path, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        return file.sha256 in (None, found)

    def _try(self, number: int, file: File) -> None:
        path = self._origin / file.name
        for attempt in itertools.count(1):
            fresh = self.folder / f".{file.name}.{uuid.uuid4().hex}{_UNFINISHED}"
            try:
                problem = self._copy(number, path, fresh, file)
                if problem is None:
                    fresh.replace(self.folder / file.name)
                    return
            finally:
                fresh.unlink(missing_ok=True)
            refused = buckets.is_refused(problem)
            if refused or attempt == buckets.ATTEMPTS:
                times = "" if attempt == 1 else f", {attempt} times"
                remedy = buckets.MAY_READ if refused else self._remedy
                raise UserError(f"{path} cannot be staged ({one_line(problem)}{times}): {remedy}")
            self._progress.retries += 1
            buckets.pause(attempt - 1)

    def _copy(self, number: int, path: Any, fresh: Path, file: File) -> Exception | None:
        """Copies a file; what was wrong with what the bucket sent.

        Raises:
          OSError: the local disk is full or fails, which another attempt would not mend.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with _local(fresh):
                # Unbuffered: a full disk is met by a write, and not once more by the close.
                target = open(fresh, "wb", buffering=0)  # noqa: SIM115
            with target:
                for block in _blocks(path):
                    with _local(fresh):
                        _write(target, block)
                    digest.update(block)
                    size += len(block)
                    self._moved[number] = time.monotonic()
                    self._progress.bytes(len(block))
        except _Local as error:
            raise error.args[0] from None
        except Exception as error:  # a bucket's library raises what it likes
            self._progress.bytes(-size)
            return error
        problem = None
        if file.size not in (None, size):
            problem = OSError(f"{size:,} bytes, not {file.size:,}")
        elif file.sha256 not in (None, digest.hexdigest()):
            problem = OSError("another digest than info.json has")
        if problem is not None:
            self._progress.bytes(-size)
        return problem

    def _check_room(self, numbers: set[int]) -> None:
        """Refuses files that do not fit, before any is fetched."""
        sizes = {n: self._files[n].size or 0 for n in numbers}
        total = sum(sizes.values()) / GIGABYTE
        if self._limit_gb is not None and total > self._limit_gb:
            raise UserError(
                f"this process reads {total:.3g} GB of {self._origin}, and data.stage_gb is "
                f"{self._limit_gb:g}: set data.stage_gb={_up(total)}, or start more processes, "
                "each of which stages its own lanes alone"
            )
        there = [n for n in sizes if (self.folder / self._files[n].name).exists()]
        missing = total - sum(sizes[n] for n in there) / GIGABYTE
        free = shutil.disk_usage(self.folder).free / GIGABYTE
        if missing > free:
            raise UserError(
                f"{missing:.3g} GB of {self._origin} are still to be staged in {self.folder}, and "
                f"{free:.3g} GB are free there: set data.stage to a folder of another disk, or "
                "remove what is staged there of other data"
            )


class _Local(Exception):
    """Holds an error of the local disk, which is none of the bucket's."""


@contextlib.contextmanager
def _local(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"cannot write {path.parent}: {error.strerror}; set data.stage to a folder "
        raise _Local(OSError(error.errno, text + "of another disk")) from error


def _write(target: Any, block: bytes) -> None:
    """Writes all of it: a disk that has some room left takes a part first."""
    rest = memoryview(block)
    while rest:
        rest = rest[target.write(rest) :]


def _blocks(path: Any) -> Iterator[bytes]:
    """The bytes of a file, in parts."""
    with buckets.bucket_errors(path), path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block


def _remove_remains(folder: Path) -> None:
    """Removes what killed processes left behind, and nothing that another is writing now."""
    before = time.time() - 2 * STALL_SECONDS
    for path in folder.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                os.unlink(path)


def _up(gigabytes: float) -> float:
    """Rounded up to one place, so that advice is enough."""
    return -(-gigabytes * 10 // 1) / 10
