"""Where a run may live: paths as people write them, and folders that hold other things."""

import argparse
import json
import os
import re
import shlex
import shutil

import pytest

from biggan_jax import cli
from biggan_jax.errors import UserError
from biggan_jax.storage import checkpoint, paths
from biggan_jax.training import workdir
from tests import runs

PATHS = {
    "train": ("--workdir",),
    "sample": ("--from", "--out"),
    "look attention": ("--from", "--out", "--images"),
    "look bn": ("--from", "--out"),
    "evaluate": ("--from", "--reference", "--inception", "--out", "--cache"),
    "report": ("--from", "--out"),
    "inspect": ("--from",),
    "bench": ("--profile", "--table"),
    "prepare": ("--out",),
    "import": ("--out",),
    "export": ("--from", "--out"),
}
NEEDED = {
    "train": ("--config=digits", "--workdir=w"),
    "sample": ("--from=d", "--out=a.png"),
    "look attention": ("--from=d", "--out=a.png"),
    "look bn": ("--from=d", "--out=a.png"),
    "evaluate": ("--from=d",),
    "report": ("--from=d",),
    "prepare": ("--source=digits", "--resolution=8", "--out=p"),
    "import": ("--format=biggan-jax", "--out=d", "file"),
    "export": ("--from=d", "--out=f"),
}


@pytest.mark.parametrize(("command", "option"), [(c, o) for c, all in PATHS.items() for o in all])
def test_every_path_of_a_command(command, option, monkeypatch):
    """`~` is the home folder, also behind `=`, where no shell expands it; '' is refused."""
    monkeypatch.setenv("HOME", "/home/me")
    given = [text for text in NEEDED.get(command, ()) if not text.startswith(f"{option}=")]
    args = cli.parser().parse_args([*command.split(), *given, f"{option}=~/x"])
    name = "source" if option == "--from" else option.lstrip("-")
    value = getattr(args, name)
    assert str(value[0] if option == "--images" else value) == "/home/me/x"
    with pytest.raises(UserError, match=f"{option}: a path is empty: give a folder"):
        cli.parser().parse_args([*command.split(), *given, f"{option}="])


def test_no_path_is_taken_as_a_word(monkeypatch):
    """A new option that names a folder or file takes it by `options.path` or `type=Path`."""
    monkeypatch.setenv("HOME", "/home/me")
    kinds = re.compile(r"\b(DIR|FOLDER|PATH|F|F\.\w+|A\.json|SOURCE)\b")
    parsers, seen = [cli.parser()], 0
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                parsers.extend(action.choices.values())
                continue
            metavar = action.metavar
            text = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
            if kinds.search(text) and "PATTERN" not in text:
                take = parser._registry_get("type", action.type, action.type)
                assert str(take("~/x")) == "/home/me/x", (parser.prog, action.dest)
                with pytest.raises(argparse.ArgumentTypeError, match="a path is empty"):
                    take("")
                seen += 1
    assert seen > 15


def test_paths_of_the_python_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.absolute("~/x") == tmp_path / "x"
    assert paths.same("~/x", tmp_path / "x")
    assert paths.cache_folder("~/x") == tmp_path / "x" / "cache"
    assert os.fspath(checkpoint.Checkpoints("~/x").directory) == str(tmp_path / "x")
    for text in ("", " "):
        with pytest.raises(UserError, match="a path is empty"):
            paths.workdir_path(text)
    with pytest.raises(UserError, match="~nobody-here/x: .*home directory: write the whole path"):
        paths.workdir_path("~nobody-here/x")


def test_a_workdir_in_the_home_folder(run_copy, monkeypatch, tmp_path, capsys):
    """Trained, and the source of another run and of samples: nothing is named `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert runs.train("~/run", "--config.num_steps=4") == 0
    assert f"resuming {tmp_path}/run after step 4 of 4" in capsys.readouterr().err
    assert runs.train("~/run", "--config.init_from=~/run", "--config.num_steps=4") == 2
    assert cli.main(["sample", "--from=~/run", "--out=~/a.png", "--per-class=1"]) == 0
    assert (tmp_path / "a.png").is_file() and not (tmp_path / "~").exists()
    capsys.readouterr()
    assert runs.train("") == 2
    runs.assert_one_error(capsys.readouterr(), "--workdir: a path is empty")


@pytest.mark.parametrize("new", ["photos/", "thesis.tex", "config.json", "setup.cfg"])
def test_a_folder_that_holds_other_things(tmp_path, monkeypatch, capsys, new):
    """A home folder, a checkout, another program's folder: refused, and the advice works."""
    (tmp_path / "notes.txt").write_text("mine")
    if new.endswith("/"):
        (tmp_path / new).mkdir()
    else:
        (tmp_path / new).write_text('{"name": "theirs"}')
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert runs.train(".", "--config.num_steps=0") == 2  # the settings first
    assert "num_steps" in capsys.readouterr().err
    assert runs.train(".") == 2
    line = capsys.readouterr().err
    assert f"holds other things ({new.rstrip('/')})" in line and len(line.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
    (advice,) = shlex.split(re.search("`(.+?)`", line)[1])
    workdir.check_place(paths.absolute(advice.removeprefix("--workdir=")))


def test_folders_that_are_taken(tmp_path, trained):
    """Empty, with logs of a scheduler, with a config of ours, and every earlier workdir."""
    (tmp_path / "empty").mkdir()
    logs = tmp_path / "logs"
    (logs / ".git").mkdir(parents=True)
    for name in ("slurm-7.out", "log", "pid", "lock", "notes.md", "config.py", ".DS_Store"):
        (logs / name).write_text("")
    old = shutil.copytree(trained, tmp_path / "old")
    (old / "figures").mkdir()
    before = tmp_path / "nothing saved yet"
    before.mkdir()
    shutil.copy(trained / "config.json", before)
    (before / "figures").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty", logs, old, before):
        workdir.check_place(folder)
    with pytest.raises(UserError, match="is a file: give a folder"):
        workdir.check_place(before / "config.json")


def test_a_model_directory_is_no_workdir(tmp_path):
    """Its config would be that of the run, and its weights could no longer be read."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"model": {"ch": 4}}))
    with pytest.raises(UserError, match=f"model directory.*`--config.init_from={tmp_path}`"):
        workdir.check_place(tmp_path)
