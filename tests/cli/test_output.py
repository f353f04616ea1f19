"""How every command ends: help, versions, and one JSON object whatever happens."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from biggan_jax import cli, errors
from biggan_jax.cli import options
from biggan_jax.config import carried, config_file
from tests import runs


def test_alone_it_prints_help(capsys):
    assert cli.main([]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.startswith("usage: biggan")
    assert "train a GAN" in captured.out
    assert cli.main(["train", "--help"]) == 0
    assert "--allow-change" in capsys.readouterr().out


def test_version(capsys):
    import jax

    from biggan_jax import __version__

    assert cli.main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"biggan_jax {__version__} (jax {jax.__version__}, Python 3.")
    assert cli.main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["biggan_jax"] == __version__


def test_packaged_configs(capsys, tmp_path, monkeypatch):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("digits ")][0].split()[1] == "16"
    assert cli.main(["configs", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["configs"]}
    assert len(found) == len(lines) and found["biggan512"]["resolution"] == 512
    assert cli.main(["configs", "show", "digits"]) == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(capsys.readouterr().out)
    assert (tmp_path / "mine.py").read_bytes() == Path(runs.DIGITS).read_bytes()
    assert config_file.load("mine.py", []) == config_file.load("digits", [])
    assert cli.main(["configs", "show", "digitz", "--json"]) == 2
    assert "did you mean 'digits'" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--json"], 0, None),
        (["train", "--help"], 0, None),
        (["frobnicate"], 2, "unknown command 'frobnicate'"),
        (["sample"], 2, "required: --from, --out"),
        (["sample", "--from", "d", "--out", "x.png", "--per-class", "few"], 2, "'few'"),
        (["sample", "--from", "d", "--out", "x.png", "--per-classs", "3"], 2, "'--per-class'"),
        (["look", "bn", "--from", "d", "--out", "x.png"], 2, "d is no workdir"),
        (["inspect", "--config", "digits", "--config.model.chh=3"], 2, "'model.ch'"),
        (["configs", "shw"], 2, "did you mean 'show'"),
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_an_error_is_one_json_object(capsys, monkeypatch, tmp_path, argv, code, words, place):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--json", *argv] if place == "before" else [*argv, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1 and captured.out.endswith("\n")
    result = json.loads(captured.out)
    if words is None:
        assert result["help"].startswith("usage: biggan")
        return
    assert result.keys() == {"error", "exit_code"} and result["exit_code"] == code
    assert words in result["error"] and captured.err == f"biggan: {result['error']}\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "w"), 1, "[Errno 28] No space left on device: 'w'"),
        pytest.param(
            FloatingPointError("d_loss is nan"), 1, "d_loss is nan", marks=pytest.mark.full
        ),
        (TypeError("no\nsuch"), 1, "TypeError: no such"),
        pytest.param(RuntimeError(), 1, "RuntimeError:", marks=pytest.mark.full),
    ],
)
def test_whatever_stops_a_command_is_one_json_object(capsys, monkeypatch, error, code, text):
    def stop(*_, **__):
        print("a library's words")
        raise error

    monkeypatch.setattr(options, "load_config", stop)
    argv = ["inspect", "--config", runs.DIGITS]
    assert cli.main([*argv, "--json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": text, "exit_code": code}
    assert captured.out.count("\n") == 1 and "a library's words" in captured.err
    unexpected = not isinstance(error, errors.EXPECTED)
    assert ("Traceback" in captured.err) == unexpected
    if unexpected:  # without --json it stays an exception
        with pytest.raises(type(error)):
            cli.main(argv)


def test_a_terminal_of_another_encoding(monkeypatch):
    """Names of other scripts are escapes there, and no traceback."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(carried, "text", lambda name: "# 猫\n")
    assert cli.main(["configs", "show", "digits"]) == 0
    assert stdout.buffer.getvalue() == b"# \\u732b\n"


def test_a_variable_that_jax_does_not_understand():
    process = subprocess.run(
        [sys.executable, "-m", "biggan_jax", "inspect", "--config=digits"],
        env=os.environ | {"JAX_LOG_COMPILES": "many"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2 and process.stdout == ""
    assert "'many' for environment 'JAX_LOG_COMPILES': correct" in process.stderr
    assert process.stderr.count("\n") == 1 and process.stderr.startswith("biggan: ")


def test_empty_data_are_not_those_of_the_training(trained, capsys):
    assert cli.main(["evaluate", "--from", str(trained), "--data", ""]) == 2
    runs.assert_one_error(capsys.readouterr(), "--data='': it is empty; write digits")


def test_stdout_that_takes_nothing(capsys, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    for stdout, words in ((None, "stdout is closed"), (Full(), "No space left on device")):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["configs", "--json"]) == 1
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_json_of_a_process():
    """SIGTERM before the first step; what C++ prints on descriptor 1 goes to stderr."""
    code = (
        "import os, signal, sys\n"
        "from biggan_jax import cli\n"
        "from biggan_jax.cli import options\n"
        "def stop(*_, **__):\n"
        "    os.write(1, b'words of a C++ library\\n')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "options.load_config = stop\n"
        "sys.exit(cli.main(['train', '--config=digits', '--workdir=w', '--json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == errors.EXIT_TERMINATED == 75 and signal.SIGTERM == 15
    line = "terminated; the same command continues"
    assert done.stdout == json.dumps({"error": line, "exit_code": 75}) + os.linesep
    assert done.stderr == f"words of a C++ library\nbiggan: {line}\n"


def test_numbers_of_options_and_counts(trained, tmp_path, capsys):
    """1e0 is one, one sample is no samples, and a slash behind a folder is not doubled."""
    argv = ["sample", "--from", f"{trained}/", "--classes=3", f"--out={tmp_path}/x.png"]
    assert cli.main([*argv, "--per-class=1e0"]) == 0
    assert capsys.readouterr().out.startswith("1 sample in ")
    assert runs.train(f"{trained}/") == 0
    assert f"samples in {trained}/samples\n" in capsys.readouterr().out
