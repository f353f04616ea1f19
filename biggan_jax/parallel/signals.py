"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP): an answer, and a stop at the next step."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from biggan_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from biggan_jax.parallel import ending, terminal

ONE_STOP_SECONDS = 1.0
AGAIN_SECONDS = 0.2  # between two Ctrl-C of a person; that of a program may come twice at once
ANSWER_SECONDS = 0.5  # for Python to answer by itself
WAITING = (
    "interrupted: waiting for the compiler, or for the step that runs; Ctrl-C again ends at once"
)
RETRY_SECONDS = 0.02
STOPS = (signal.SIGTERM, signal.SIGHUP)  # what asks for an end from outside
AT_ONCE = "interrupted again, so ended at once"


class _Listener:
    """What is known of the Ctrl-C that came inside `answered_at_once`.

    Attributes:
      first: when the first one came, by the monotonic clock.
      answered: Python has seen it, and whoever handles it says what follows.
      resent: how often it was sent again that has not been heard yet.
      dropping: Python is dropping the exception, and another one now would be lost with it.
      drops: how often it did; the newest thread alone sends it again.
    """

    def __init__(self):
        self.first: float | None = None
        self.answered = threading.Event()
        self.resent = 0
        self.dropping = False
        self.drops = 0

    def send_again(self, drop: int) -> None:
        """Sends Ctrl-C again, and again after `RETRY_SECONDS`, until it is answered or dropped."""
        while not self.answered.wait(RETRY_SECONDS):
            if _listener is not self or self.drops != drop:  # the command has ended since
                return
            self.resent += 1
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def listen(self, reader: int) -> None:
        """Reads the numbers of signals until the other end of the pipe is closed."""
        with os.fdopen(reader, "rb", buffering=0) as stream:
            while number := stream.read(1):
                self._hear(number[0])

    def _hear(self, number: int) -> None:
        if number in STOPS and signal.getsignal(number) is _terminate:
            _terminate(number, None)
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self.resent:  # no second Ctrl-C, but the first one once more
            self.resent -= 1
            return
        if self.first is None:
            self.first = now
            threading.Thread(target=self._say_what_is_waited_for, daemon=True).start()
        elif now - self.first >= AGAIN_SECONDS:
            ending.at_once(EXIT_INTERRUPTED, AT_ONCE)

    def _say_what_is_waited_for(self) -> None:
        if not self.answered.wait(ANSWER_SECONDS):
            print(f"biggan: {WAITING}", file=sys.stderr, flush=True)


_listener: _Listener | None = None  # of the main thread


@contextlib.contextmanager
def answered_at_once() -> Iterator[None]:
    """A context in which Ctrl-C is answered at once, and a second one ends the process at once.

    Python runs its handlers between two instructions of the main thread, and the next one may be
    minutes away while XLA compiles. But the interpreter writes to its wakeup descriptor when the
    signal comes: a thread reads there, says what is being waited for, and at the second Ctrl-C ends
    the process, without the teardown that would crash in what still runs.
    """
    global _listener
    if not handlers_allowed():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before, _listener = _listener, _Listener()
    threading.Thread(target=_listener.listen, args=(reader,), daemon=True).start()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, _raised_again(sys.unraisablehook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGINT, handler)
        os.close(writer)  # ends the listener
        _listener = before


def _interrupt(number: int, frame) -> None:
    """Python's own handler, but for the second signal, which is the listener's."""
    if _listener is not None:
        if _listener.answered.is_set() or _listener.dropping:
            return
        _listener.answered.set()
    raise KeyboardInterrupt


def _raised_again(otherwise: Callable) -> Callable:
    """A `sys.unraisablehook` that does not lose Ctrl-C.

    Python drops an exception inside a destructor or a callback of its garbage collection, where JAX
    has one, with a traceback on stderr: the command would go on to its end.
    """

    def hook(unraisable) -> None:
        listener = _listener
        if listener is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            otherwise(unraisable)
            return
        listener.dropping = True
        listener.answered.clear()
        listener.drops += 1
        threading.Thread(target=listener.send_again, args=(listener.drops,), daemon=True).start()
        listener.dropping = False

    return hook


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP end the process, except inside a `StopRequest`.

    For what comes before the first step, where there is nothing to save. Once
    `jax.distributed.initialize` was called SIGTERM is JAX's, and waits for the first step.
    """
    previous = {number: signal.signal(number, _terminate) for number in _taken(STOPS)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _taken(numbers: Sequence[int]) -> list[int]:
    """The signals that are ours to handle: what `nohup` ignores stays ignored."""
    if not handlers_allowed():
        return []
    hung_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [number for number in numbers if number != signal.SIGHUP or hung_up]


def _terminate(number: int, frame) -> None:
    # Not an exception: raised inside a callback of a library it would be lost.
    ending.at_once(EXIT_TERMINATED, "terminated; the same command continues")


def handlers_allowed() -> bool:
    """Whether this thread may set handlers: Python lets the main thread alone do so."""
    return threading.current_thread() is threading.main_thread()


class StopRequest:
    """A context in which the first SIGINT, SIGTERM or SIGHUP asks for a clean stop, and a second
    one insists.

    The same signal once more a moment later does not: `timeout` and some schedulers signal a
    process and then its group. SIGHUP never insists: a shell passes it on that its own terminal
    has sent already. Outside the main thread signals stay with whoever runs that thread.

    Args:
      agreed: for a run of several processes, `multihost_utils.reached_preemption_sync_point`: all
        processes, each of which must call `due` for every step, stop at the same one. SIGTERM is
        JAX's there, and the others are handed on as SIGTERM.
      follows: what a person is told at the first Ctrl-C; None for nothing.

    Attributes:
      exit_code: None until the stop is due; then 130 (SIGINT) or 75 (SIGTERM, SIGHUP, or a signal
        to another process).
    """

    def __init__(self, agreed: Callable[[int], bool] | None = None, follows: str | None = None):
        self.exit_code: int | None = None
        self._agreed, self._follows = agreed, follows
        self._first: tuple[int, float] | None = None  # signal, when it came
        self._previous: dict = {}

    def __enter__(self) -> "StopRequest":
        own = [signal.SIGINT, signal.SIGHUP]
        for number in _taken([*own, signal.SIGTERM] if self._agreed is None else own):
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
            self.exit_code = self._code()
        return self.exit_code is not None

    def _handle(self, number: int, frame) -> None:
        if number == signal.SIGHUP:
            terminal.leave(with_pipes=True)
        now = time.monotonic()
        if self._first is not None:
            first, then = self._first
            apart = AGAIN_SECONDS if number == signal.SIGINT else ONE_STOP_SECONDS
            again = first in (number, signal.SIGHUP)
            if number == signal.SIGHUP or (again and now - then < apart):
                return
            if _listener is not None and number == first == signal.SIGINT:
                return  # the listener's, which ends the process
            raise KeyboardInterrupt
        self._first = number, now
        if number == signal.SIGINT:
            self._say_what_follows()
        if self._agreed is not None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.exit_code = self._code()

    def _code(self) -> int:
        interrupted = self._first is not None and self._first[0] == signal.SIGINT
        return EXIT_INTERRUPTED if interrupted else EXIT_TERMINATED

    def _say_what_follows(self) -> None:
        if _listener is not None:
            _listener.answered.set()
        if self._follows is not None:
            # print may be what was interrupted
            os.write(2, f"biggan: {self._follows}\n".encode())
