"""Faults of a run: each ends in one line, loses nothing, and the same command goes on.

Kills, torn lines, signals and metrics that are NaN are in `test_train`, those of rollbacks in
`test_rollback`, two owners of a workdir and dead ones in `storage/test_lock`, checkpoints that are
corrupt in `storage/test_checkpoint`.
"""

import errno
import json
import os

import jax
import jax.numpy as jnp
import pytest

from biggan_jax import cli
from biggan_jax.evaluation import evaluate
from biggan_jax.storage import best, checkpoint, metric_lines, paths
from biggan_jax.training import losses, objectives
from tests import runs

SCORING = ("--config.eval_every_steps=2",)


def full(path, *_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


@pytest.fixture
def scored(monkeypatch):
    """Scoring is a table of numbers; step 4 is the best."""

    def during_training(config, source, digest, workdir):
        if config.eval_every_steps is None:
            return None
        return lambda variables, step: {"scores": {"fid": 9.0 - step}, "protocol": {"samples": 70}}

    monkeypatch.setattr(evaluate, "during_training", during_training)


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def same_as(trained, workdir) -> None:
    """The run has the state and the metrics of one that nothing happened to."""
    runs.assert_same_state(workdir, trained, 4)
    lines = [line for line in runs.metric_lines(workdir) if "d_loss" in line]
    assert lines == runs.metric_lines(trained)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        pytest.param("config.json", [], marks=pytest.mark.full),
        pytest.param("samples/real.png", [], marks=pytest.mark.full),
        pytest.param("lock/*", [], marks=pytest.mark.full),
        pytest.param("samples/step_00000004.png", [2, 4], marks=pytest.mark.full),
        pytest.param("best.new/config.json", [2], marks=pytest.mark.full),
        pytest.param("best.new/score.json", [2], marks=pytest.mark.full),
    ],
)
def test_the_disk_is_full_for_one_file(trained, tmp_path, monkeypatch, capsys, scored, name, saved):
    """Every file that a run writes beside its checkpoints and metrics."""
    workdir, write = tmp_path / "run", paths.write_bytes

    def write_bytes(path, data):
        if paths.workdir_path(path).match(f"run/{name}"):
            full(path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "write_bytes", write_bytes)
        assert runs.train(workdir, *SCORING) == 1
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert (
        last.startswith("biggan: ") and "No space left on device" in last and str(workdir) in last
    )
    assert "Traceback" not in captured.err and steps(workdir) == saved
    assert runs.train(workdir, *SCORING) == 0
    same_as(trained, workdir)
    assert best.read(workdir)["step"] == 4 and not (workdir / "lock").exists()


@pytest.mark.full
def test_the_disk_is_full_in_the_middle_of_a_line_of_metrics(
    trained, tmp_path, monkeypatch, capsys
):
    workdir, append = tmp_path / "run", metric_lines.JsonLines._append

    class Full:
        def __init__(self, file):
            self._file, self._lines = file, 0

        def write(self, text):
            self._lines += 1
            if self._lines == 3:
                self._file.write(text[:40])
                self._file.flush()
                full(self._file.name)
            self._file.write(text)

        def __getattr__(self, name):
            return getattr(self._file, name)

    with monkeypatch.context() as patch:
        patch.setattr(metric_lines.JsonLines, "_append", lambda self: Full(append(self)))
        assert runs.train(workdir) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in last and f"{workdir}/metrics.jsonl" in last
    assert steps(workdir) == [2]
    assert (workdir / "metrics.jsonl").read_bytes().count(b"\n") == 2
    assert runs.train(workdir) == 0
    assert "warning" not in capsys.readouterr().err  # a torn end is what a resume expects
    same_as(trained, workdir)


@pytest.mark.full
def test_a_full_disk_while_the_rules_are_written_down(run_copy, tmp_path, monkeypatch, capsys):
    before = {p: p.read_bytes() for p in run_copy.rglob("*.json*") if "checkpoints" not in p.parts}
    change = ("--allow-change", "--config.optimizer.d_lr=1e-4", "--config.num_steps=5")
    with monkeypatch.context() as patch:
        patch.setattr(paths, "append_text", full)
        assert runs.train(run_copy, *change) == 1
    assert "config_history.jsonl" in capsys.readouterr().err.splitlines()[-1]
    assert {p: p.read_bytes() for p in before} == before
    assert not (run_copy / "config_history.jsonl").exists() and steps(run_copy) == [2, 4]


@pytest.mark.full
def test_a_gradient_that_is_nan_where_the_loss_is_not(trained, tmp_path, monkeypatch, capsys):
    """The square root at 0: what it is added to is finite, its derivative is not."""
    workdir = tmp_path / "run"
    assert runs.train(workdir, "--config.num_steps=2") == 0
    before, hinge = runs.metric_lines(workdir), losses.hinge_d

    def poisoned(real_logits, fake_logits):
        return jax.tree.map(lambda x: x + jnp.sqrt((x - x) ** 2), hinge(real_logits, fake_logits))

    with monkeypatch.context() as patch:
        patch.setattr(losses, "hinge_d", poisoned)  # so that its program is no other run's
        game = objectives.separate(poisoned, losses.critic_g)
        patch.setitem(objectives.LOSSES, "hinge", game)
        assert runs.train(workdir) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "nan at step 3" in last and "--allow-change" in last
    assert steps(workdir) == [2] and runs.metric_lines(workdir) == before
    assert runs.train(workdir) == 0
    same_as(trained, workdir)


def flipped(folder) -> int:
    """Flips a bit in the middle of every large file of a folder; how many."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return len(files)


def test_the_newest_checkpoint_is_damaged(run_copy, trained, capsys):
    """It is set aside, and its step trained again from the one before."""
    assert flipped(run_copy / "checkpoints" / "4" / "state")
    assert runs.train(run_copy) == 0
    err = capsys.readouterr().err
    assert err.count("warning: checkpoint 4 in") == 1 and "after step 2 of 4" in err
    same_as(trained, run_copy)
    assert (run_copy / "checkpoints" / "4.discarded").is_dir()


@pytest.mark.full
@pytest.mark.parametrize(
    "part",
    ["weights", "config.json", "score.json"],
)
def test_the_best_state_is_damaged(trained, tmp_path, capsys, scored, part):
    """It is refused where it is asked for, and never stops the run that goes on."""
    workdir = tmp_path / "run"
    assert runs.train(workdir, *SCORING, "--config.num_steps=2") == 0
    path = workdir / "best" / part
    if part == "weights":
        assert flipped(path)
    else:
        path.write_bytes(path.read_bytes()[:-9])
    capsys.readouterr()
    argv = ["sample", f"--from={workdir}", "--step=best", f"--out={tmp_path}/x.png"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), str(workdir))
    assert runs.train(workdir, *SCORING) == 0
    same_as(trained, workdir)
    assert best.read(workdir)["step"] == 4
    assert json.loads((workdir / "best" / "config.json").read_text())["batch_size"] == 16
    assert cli.main([*argv, "--per-class=1"]) == 0
    # What could not be compared is kept aside.
    assert (workdir / "best.earlier").is_dir() == (part == "score.json")
