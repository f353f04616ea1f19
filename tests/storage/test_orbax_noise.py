"""Only what repeats an error that `Checkpoints` raises is kept off stderr."""

import asyncio
import logging
import sys
import threading

import pytest

from biggan_jax.storage import orbax_noise


@pytest.fixture
def printed(monkeypatch):
    """What still reaches the hooks and handlers that were there before."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(str(args.exc_value)))
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(str(args.exc_value)))
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    for name in orbax_noise._LOGGERS:
        logging.getLogger(name).addHandler(handler)
    orbax_noise.silence()
    orbax_noise.silence()  # twice does no more than once
    yield seen
    for name in orbax_noise._LOGGERS:
        logging.getLogger(name).removeFilter(orbax_noise._not_echo)
        logging.getLogger(name).removeHandler(handler)


def in_orbax(f):
    """`f` called from a file that lies in a folder named orbax."""
    scope = {"f": f}
    exec(compile("f()", "/somewhere/orbax/checkpoint/future.py", "exec"), scope)


def test_log_lines(printed):
    logger = logging.getLogger("asyncio")
    in_orbax(lambda: logger.error("a thread died"))
    assert not printed
    in_orbax(lambda: logger.warning("a slow save"))  # no echo of an error
    logger.error("somebody else's error")
    assert printed == ["a slow save", "somebody else's error"]


def test_callbacks_of_a_closed_loop(printed):
    loop = asyncio.new_event_loop()
    loop.close()
    for error in ("closed", "other"):
        try:
            if error == "other":
                raise RuntimeError("something else")
            loop.call_soon_threadsafe(print)
        except RuntimeError:
            logging.getLogger("concurrent.futures").exception(error)
    assert printed == ["other"]


def test_threads(printed):
    def fail():
        raise RuntimeError(threading.current_thread().name)

    class Theirs(threading.Thread):
        __module__ = "orbax.checkpoint.futures"

    for kind in (Theirs, threading.Thread):
        thread = kind(target=fail, name=kind.__name__)
        thread.start()
        thread.join()
    assert printed == ["Thread"]


def test_unraisable(printed):
    class Broken:
        def __init__(self, text):
            self.text = text

        def __del__(self):
            raise RuntimeError(self.text)

    for text in ("Event loop is closed", "other"):
        Broken(text).__del__  # noqa: B018
    assert printed == ["other"]
