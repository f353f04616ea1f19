"""`biggan report`: what it prints, its exit codes, and what a full disk leaves."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biggan_jax import cli
from biggan_jax.evaluation import run_sessions
from biggan_jax.pictures import curves
from biggan_jax.storage import paths
from tests import runs
from tests.evaluation import made_run
from tests.storage.test_paths import URL, bucket, google  # noqa: F401 (fixtures)


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Nothing is compiled here."""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Plots without curves: the pages are looked at in tests/evaluation."""
    monkeypatch.setattr(curves, "svg", lambda *args, **kwargs: "<svg></svg>")


def report(*options) -> int:
    return cli.main(["report", *map(str, options)])


def test_the_page_is_in_the_workdir_or_where_it_was_asked_for(tmp_path, capsys):
    run = made_run.make(tmp_path / "run")
    assert report(f"--from={run}") == 0
    captured = capsys.readouterr()
    assert captured.out == f"Finished all 8 steps.\n{run}/report/index.html\n"
    assert captured.err == "" and (run / "report" / "index.html").is_file()
    out = tmp_path / "new" / "page.html"
    (run / "metrics.jsonl").write_text('{"step": 4, "d_loss": 1.0}\noops\n')
    assert report("--json", "--from", run, "--out", out) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == {
        "out": str(out),
        "verdict": "Came to step 4 of 8; why it went no further is not recorded.",
        "state": "unknown",
        "step": 4,
        "notes": ["metrics.jsonl, line 2: it is no JSON; it is left out"],
    }
    assert captured.out.count("\n") == 1 and out.read_text().startswith("<!DOCTYPE html>")
    assert "note: metrics.jsonl, line 2" in captured.err


def test_what_is_no_workdir_is_refused_in_one_line(tmp_path, capsys):
    run = made_run.make(tmp_path / "run")
    (tmp_path / "model" / "weights").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text((run / "config.json").read_text())
    for options, words in (
        ([f"--from={tmp_path}/none"], "no such directory"),
        ([f"--from={tmp_path}"], "holds .*run.*: give one of them"),
        ([f"--from={tmp_path}/model"], "model directory.*keeps no history"),
        ([f"--from={run}", f"--out={tmp_path}/page.png"], "name it F.html"),
        ([f"--from={run}", "--out="], "path is empty"),
        ([f"--from={run}", "--config.seed=1"], "takes no settings"),
        ([], "--from"),
    ):
        assert report(*options) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    (tmp_path / "folder.html").mkdir()
    assert report(f"--from={run}", f"--out={tmp_path}/folder.html") == 2
    runs.assert_one_error(capsys.readouterr(), "is a folder: name a file in it")
    (tmp_path / "file").write_text("")
    assert report(f"--from={run}", f"--out={tmp_path}/file/page.html") == 2
    runs.assert_one_error(capsys.readouterr(), "cannot be written .*: name another folder")
    assert not (run / "report").exists()


def test_a_full_disk_leaves_the_page_of_before(tmp_path, capsys, monkeypatch):
    run = made_run.make(tmp_path / "run")
    assert report(f"--from={run}") == 0
    before = (run / "report" / "index.html").read_bytes()
    capsys.readouterr()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (run / "metrics.jsonl").write_text("")
    monkeypatch.setattr(os, "fsync", full)
    assert report(f"--from={run}", "--json") == 1
    runs.assert_one_error(capsys.readouterr(), str(run), "No space left", "--out F.html writes")
    assert (run / "report" / "index.html").read_bytes() == before
    assert [p.name for p in (run / "report").iterdir()] == ["index.html"]


def test_an_installed_package_carries_the_template(tmp_path):
    pytest.importorskip("setuptools")
    build = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path}"]
    subprocess.run(build, cwd=runs.ROOT, check=True, capture_output=True)
    place = Path("biggan_jax", "evaluation", "templates", "run_page.html")
    assert (tmp_path / place).read_bytes() == (runs.ROOT / place).read_bytes()


def test_a_workdir_in_a_bucket(bucket, tmp_path, capsys):  # noqa: F811
    run = made_run.rolled_back(tmp_path / "gs" / "bucket" / "run")
    run_sessions.begin(paths.workdir_path(URL), 0, "TPU v4", ["data"])
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + "oops\n")
    assert report(f"--from={URL}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == f"{URL}/report/index.html" and found["state"] == "killed"
    assert found["notes"] == ["metrics.jsonl, line 18: it is no JSON; it is left out"]
    page = (run / "report" / "index.html").read_text()
    assert page.count("<img") == 8 and "TPU v4" in page
    assert report(f"--from={URL}", f"--out={tmp_path}/here.html") == 0
    assert (tmp_path / "here.html").read_text() == page
    assert report("--from=gs://bucket/none") == 2
    assert "no such directory" in capsys.readouterr().err
