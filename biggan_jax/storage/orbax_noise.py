"""What Orbax's threads print about an error that the caller gets as an exception anyway.

A save that fails (a full disk) raises once, in `Checkpoints.save` or `wait`. Before that every
thread behind it logs the error with its traceback and dies of it, which Python prints again: up to
a thousand lines in front of the one that says what to do. Behind a read that failed, others go on
and complain when they end.
"""

import contextlib
import gc
import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from biggan_jax.errors import UserError

QUIET_SECONDS = 0.1  # without another echo: then none is waited for
LONGEST_SECONDS = 2.0
_LOGGERS = ("absl", "concurrent.futures", "asyncio")


class _State:
    """The silence of this process: one set of hooks, however many ask for it."""

    lock = threading.Lock()
    users = 0
    last_echo = -LONGEST_SECONDS
    undo = contextlib.ExitStack()


@contextlib.contextmanager
def logging_untouched() -> Iterator[None]:
    """A context in which nobody sets up logging behind the back of whoever imports us.

    absl's log functions, which Orbax and others call at their import and at every save, give the
    root logger a handler where it has none; a later `logging.basicConfig` of the user then does
    nothing. Inside, Python's handler of last resort stands there: what is printed is the same.
    """
    root, stand_in = logging.getLogger(), logging.lastResort
    if root.handlers or stand_in is None:
        yield
        return
    root.addHandler(stand_in)
    try:
        yield
    finally:
        root.removeHandler(stand_in)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """A context in which these lines are kept off stderr; everything else is printed as before.

    It may be nested. Behind the outermost one the hooks and filters of the process are as before.
    """
    with _State.lock:
        _State.users += 1
        if _State.users == 1:
            _install(_State.undo)
    failed = False
    try:
        yield
    except Exception as error:
        failed = _noted(not isinstance(error, UserError))  # its echoes are still to come
        raise
    finally:
        # Threads that are still complaining fall silent first, and so does what they left behind.
        deadline = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < min(deadline, _State.last_echo + QUIET_SECONDS):
            time.sleep(QUIET_SECONDS / 10)
        if failed:
            gc.collect()
        with _State.lock:
            _State.users -= 1
            if not _State.users:
                _State.undo.close()


def drop_coroutines(error: BaseException) -> None:
    """Drops what a failed write has left unawaited, which Python would warn of.

    Args:
      error: the failure; the frames of its traceback lose their variables.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        gc.collect()


def _install(undo: contextlib.ExitStack) -> None:
    undo.enter_context(logging_untouched())
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
        undo.callback(logging.getLogger(name).removeFilter, _is_news)
    _hook(threading, "excepthook", _of_orbax, undo)
    _hook(sys, "unraisablehook", lambda args: _of_abandoned_work(args.exc_value), undo)


def _hook(module: Any, name: str, is_echo: Callable, undo: contextlib.ExitStack) -> None:
    """Puts a hook in front of the one of the process."""
    previous = getattr(module, name)

    def hook(args: Any) -> None:
        if not (_State.users and _noted(is_echo(args))):
            previous(args)

    def restore() -> None:
        # Somebody else's hook that came meanwhile stays, and may go on calling this one.
        if getattr(module, name) is hook:
            setattr(module, name, previous)

    setattr(module, name, hook)
    undo.callback(restore)


def _noted(is_echo: bool) -> bool:
    if is_echo:
        _State.last_echo = time.monotonic()
    return is_echo


def _is_news(record: logging.LogRecord) -> bool:
    """False for a record that repeats an error of Orbax's or of an event loop it has closed."""
    # The record's own path is absl's, where absl was imported after its logger had been made.
    if record.name == "absl" and ("/orbax/" in record.pathname or _comes_from_orbax()):
        return False  # what of it is an error is raised too
    if record.name == "asyncio" and "orbax" in record.getMessage():
        return False
    if record.levelno < logging.ERROR:
        return True
    if record.exc_info and _of_abandoned_work(record.exc_info[1]):
        return not _noted(True)
    return not _comes_from_orbax()


def _comes_from_orbax() -> bool:
    frame = sys._getframe()
    while frame is not None and "/orbax/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def _of_orbax(args: threading.ExceptHookArgs) -> bool:
    return type(args.thread).__module__.startswith("orbax.")


def _of_abandoned_work(error: BaseException | None) -> bool:
    # TensorStore's own threads end so when they report to a loop that is closed by then.
    if isinstance(error, RuntimeError) and "Event loop is closed" in str(error):
        return True
    return str(error).startswith("Encountered error while reading array")
