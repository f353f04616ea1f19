"""A run leaves its report however it ends, and a report that fails changes nothing else."""

import errno
import json
import signal

import pytest

from biggan_jax.evaluation import run_page, run_sessions
from biggan_jax.pictures import curves
from biggan_jax.training import loop, setup
from biggan_jax.training.progress import NonFiniteError, TrainLog
from tests import runs
from tests.evaluation.made_run import Page

REPORT = "--config.report=True"


@pytest.fixture
def undrawn(monkeypatch):
    """Plots without curves, which take longer than such a run."""
    monkeypatch.setattr(curves, "svg", lambda *args, **kwargs: "<svg></svg>")


def sessions(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / run_sessions.FILE).read_text().splitlines()]


def page(workdir) -> str:
    return Page((workdir / run_page.PLACE).read_text()).text


def test_a_run_that_finishes(tmp_path, capsys):
    assert runs.train(tmp_path, REPORT) == 0
    path = tmp_path / run_page.PLACE
    captured = capsys.readouterr()
    assert f"finished 4 steps; samples in {tmp_path}/samples; report: {path}\n" == captured.out
    start, end = sessions(tmp_path)
    assert (start["event"], start["step"], end["outcome"], end["step"]) == (
        "start",
        0,
        "finished",
        4,
    )
    assert {"biggan_jax", "jax", "python"} == start["versions"].keys()
    assert "cpu, 1 of 8 devices" in start["device"] and "1,797 images" in start["data"][0]
    text = page(tmp_path)
    assert "Finished all 4 steps." in text and "1,797 images" in text and start["device"] in text
    assert "finished" in text and len(Page(path.read_text()).plots()) >= 4
    # A page of the present: the lock of this very run does not make it one that goes on.
    assert "Training now" not in text


def test_off_means_off(trained):
    assert not (trained / "report").exists()


def test_a_run_that_meets_a_nan(tmp_path, capsys, monkeypatch, undrawn):
    read = TrainLog.read

    def fails_at_3(log, pending):
        if pending is not None and pending[0] == 3:
            pending = 3, pending[1] | {"d_loss": float("nan")}
        read(log, pending)

    monkeypatch.setattr(TrainLog, "read", fails_at_3)
    assert runs.train(tmp_path, REPORT) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("biggan: d_loss is nan at step 3: the run stops")
    assert f"report: {tmp_path / run_page.PLACE}" in error.splitlines()
    text = page(tmp_path)
    assert "Collapsed at step 3 of 4: d_loss is nan. The guard stopped the run after step 2" in text
    assert sessions(tmp_path)[-1]["outcome"] == "failed"


def test_a_run_that_is_stopped_and_goes_on(tmp_path, capsys, monkeypatch, undrawn):
    next_batch = setup.next_batch
    steps = []

    def stopped(run):
        steps.append(run)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return next_batch(run)

    monkeypatch.setattr(setup, "next_batch", stopped)
    assert runs.train(tmp_path, REPORT) == 75
    error = capsys.readouterr().err
    assert "the same command continues; report: " in error
    assert "Stopped by SIGTERM after step 3 of 4; the same command continues" in page(tmp_path)
    assert runs.train(tmp_path, REPORT) == 0
    assert [s["step"] for s in sessions(tmp_path)] == [0, 3, 3, 4]
    assert "Finished all 4 steps." in page(tmp_path)


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (KeyboardInterrupt(), False),
        (KeyError("x"), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        pytest.param(KeyboardInterrupt(), True, marks=pytest.mark.full),
        pytest.param(KeyError("x"), True, marks=pytest.mark.full),
    ],
)
def test_a_report_that_fails_is_one_warning(tmp_path, capsys, monkeypatch, error, fails):
    def broken(directory):
        raise error

    def nan(run):
        raise NonFiniteError("d_loss is nan at step 1: the run stops; repeat it")

    def done(run):
        return {"step": 4, "exit_code": 0, "images_seen": 64, "metrics": {}}

    monkeypatch.setattr(run_page, "write", broken)
    monkeypatch.setattr(loop, "_train", nan if fails else done)
    assert runs.train(tmp_path, REPORT) == int(fails)
    captured = capsys.readouterr()
    warnings = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "report of this run was not written" in warnings[0]
    assert "report:" not in captured.out and "Traceback" not in captured.err
    assert ("biggan: d_loss is nan at step 1" in captured.err) == fails


def test_a_workdir_that_is_refused_keeps_its_report(run_copy, capsys):
    assert runs.train(run_copy, REPORT, "--config.model.ch=8") == 2
    assert not (run_copy / "report").exists()
