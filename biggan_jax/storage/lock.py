"""The lock of a workdir: one training run at a time, on one machine or on several.

Every run that wants to train writes a file of its own, `WORKDIR/lock/<random name>.json` with host
and process, and then looks for others. One that sees a living other withdraws. Names are never used
twice, so removing what a dead run left can be done by anybody at any time, and nothing here needs
more than what a bucket has too: an object that appears whole, a list, a removal.

Who is dead? On the same machine the process tells: it has gone, or another one started later has
its number. In containers every run may be process 1, and host names may be anything: so 'the same
machine' means the same boot of the same kernel and the same pid namespace. Everybody else is heard:
a run renews its file every `BEAT_SECONDS`, and is dead after `SILENT_SECONDS` without a new one, by
the watch of who waits, since the clocks of two hosts may differ.
"""

import contextlib
import itertools
import json
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.errors import UserError
from biggan_jax.parallel import ending, processes
from biggan_jax.storage import json_file, paths, running

FOLDER = "lock"
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
POLL_SECONDS = 1.0
WITHDRAWN_SECONDS = 0.5  # at most, until the next try of two that came at the same instant

_own: set[str] = set()  # names of the files of this process


# What a refusal says: the folder's state, what its owner does, what to do about it.
TRAINING = (
    "is in use",
    "training there",
    "stop it (`kill {pid}` on {host}; it saves), or choose another --workdir",
)


@contextlib.contextmanager
def held(workdir: str | os.PathLike, words: tuple[str, str, str] = TRAINING) -> Iterator["Lock"]:
    """A context in which no other run trains in a workdir; all processes of a run enter it.

    Process 0 holds the lock for all of them. Nothing but the lock is written before it is there.

    Args:
      workdir: of the run, or another folder with one owner at a time; created when missing, and
        removed again when nothing else came.
      words: what a refusal says, as `TRAINING`.

    Raises:
      UserError: another run is training there.
      OSError: the workdir cannot be written.
    """
    lock = Lock(workdir, words)
    with contextlib.ExitStack() as stack:
        processes.together(lambda: stack.enter_context(lock.taken()) if processes.is_main() else 0)
        yield lock


def is_held(workdir: str | os.PathLike) -> bool:
    """Whether a run trains in a workdir, or may do so on another host; nothing is waited for."""
    claims = _claims(paths.workdir_path(workdir) / FOLDER)
    return any(_lives(_parsed(_read(path)), path.name) is not False for path in claims)


