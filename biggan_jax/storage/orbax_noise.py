"""What Orbax's threads print about an error that the caller gets as an exception anyway.

A save that fails (a full disk) raises once, in `Checkpoints.save` or `wait`. Before that every
thread behind it logs the error with its traceback and dies of it, which Python prints again: up to
a thousand lines in front of the one that says what to do.
"""

import logging
import sys
import threading

_LOGGERS = ("absl", "concurrent.futures", "asyncio")


def silence() -> None:
    """Keeps these lines off stderr from now on; everything else is printed as before."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _not_echo not in logger.filters:
            logger.addFilter(_not_echo)
    global _previous_thread_hook, _previous_unraisable_hook
    if threading.excepthook is not _thread_hook:
        _previous_thread_hook, threading.excepthook = threading.excepthook, _thread_hook
    if sys.unraisablehook is not _unraisable_hook:
        _previous_unraisable_hook, sys.unraisablehook = sys.unraisablehook, _unraisable_hook


def _not_echo(record: logging.LogRecord) -> bool:
    """False for a record that repeats an error of Orbax's or of an event loop it has closed."""
    if record.levelno < logging.ERROR:
        return True
    if record.exc_info and _of_a_closed_loop(record.exc_info[1]):
        return False
    # The record's own path is absl's, where absl was imported after its logger had been made.
    frame = sys._getframe()
    while frame is not None and "/orbax/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is None


def _of_a_closed_loop(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "Event loop is closed" in str(error)


def _thread_hook(args: threading.ExceptHookArgs) -> None:
    if not type(args.thread).__module__.startswith("orbax."):
        _previous_thread_hook(args)


def _unraisable_hook(args) -> None:
    # TensorStore's own threads end here when they report a write to a loop that is closed by then.
    if not _of_a_closed_loop(args.exc_value):
        _previous_unraisable_hook(args)


_previous_thread_hook, _previous_unraisable_hook = threading.excepthook, sys.unraisablehook
