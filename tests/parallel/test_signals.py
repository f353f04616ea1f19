"""Requests to stop."""

import gc
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from biggan_jax.parallel import signals
from tests import runs


def test_the_first_signal_asks_and_the_second_insists():
    before = signal.getsignal(signal.SIGTERM)
    with signals.StopRequest() as stop:
        assert stop.exit_code is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 75
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_in_a_callback_of_the_garbage_collection_is_not_lost(capfd):
    seen = []

    def callback(phase, info):
        if not seen:
            seen.append(phase)
            signal.raise_signal(signal.SIGINT)

    before = sys.unraisablehook
    gc.callbacks.append(callback)
    start = time.monotonic()
    try:
        with signals.answered_at_once(), pytest.raises(KeyboardInterrupt):
            gc.collect()
            assert seen == ["start"]  # Python has dropped the exception
            time.sleep(20)
    finally:
        gc.callbacks.remove(callback)
    assert time.monotonic() - start < 10 and sys.unraisablehook is before
    # In a process of many objects the collection takes longer than an answer may.
    assert capfd.readouterr().err in ("", f"biggan: {signals.WAITING}\n")


def test_ctrl_c_that_is_dropped_several_times_is_not_lost():
    """Each of the first three answers falls into a callback, where Python drops it."""
    dropped = []

    class Dropping:
        def __del__(self):
            dropped.append(1)
            signal.raise_signal(signal.SIGINT)

    start = time.monotonic()
    with signals.answered_at_once(), pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            Dropping()
            while signals._listener.answered.is_set():  # until Python has dropped it
                time.sleep(0.001)
        time.sleep(20)
    assert time.monotonic() - start < 10 and dropped


def test_ctrl_c_while_an_earlier_one_is_dropped_is_sent_again():
    listener = signals._Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "_listener", listener)
        listener.dropping = True
        assert signals._interrupt(signal.SIGINT, None) is None  # it would be lost in the hook
        assert not listener.answered.is_set()
        listener.dropping = False
        with pytest.raises(KeyboardInterrupt):
            signals._interrupt(signal.SIGINT, None)
        assert signals._interrupt(signal.SIGINT, None) is None


def test_outside_the_main_thread_signals_are_left_alone():
    """Training runs there too, as in a notebook's or a server's worker."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    def work():
        with signals.exit_on_sigterm(), signals.StopRequest() as stop:
            seen.append(stop.exit_code)
            seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, before]


def test_one_signal_sent_twice_is_one(monkeypatch):
    """`timeout` signals a process and its group; a person who asks again does so later."""
    with signals.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.due(0) and stop.exit_code == 75
        monkeypatch.setattr(signals, "ONE_STOP_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_closed_terminal_asks_once_and_never_insists():
    """The terminal and the shell both say it, and a session that ends says SIGTERM beside it."""
    before = signal.getsignal(signal.SIGHUP)
    with signals.exit_on_sigterm(), signals.StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert stop.due(0) and stop.exit_code == 75
        stop._first = signal.SIGHUP, time.monotonic() - 60
        signal.raise_signal(signal.SIGHUP)  # long after
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.exit_on_sigterm(), signals.StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.due(0)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


IN_A_TERMINAL = """
import pathlib, sys, time
from biggan_jax.parallel import signals, terminal
closed = pathlib.Path(sys.argv[1] + ".closed")
with terminal.survived(), signals.exit_on_sigterm(), signals.StopRequest() as stop:
    end = time.monotonic() + 20
    while not stop.due(0) and not closed.exists() and time.monotonic() < end:
        print("step", file=sys.stderr, flush=True)
        time.sleep(0.001)
    print("stopped", flush=True)
    print("saving", file=sys.stderr, flush=True)
    pathlib.Path(sys.argv[1]).write_text("saved")
sys.exit(stop.exit_code or 0)
"""


@pytest.mark.full
@pytest.mark.parametrize(("how", "code"), [("closed", 75), ("piped", 75), ("disowned", 0)])
def test_a_run_whose_terminal_is_closed_saves(tmp_path, how, code):
    """What it says afterwards is an error of the terminal, or of the command behind a pipe."""
    saved = tmp_path / "saved"
    number, descriptor = pty.fork()
    if number == 0:
        try:
            if how == "disowned":
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            command = [sys.executable, "-c", IN_A_TERMINAL, str(saved), how]
            if how == "piped":
                both = f"{shlex.join(command)} 2>&1 | head -c 100000 >/dev/null & wait %1"
                command = ["bash", "-c", f"set -o pipefail; {both}; exit $?"]
            os.chdir(runs.ROOT)
            os.execv(shutil.which(command[0]), command)
        finally:
            os._exit(99)
    if how == "piped":
        time.sleep(1.0)
    else:
        assert os.read(descriptor, 4) == b"step"
    os.close(descriptor)
    if how == "disowned":
        time.sleep(0.1)  # it says something to nobody
        (tmp_path / "saved.closed").touch()
    _, status = os.waitpid(number, 0)
    assert how == "piped" or os.waitstatus_to_exitcode(status) == code
    deadline = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert saved.exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_several_processes_stop_at_the_step_they_agree_on(number, code):
    """SIGTERM is left to JAX; Ctrl-C and SIGHUP go to JAX as a SIGTERM."""
    handed_on = []
    before = signal.signal(signal.SIGTERM, lambda *_: handed_on.append(1))
    try:
        with signals.StopRequest(agreed=lambda step: step == 3) as stop:
            assert not stop.due(1)
            signal.raise_signal(number)
            assert handed_on == [1]
            assert not stop.due(2) and stop.exit_code is None
            assert stop.due(3) and stop.exit_code == code
            assert stop.due(4)
    finally:
        signal.signal(signal.SIGTERM, before)


# Nothing between two instructions of Python here, as while XLA compiles.
COMPILES = """
import hashlib
from biggan_jax import cli
from biggan_jax.cli import train
from biggan_jax.parallel import ending, signals

def run(args, overrides):
    with signals.exit_on_sigterm(), ending.first(lambda: "step 4 is saved in w"):
        print("compiling", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

train.run = run
cli.main(["train", "--config=digits", "--workdir=w"])
"""


@pytest.fixture
def compiling():
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILES],
        cwd=runs.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "compiling\n"
    time.sleep(0.5)  # for the few instructions of Python before it
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_while_the_compiler_runs(compiling):
    """One line at once; the second ends the process without the teardown that crashes."""
    compiling.send_signal(signal.SIGINT)
    start = time.monotonic()
    compiling.send_signal(signal.SIGINT)  # of a program that signals the group as well
    assert compiling.stderr.readline() == f"biggan: {signals.WAITING}\n"
    assert time.monotonic() - start < 5 and compiling.poll() is None
    compiling.send_signal(signal.SIGINT)
    assert compiling.wait(10) == 130
    assert compiling.stderr.read() == f"biggan: {signals.AT_ONCE}; step 4 is saved in w\n"


def test_sigterm_while_the_compiler_runs(compiling):
    compiling.send_signal(signal.SIGTERM)
    assert compiling.wait(10) == 75
    told = "terminated; the same command continues; step 4 is saved in w"
    assert compiling.stderr.read() == f"biggan: {told}\n"


def test_handlers_are_as_before_behind_a_command(capfd):
    before = signal.getsignal(signal.SIGINT)
    with signals.answered_at_once():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with signals.StopRequest(follows="the step is saved") as stop:
            assert stop.exit_code is None
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
    with signals.StopRequest(follows="the step is saved") as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == 130
    assert capfd.readouterr().err == "biggan: the step is saved\n"
