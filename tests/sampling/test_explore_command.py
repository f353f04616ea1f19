"""`biggan explore` as a command: its address, its end, and what it cannot start with."""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
import webbrowser

import pytest

from biggan_jax import cli, sampling
from tests import runs
from tests.sampling.explored import write_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), num_classes=2, networks=("g_ema",))


def opened(monkeypatch, then):
    """What a browser is told to open; once the page has been read, `then` is called."""
    found = []

    def open_(address):
        def visit():
            with urllib.request.urlopen(address, timeout=60) as page:
                found.append((address, page.status))
            time.sleep(0.05)
            then()

        threading.Thread(target=visit).start()

    monkeypatch.setattr(webbrowser, "open", open_)
    return found


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_it_serves_until_it_is_ended(directory, monkeypatch, capsys, number, code):
    before, crashed = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    found = opened(monkeypatch, lambda: os.kill(os.getpid(), number))
    argv = ["explore", f"--from={directory}", "--port=0", "--open", "--truncation=0.5", "--json"]
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    ((address, status),) = found
    assert status == 200 and address.startswith("http://127.0.0.1:") and address in captured.err
    assert "Traceback" not in captured.err
    result = json.loads(captured.out)
    if code:
        assert result == {"error": "interrupted", "exit_code": 130}
    else:
        assert result["address"] == address and result["step"] is None
    for thread in threading.enumerate():
        if thread.name == "explore-server":
            thread.join(30)
    assert crashed == []  # as one whose port is closed before it has ended
    with pytest.raises(OSError):  # nothing listens there any more
        urllib.request.urlopen(address, timeout=5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_port_in_use(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        # Before anything is loaded: the folder does not even exist.
        assert cli.main(["explore", "--from=nowhere", f"--port={port}"]) == 2
    runs.assert_one_error(
        capsys.readouterr(), f"port {port} of 127.0.0.1 is in use: .*--port N.*--port 0"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port=65536"], "--port is 65536; it must be from 1 to 65535"),
        (["--port=-1"], "--port is -1"),
        (["--port=x"], "'x' is no whole number"),
        (["--host=192.0.2.1", "--port=0"], "--host 192.0.2.1 is no address of this machine"),
        (["--host=no such host", "--port=0"], "--host no such host is no address of this machine"),
        (["--port=0", "--truncation=0"], "truncation is 0"),
        (["--port=0", "--truncation=2000"], "truncation is 2000.* from 0.001 to 1000"),
        (["--port=0", "--seed=4294967296"], "seed is 4294967296"),
        (["--port=0", "--step=7"], "holds one state: leave out the step"),
        (["--port=0", "--bn-mode=batch"], "--bn-mode"),
        (["--port=0", "extra"], "unexpected argument 'extra'"),
        (["--prt=0"], r"unknown option '--prt' \(did you mean '--port'\?\)"),
    ],
)
def test_what_it_cannot_start_with(directory, capsys, options, words):
    assert cli.main(["explore", f"--from={directory}", *options]) == 2
    runs.assert_one_error(capsys.readouterr(), words)


def test_a_folder_without_a_model(tmp_path, capsys):
    assert cli.main(["explore", f"--from={tmp_path}", "--port=0"]) == 2
    runs.assert_one_error(capsys.readouterr(), str(tmp_path))


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra(monkeypatch, capsys, package):
    for name in [*sys.modules]:
        if name.startswith((package, "biggan_jax.sampling.explore_")):
            monkeypatch.delitem(sys.modules, name)
    for name in ("explore_app", "explore_server"):
        monkeypatch.delattr(sampling, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["explore", "--from=nowhere"]) == 2
    runs.assert_one_error(capsys.readouterr(), r"needs Starlette and uvicorn: pip install 'biggan")


def test_other_hosts_are_warned_about(directory, monkeypatch, capsys):
    found = opened(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    argv = ["explore", f"--from={directory}", "--port=0", "--open", "--host=0.0.0.0"]
    assert cli.main(argv) == 0
    assert found[0][0].startswith("http://127.0.0.1:")
    captured = capsys.readouterr()
    assert "warning: --host 0.0.0.0: whoever reaches this machine can use the page" in captured.err
    assert captured.out.count("\n") == 1 and "Ctrl-C ends it" in captured.out