class Lock:
    """One run's claim of a workdir.

    Args:
      workdir: of the run.
      words: see `held`.
    """

    def __init__(self, workdir: str | os.PathLike, words: tuple[str, str, str] = TRAINING):
        self._words = words
        self._workdir = paths.workdir_path(workdir)
        self._folder = self._workdir / FOLDER
        self._path = self._folder / f"{uuid.uuid4().hex}.json"
        self._record = running.this_process()
        self._lost = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """A context in which this process holds the lock, and renews it."""
        if not paths.is_remote(self._folder):
            _check_folders(self._folder)
        fresh = not self._workdir.exists()
        over = threading.Event()
        with contextlib.ExitStack() as stack:
            stack.callback(self._clear, fresh)
            stack.enter_context(ending.first(lambda: self._clear(fresh)))
            self._take()
            beats = threading.Thread(target=self._beat, args=(over,), daemon=True)
            beats.start()
            stack.callback(beats.join, 2 * POLL_SECONDS)  # its disk may not answer
            stack.callback(over.set)
            yield

    def check(self) -> None:
        """Raises OSError where another run has taken over since this one seemed to be dead."""
        if self._lost:
            raise OSError(
                f"{self._workdir} was taken over by another run, since this one was silent for "
                f"more than {SILENT_SECONDS:g} s (was it suspended?): nothing more is written"
            )

    def _take(self) -> None:
        while True:
            for path in _claims(self._folder):
                self._refuse_or_remove(path)
            _own.add(self._path.name)
            paths.write_bytes(self._path, _text(self._record, 0))
            if all(path.name == self._path.name for path in _claims(self._folder)):
                return
            # Another one came at the same instant, and may have seen this one: both withdraw.
            self._remove()
            time.sleep(random.uniform(WITHDRAWN_SECONDS / 10, WITHDRAWN_SECONDS))

    def _refuse_or_remove(self, path: Any) -> None:
        """Returns when a claim has gone, or its owner is dead; UserError when it lives."""
        text = _read(path)
        owner = _parsed(text)
        alive = _lives(owner, path.name)
        if alive is None:
            alive = self._is_renewed(path, text, owner)
        if not alive:
            _unlink(path)
            return
        age = _age(owner)
        pid, host = owner.get("pid", "unknown"), owner.get("host", "another host")
        state, doing, remedy = self._words
        raise UserError(
            f"{self._workdir} {state}: process {pid} on {host} has been {doing} for {age}: "
            + remedy.format(pid=pid, host=host)
        )

    def _is_renewed(self, path: Any, text: bytes | None, owner: dict) -> bool:
        """Listens to an owner whose process cannot be seen from here."""
        if text is None:
            return False
        print(
            f"{self._workdir} was locked by process {owner.get('pid', 'unknown')} on "
            f"{owner.get('host', 'another host')} {_age(owner)} ago: waiting "
            f"{SILENT_SECONDS:g} s for a sign of life",
            file=sys.stderr,
            flush=True,
        )
        end = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < end:
            time.sleep(min(POLL_SECONDS, SILENT_SECONDS))
            now = _read(path)
            if now != text:
                return now is not None
        print("there is none: the lock is taken over", file=sys.stderr, flush=True)
        return False

    def _beat(self, over: threading.Event) -> None:
        for number in itertools.count(1):
            if over.wait(BEAT_SECONDS):
                return
            try:
                _overwrite(self._path, _text(self._record, number))
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:
                continue  # a full or unreachable disk ends a run where it matters

    def _remove(self) -> None:
        try:
            _unlink(self._path)
        finally:
            _own.discard(self._path.name)

    def _clear(self, fresh: bool) -> None:
        """Gives the lock back, and leaves no empty folder behind."""
        self._remove()
        if not paths.is_remote(self._folder):
            with contextlib.suppress(OSError):  # others are there
                self._folder.rmdir()
                if fresh:
                    self._workdir.rmdir()


def _check_folders(folder: Path) -> None:
    """Raises UserError where a file, a pipe or a dangling link lies in the place of a folder."""
    for at in (folder, *folder.parents):
        if os.path.lexists(at) and not at.is_dir():
            kept = "remove it" if at == folder else "choose another --workdir"
            raise UserError(f"{at} is no folder: {kept}")


def _claims(folder: Any) -> list[Any]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _text(record: dict, beat: int) -> bytes:
    """Of the same length for every beat, so that it is renewed in place."""
    return (json.dumps(record | {"beat": f"{beat:012d}"}) + "\n").encode()


def _read(path: Any) -> bytes | None:
    try:
        with buckets.bucket_errors(path):
            return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(text: bytes | None) -> dict:
    try:
        record = json_file.parse(text or b"{}")
    except ValueError:
        record = {}
    return record if isinstance(record, dict) else {}


def _overwrite(path: Any, data: bytes) -> None:
    """Renews a file, and never makes it anew: who removed it has taken over."""
    if paths.is_remote(path):
        if _read(path) is None:
            raise FileNotFoundError(path)
        paths.write_bytes(path, data)
        return
    with open(path, "r+b") as file:
        file.write(data)


def _unlink(path: Any) -> None:
    with contextlib.suppress(FileNotFoundError), buckets.bucket_errors(path):
        path.unlink()


def _age(owner: dict) -> str:
    """How long ago a claim was made, by the clocks of two hosts."""
    try:
        seconds = max(0, round(time.time() - owner["since"]))
    except (KeyError, TypeError, OverflowError):
        return "an unknown time"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _lives(owner: dict, name: str) -> bool | None:
    """Whether the process of a claim is there; None where that cannot be seen from here."""
    machine = running.machine()
    if machine is None or owner.get("machine") != machine:
        return None
    pid = owner.get("pid")
    if pid == os.getpid():
        return name in _own  # or an earlier process had this number
    if not isinstance(pid, int) or pid < 1:
        return None
    started = running.started(pid)
    # Processes of other users may be hidden.
    return None if started == "" != owner.get("started") else started == owner.get("started")
