"""What the hooks of a forked run know of the run before."""

import shutil

import pytest

from biggan_jax import cli
from biggan_jax.evaluation import evaluate
from biggan_jax.storage import checkpoint, guard_log, integrity
from tests import runs


def fork(workdir, *arguments):
    """`biggan train` without a config of its own; its exit code."""
    return cli.main(["train", f"--workdir={workdir}", *arguments])


def guard_of(workdir, step):
    return integrity.read_record(workdir / "checkpoints" / str(step))["meta"]["guard"]


@pytest.mark.full
def test_its_guard(trained, tmp_path):
    """It goes back to its own first checkpoint, and compares signals of one meaning alone."""
    known = guard_of(trained, 2)
    assert known["series"]
    for name, more in (("a", ("optimizer.d_lr=1e-4",)), ("b", ("loss=wasserstein",))):
        more = [f"--config.{text}" for text in (*more, "num_steps=2")]
        assert fork(tmp_path / name, f"--fork={trained}@2", *more) == 0
        found = guard_of(tmp_path / name, 2)
        assert found["healthy"] == [2]
        assert found["series"] == ({} if name == "b" else known["series"])


@pytest.mark.full
def test_a_fork_of_a_run_that_was_rolled_back(run_copy, tmp_path):
    """Its draw and its rates go on."""
    event = dict(step=3, state=guard_log.ROLLED_BACK, signal="x", value=None, limit=None)
    event |= dict(action="rollback", attempt=0, text="", to_step=0, changes={})
    (event,) = guard_log.append(run_copy, [], event)
    state, _ = runs.load_state(run_copy, 2)
    meta = integrity.read_record(run_copy / "checkpoints" / "2")["meta"]
    meta["guard"]["events"] = [event]
    shutil.rmtree(run_copy / "checkpoints")
    checkpoints = checkpoint.Checkpoints(run_copy / "checkpoints")
    checkpoints.save(2, state, meta)
    checkpoints.close()
    assert fork(tmp_path / "new", f"--fork={run_copy}@2") == 0
    assert runs.train(run_copy) == 0
    runs.assert_same_state(tmp_path / "new", run_copy, 4)
    assert guard_log.read(tmp_path / "new") == ([event], None)
    plain = tmp_path / "plain"
    assert runs.train(plain) == 0
    with pytest.raises(AssertionError):
        runs.assert_same_state(plain, run_copy, 4)


def test_its_metrics_begin_after_the_fork(trained, tmp_path, monkeypatch):
    """The scores of its first step are those of the origin."""
    seen = []

    def during_training(config, source, digest, workdir):
        return lambda variables, step: seen.append(step) or {"scores": {"fid": 1.0}, "protocol": {}}

    monkeypatch.setattr(evaluate, "during_training", during_training)
    new, scoring = tmp_path / "new", "--config.eval_every_steps=2"
    assert fork(new, f"--fork={trained}@2", scoring) == 0
    assert seen == [4]
    assert min(line["step"] for line in runs.metric_lines(new)) == 3
