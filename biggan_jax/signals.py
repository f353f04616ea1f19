"""Ctrl-C and SIGTERM as a request to stop at the next step."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 75  # unfinished: launchers start the run again


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """A context in which SIGTERM ends the process, except inside a `StopRequest`.

    For what comes before the first step, where there is nothing to save.
    """

    def handle(number: int, frame) -> None:
        # Not an exception: raised inside a callback of a library it would be lost.
        os.write(2, b"biggan: terminated; the same command continues\n")
        os._exit(EXIT_TERMINATED)

    if not handlers_allowed():
        yield
        return
    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def handlers_allowed() -> bool:
    """Whether this thread may set handlers: Python lets the main thread alone do so."""
    return threading.current_thread() is threading.main_thread()


class StopRequest:
    """A context in which the first SIGINT or SIGTERM asks for a clean stop, and a second one
    insists.

    Outside the main thread it changes nothing: signals stay with whoever runs that thread.

    Attributes:
      exit_code: None until a signal came; then 130 (SIGINT) or 75 (SIGTERM).
    """

    def __init__(self):
        self.exit_code: int | None = None
        self._previous: dict = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM) if handlers_allowed() else ():
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *unused) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.exit_code is not None:
            raise KeyboardInterrupt
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED
