"""Only what repeats an error that `Checkpoints` raises is kept off stderr."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import types
import warnings

import jax
import pytest

import biggan_jax
from biggan_jax.storage import orbax_noise
from biggan_jax.storage.checkpoint import Checkpoints
from tests import runs
from tests.small_state import target_of


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
    with orbax_noise.silenced(), orbax_noise.silenced():  # twice does no more than once
        yield seen
    for name in orbax_noise._LOGGERS:
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


def process_state() -> dict:
    """What of this process a library has no business to change."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "filters": {x.name: list(x.filters) for x in loggers if x.filters},
        "warnings": list(warnings.filters),
    }


@pytest.mark.full
def test_all_is_as_before_after_failed_reads_and_saves(tmp_path, monkeypatch, capfd):
    arrays = {f"a{i}": jax.random.normal(jax.random.key(i), (64, 64)) for i in range(20)}
    checkpoints = Checkpoints(tmp_path / "checkpoints", async_save=False)
    for step in (1, 2):
        checkpoints.save(step, arrays, {})
    checkpoints.close()
    before = process_state()
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)
    for _ in range(2):
        assert checkpoints.restore(target_of(arrays), on_warning=lambda _: None)[2] == 1
        assert process_state() == before
    (tmp_path / "file").write_text("")
    for asynchronous in (True, False):
        unwritable = Checkpoints(tmp_path / "file" / "x", async_save=asynchronous)
        with pytest.raises(NotADirectoryError):
            unwritable.save(1, arrays, {})
            unwritable.wait()
        assert process_state() == before
    assert checkpoints.save(3, arrays, {}) and process_state()["hooks"] != before["hooks"]
    checkpoints.close()
    assert process_state() == before
    gc.collect()
    assert capfd.readouterr().err == ""


def test_hooks_of_others_that_came_meanwhile_stay(printed, monkeypatch):
    """Theirs calls the one it found, ours: no circle, and it stays."""
    for _ in range(3):
        with orbax_noise.silenced():
            found = sys.unraisablehook
            monkeypatch.setattr(sys, "unraisablehook", lambda args, found=found: found(args))
            theirs = sys.unraisablehook
        assert sys.unraisablehook is theirs
    theirs(types.SimpleNamespace(exc_value=ValueError("a")))
    assert printed == ["a"]


def test_words_of_orbax_below_an_error_are_kept_off_too(printed):
    """Also where absl was imported after its logger: the record's path is absl's own then."""
    in_orbax(lambda: logging.getLogger("absl").warning("Requested `tracked_metric`"))
    logging.getLogger("absl").warning("of somebody else")
    assert printed == ["of somebody else"]


IMPORTED = """
import logging, os, signal, sys, threading, warnings
import jax

def look():
    return {
        "handlers": list(logging.root.handlers),
        "level": logging.root.level,
        "environment": dict(os.environ),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "filters": list(warnings.filters),
        "warnings": warnings.showwarning,
        "jax": dict(jax.config.values),
    }

import absl.logging, flax, optax
before = look()
assert not before["handlers"]
import biggan_jax
biggan_jax.load_generator, biggan_jax.train, biggan_jax.evaluate
from biggan_jax.storage import checkpoint
after = look()
assert after == before, [name for name in before if before[name] != after[name]]
logging.basicConfig(level=logging.INFO, format="mine: %(message)s")
logging.info("heard")
"""


def test_an_import_leaves_the_program_as_it_was():
    """absl sets up logging at its first line; the `basicConfig` of a user then does nothing."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=runs.ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "mine: heard\n")


def test_reading_a_checkpoint_sets_up_no_logging(trained, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    biggan_jax.load_generator(trained)
    biggan_jax.load_discriminator(trained)
    assert logging.root.handlers == []
