"""Ctrl-C and SIGTERM as a request to stop at the next step."""

import contextlib
import signal
from collections.abc import Iterator

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 75  # unfinished: launchers start the run again


class Terminated(BaseException):
    """SIGTERM came outside a `StopRequest`, where there is nothing to save."""


@contextlib.contextmanager
def raising_terminated() -> Iterator[None]:
    """A context in which SIGTERM raises `Terminated`, except inside a `StopRequest`."""

    def handle(number: int, frame) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class StopRequest:
    """A context in which the first SIGINT or SIGTERM asks for a clean stop, and a second one
    insists.

    Attributes:
      exit_code: None until a signal came; then 130 (SIGINT) or 75 (SIGTERM).
    """

    def __init__(self):
        self.exit_code: int | None = None
        self._previous: dict = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *unused) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.exit_code is not None:
            raise KeyboardInterrupt
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED
