"""Ends this process at once: no library that still computes is torn down, or waited for."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from biggan_jax import errors

SECONDS = 2.0  # for all that comes first; a network disk may not answer

_once = threading.Lock()
_first: list[Callable[[], str | None]] = []


@contextlib.contextmanager
def first(call: Callable[[], str | None]) -> Iterator[None]:
    """A context in which a function is called before the process ends at once.

    Args:
      call: what must not be left behind, such as a lock; it may return a line for a person.
    """
    _first.append(call)
    try:
        yield
    finally:
        _first.remove(call)


def prepare() -> list[str]:
    """Calls what has to come first, the newest first, for `SECONDS` at most.

    Returns:
      The lines for a person.
    """
    lines: list[str] = []

    def run() -> None:
        for call in reversed(list(_first)):
            with contextlib.suppress(Exception):
                lines.extend(filter(None, [call()]))

    # A thread: whatever the main thread holds, or waits for, must not hold this up for ever.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return list(lines)


def at_once(code: int, line: str) -> NoReturn:
    """Ends the process; to be called from any thread, and from a handler of a signal.

    Args:
      code: the exit code.
      line: for a person; what `first` has to say is put behind it.
    """
    if not _once.acquire(blocking=False):  # another thread, or the code that a handler interrupted
        time.sleep(2 * SECONDS)
        os._exit(code)
    text = "; ".join([line, *prepare()])
    with contextlib.suppress(OSError):
        os.write(2, f"biggan: {text}\n".encode())  # print may be what was interrupted
    for last in (lambda: errors.end_json(text, code), sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(Exception):  # in the middle of a write, or closed
            last()
    os._exit(code)
