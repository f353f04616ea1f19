"""A terminal that was closed while a run goes on: nothing that is said may end the run."""

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from typing import TextIO

_STANDARD = (0, 1, 2)


@contextlib.contextmanager
def survived() -> Iterator[None]:
    """A context in which what Python says to a terminal that was closed is lost, without an error.

    `leave` alone is too late for what is being said while the terminal closes, and for a run that
    no SIGHUP tells of it, as one that was disowned.
    """
    before = sys.stdout, sys.stderr
    own = tuple(_surviving(stream) for stream in before)
    sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        for name, old, new in zip(("stdout", "stderr"), before, own, strict=True):
            if new is not old:
                new.flush()
                if getattr(sys, name) is new:  # else somebody else's, who puts it back
                    setattr(sys, name, old)


def _surviving(stream: TextIO | None) -> TextIO | None:
    """A stream that writes where this one does, if that is a terminal; else this one."""
    try:
        number = stream.fileno()
        if not os.isatty(number):
            return stream
        stream.flush()
    except (AttributeError, OSError, ValueError):  # none, replaced, closed
        return stream
    raw = io.BufferedWriter(_Surviving(number, "w", closefd=False))
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)


class _Surviving(io.FileIO):
    """A file of a terminal; once that is closed, nothing."""

    def write(self, data) -> int | None:
        try:
            return super().write(data)
        except OSError:
            leave()
            return super().write(data)  # to nowhere; any other error comes again


def leave(*, with_pipes: bool = False) -> None:
    """Lets the standard streams of a closed terminal lead nowhere; live ones stay as they are.

    A write to a closed terminal is an error, and a run would end with it instead of a checkpoint.

    Args:
      with_pipes: those behind which the commands of a closed terminal are, such as `| tee log`, go
        too: they are about to end.
    """
    kinds = {number: _kind(number) for number in _STANDARD}
    dead = [number for number, kind in kinds.items() if kind is not None and _is_dead(number)]
    if not with_pipes:
        dead = [number for number in dead if kinds[number] == "terminal"]
    elif dead:
        dead += [number for number, kind in kinds.items() if kind == "pipe" and number not in dead]
    for number in dead:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.close(nowhere)


def _kind(number: int) -> str | None:
    """'terminal' or 'pipe'; None for a file, a closed descriptor and what never ends."""
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return None
    if stat.S_ISCHR(mode):
        return "terminal"
    return "pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _is_dead(number: int) -> bool:
    """Whether nobody is at the other end: `isatty` no longer knows a closed terminal."""
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
