"""Ctrl-C and SIGTERM as a request to stop at the next step."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from biggan_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from biggan_jax.parallel import ending

ONE_STOP_SECONDS = 1.0


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """A context in which SIGTERM ends the process, except inside a `StopRequest`.

    For what comes before the first step, where there is nothing to save. Once
    `jax.distributed.initialize` was called SIGTERM is JAX's, and waits for the first step.
    """

    def handle(number: int, frame) -> None:
        # Not an exception: raised inside a callback of a library it would be lost.
        ending.at_once(EXIT_TERMINATED, "terminated; the same command continues")

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

    The same signal once more within a second does not: `timeout` and some schedulers signal a
    process and then its group. Outside the main thread signals stay with whoever runs that thread.

    Args:
      agreed: for a run of several processes, `multihost_utils.reached_preemption_sync_point`: all
        processes, each of which must call `due` for every step, stop at the same one. SIGTERM is
        JAX's there, and SIGINT is handed on as SIGTERM.

    Attributes:
      exit_code: None until the stop is due; then 130 (SIGINT) or 75 (SIGTERM, or a signal to
        another process).
    """

    def __init__(self, agreed: Callable[[int], bool] | None = None):
        self.exit_code: int | None = None
        self._agreed = agreed
        self._first: tuple[int, float] | None = None  # signal, when it came
        self._previous: dict = {}

    def __enter__(self) -> "StopRequest":
        own = (signal.SIGINT, signal.SIGTERM) if self._agreed is None else (signal.SIGINT,)
        for number in own if handlers_allowed() else ():
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *unused) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def due(self, step: int) -> bool:
        """Whether to stop before the next step.

        Args:
          step: the number of finished steps.

        Returns:
          True from then on.
        """
        if self._agreed is not None and self.exit_code is None and self._agreed(step):
            self.exit_code = EXIT_TERMINATED if self._first is None else EXIT_INTERRUPTED
        return self.exit_code is not None

    def _handle(self, number: int, frame) -> None:
        now = time.monotonic()
        if self._first is not None:
            first, then = self._first
            if number == first and now - then < ONE_STOP_SECONDS:
                return
            raise KeyboardInterrupt
        self._first = number, now
        if self._agreed is not None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED
