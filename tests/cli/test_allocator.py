"""Settings of glibc: a command that starts again with them, once."""

import json
import os
import subprocess
import sys

import pytest

from biggan_jax.cli import allocator


class Replaced(Exception):
    """Stands for the process that takes over."""


@pytest.fixture
def started(monkeypatch):
    """What the process is replaced by, on a system where that helps."""
    calls = []
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/biggan", "train"])
    monkeypatch.delenv(allocator.VARIABLE, raising=False)

    def execve(path, argv, environment):
        calls.append((path, argv, environment))
        raise Replaced

    monkeypatch.setattr(os, "execve", execve)
    return calls


def test_a_command_starts_again_with_its_arguments(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/biggan_jax/__main__.py", "train"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "biggan_jax", "train"])
    monkeypatch.setenv(allocator.VARIABLE, "glibc.malloc.check=0:glibc.malloc.top_pad=4096")
    with pytest.raises(Replaced):
        allocator.ask()
    ((path, argv, environment),) = started
    assert path == sys.executable and argv == [sys.executable, "-m", "biggan_jax", "train"]
    found = environment[allocator.VARIABLE]
    assert found == (  # the user's own values first, and kept
        "glibc.malloc.check=0:glibc.malloc.top_pad=4096:glibc.malloc.hugetlb=1:"
        "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456"
    )
    monkeypatch.setenv(allocator.VARIABLE, found)
    allocator.ask()  # the one that took over goes on
    assert len(started) == 1


@pytest.mark.parametrize("reason", ["off", "old", "other", "stdin", "script"])
def test_a_command_goes_on_where_it_does_not_help(reason, started, monkeypatch):
    if reason == "off":
        monkeypatch.setenv(allocator.VARIABLE, "glibc.malloc.hugetlb=0")
    elif reason == "old":
        monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.31")
    elif reason == "other":
        monkeypatch.setattr(os, "confstr", lambda name: None)
    else:  # what was read from stdin could not be read again
        name = {"stdin": "-", "script": "/home/me/__main__.py"}[reason]
        monkeypatch.setattr(sys, "argv", [name, "train"])
    allocator.ask()
    assert not started


def test_with_json_the_one_that_takes_over_prints_on_stdout():
    """Not on stderr, to which `--json` sends what others print."""
    script = (
        "import os, sys\n"
        "from biggan_jax import cli\n"
        "os.confstr = lambda name: 'glibc 2.36'\n"
        "sys.argv = ['biggan', 'bench', '--json', '--config', 'nosuch']\n"
        "execute = os.execve\n"
        "os.execve = lambda path, argv, env: execute('/bin/echo', ['echo', 'taken over'], env)\n"
        "if sys.stdin.read():\n"
        "    os.execve = lambda *_: (_ for _ in ()).throw(OSError())\n"
        "sys.exit(cli.main())\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != allocator.VARIABLE}

    def run(stdin: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", script], input=stdin, capture_output=True, text=True,
            env=environment, check=False,
        )  # fmt: skip

    assert run("").stdout == "taken over\n"
    refused = run("it cannot be executed")  # then the command goes on, and so does its stdout
    assert refused.returncode == 2 and json.loads(refused.stdout)["exit_code"] == 2
    assert "nosuch" in refused.stderr
