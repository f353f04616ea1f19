"""Going back to the last healthy checkpoint: once, deterministically, and through any kill."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from biggan_jax.storage import best, checkpoint, guard_log, lock, paths
from biggan_jax.training import guard as guard_lib
from biggan_jax.training import rollback, setup
from biggan_jax.training.guard import Guard
from tests import killing, mutations, runs
from tests.conftest import FULL

# The rates stay the same, so that no other step is compiled.
BACK = (
    "--config.guard.action=rollback",
    "--config.guard.every_steps=1",
    "--config.guard.on_rollback.lr_factor=1.0",
    "--config.num_steps=6",
)


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def told(workdir):
    """(step, state, attempt) of every event."""
    events, damaged = guard_log.read(workdir)
    assert damaged is None
    return [(event["step"], event["state"], event["attempt"]) for event in events]


@pytest.fixture
def collapses(monkeypatch):
    """Collapses that a test foresees: {(attempt, step)}, seen when that step is judged."""
    foreseen = {(0, 4)}
    judge = Guard.judge

    def judged(self, step):
        judge(self, step)
        if (self.attempt, step) in foreseen:
            self._roll_back(step, step - 1, "gap", "it was foreseen")

    monkeypatch.setattr(Guard, "judge", judged)
    return foreseen


@pytest.fixture(scope="module")
def straight(tmp_path_factory, cache_dir):
    """A run that went back from step 4 to step 2 and was never stopped."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        collapses.__wrapped__(patch)
        assert runs.train(workdir, *BACK) == 0
    return workdir


def test_what_a_rollback_leaves(straight, trained):
    assert told(straight) == [(4, "rolled_back", 0)]
    assert steps(straight) == [2, 4, 6]
    lines = runs.metric_lines(straight)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    gone = straight / "abandoned" / "0"
    given_up = [json.loads(line) for line in (gone / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in given_up] == [3, 4]
    before = runs.metric_lines(trained)
    assert lines[:2] == before[:2] and given_up[0]["d_loss"] == before[2]["d_loss"]
    assert lines[2]["d_loss"] != before[2]["d_loss"]  # another draw of latents and data


def test_the_result_says_it(straight, tmp_path, collapses, capsys):
    workdir = tmp_path / "run"
    assert runs.train(workdir, *BACK, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["guard"] == {"state": "healthy", "rollbacks": 1}
    assert captured.err.count("rolled back to step 2 (1 of 3): it was foreseen") == 1
    assert captured.err.count("images per class") == 1
    runs.assert_same_state(workdir, straight, 6)
    assert (workdir / guard_log.FILE).read_bytes() == (straight / guard_log.FILE).read_bytes()


@pytest.mark.full
def test_killed_at_any_moment_of_a_rollback(straight, tmp_path, collapses, monkeypatch):
    """In front of every change of the disk that a rollback makes, and after its line is written."""
    first = tmp_path / "first"
    assert runs.train(first, *BACK[:-1], "--config.num_steps=2") == 0
    killed_once = 0
    for number in range(1, 30) if FULL else (3,):
        workdir = tmp_path / f"run{number}"
        shutil.copytree(first, workdir)
        with killing.killed_at(number, monkeypatch, rollback, "settle") as changes:
            runs.train(workdir, *BACK)
        done = len(changes) < number
        killed_once += not done
        assert runs.train(workdir, *BACK) == 0
        runs.assert_same_state(workdir, straight, 6)
        assert told(workdir) == told(straight) and steps(workdir)[-1] == 6
        assert runs.metric_lines(workdir)[-3:] == runs.metric_lines(straight)[-3:]
        shutil.rmtree(workdir)
        if done:
            break
    assert killed_once >= (3 if FULL else 1)


@pytest.mark.full
def test_augmentation_by_held_out_images_goes_back_too(tmp_path, collapses):
    """Its probability is adjusted after the same updates whether the run was resumed or not."""
    settings = (
        *("--config.augment.policy=ada", "--config.augment.groups=colour"),
        *("--config.augment.heuristic=held_out", "--config.augment.target=0.5"),
        "--config.augment.probability=0.5",
        *("--config.augment.every_steps=3", "--config.augment.ramp_images=320"),
        "--config.data.holdout=0.2",
    )
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    assert runs.train(straight, *BACK, *settings) == 0
    assert told(straight) == [(4, "rolled_back", 0)]
    assert runs.train(resumed, *BACK[:-1], "--config.num_steps=4", *settings) == 0
    assert told(resumed) == told(straight)
    assert runs.train(resumed, *BACK, *settings) == 0
    runs.assert_same_state(resumed, straight, 6)
    probabilities = [line["augment/probability"] for line in runs.metric_lines(straight)]
    assert probabilities == [line["augment/probability"] for line in runs.metric_lines(resumed)]
    assert len(set(probabilities)) > 1


@pytest.mark.full
def test_killed_between_collapse_and_rollback(straight, tmp_path, collapses, monkeypatch):
    """A collapse whose rollback was not written down yet is seen again."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(killing.Killed):
        patch.setattr(Guard, "record", lambda self, event: (_ for _ in ()).throw(killing.Killed()))
        runs.train(workdir, *BACK)
    assert told(workdir) == []
    assert runs.train(workdir, *BACK) == 0
    runs.assert_same_state(workdir, straight, 6)
    assert told(workdir) == told(straight)


@pytest.mark.full
def test_from_the_start_when_nothing_healthy_is_saved(tmp_path, collapses):
    collapses.clear()
    collapses.add((0, 1))
    workdir = tmp_path / "run"
    assert runs.train(workdir, *BACK) == 0
    assert told(workdir) == [(1, "rolled_back", 0)]
    assert guard_log.read(workdir)[0][0]["to_step"] == 0
    assert [line["step"] for line in runs.metric_lines(workdir)] == [1, 2, 3, 4, 5, 6]
    assert runs.train(workdir, *BACK) == 0  # and it is finished


def test_twice_then_an_older_checkpoint_then_the_end(tmp_path, collapses, capsys):
    """What did not help is not tried again while there is an older one; the last one stops."""
    collapses.clear()
    collapses.update({(0, 6), (1, 6), (2, 6), (3, 6)})
    workdir = tmp_path / "run"
    most = ("--config.guard.max_rollbacks=2", "--config.keep_checkpoints=1")
    judge = Guard.judge

    def judged(self, step):
        if (self.attempt, step) == (2, 6):
            self._alarmed(step, "collapsed", [_alarm()])
        judge(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "judge", judged)
        assert runs.train(workdir, *BACK, *most, "--json") == 1
    events = guard_log.read(workdir)[0]
    assert [event.get("to_step") for event in events] == [4, 2, None]
    assert events[-1]["action"] == "stop"
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert "collapsed at step 6" in line and "--config.guard.max_rollbacks=5" in line
    assert json.loads(captured.out)["exit_code"] == 1
    # Followed literally, the advice goes on.
    advice = line.partition("`")[2].partition("`")[0].split()
    collapses.clear()
    assert runs.train(workdir, *BACK, *most, *advice) == 0


def _alarm():
    return guard_lib.Alarm("gap", "collapsed", 9.0, 5.0, "D(real) - D(fake) is 9 (was 1)")


@pytest.mark.parametrize(
    "action",
    [*(pytest.param(x, marks=pytest.mark.full) for x in ("off", "stop", "warn")), "rollback"],
)
def test_a_metric_that_is_not_finite(tmp_path, monkeypatch, capsys, action):
    """It stops the run whatever the guard is told, unless it goes back."""
    read = jax.device_get
    spoiled = []

    def device_get(tree):
        values = read(tree)
        if isinstance(values, dict) and "d_loss" in values and len(spoiled) < 4:
            spoiled.append(values)
            if len(spoiled) == 4:
                values = values | {"d_loss": np.float32("nan")}
        return values

    monkeypatch.setattr(guard_lib.rollback.jax, "device_get", device_get)
    workdir = tmp_path / "run"
    code = runs.train(workdir, *BACK, f"--config.guard.action={action}")
    error = capsys.readouterr().err
    if action == "rollback":
        assert code == 0 and steps(workdir) == [2, 4, 6]
        assert told(workdir) == [(4, "collapsed", 0), (4, "rolled_back", 0)]
        assert "rolled back to step 2 (1 of 3): d_loss is nan" in error
    else:
        assert code == 1 and steps(workdir) == [2]
        assert "d_loss is nan at step 4" in error.splitlines()[-1]
        assert told(workdir) == ([] if action == "off" else [(4, "collapsed", 0)])
    assert (workdir / guard_log.FILE).exists() == (action != "off")


def test_a_damaged_log_is_written_anew(straight, tmp_path, capsys):
    """The checkpoints hold it; a run that has lost its log does not forget its rollback."""
    data = (straight / guard_log.FILE).read_bytes()
    changed = data.replace(b'"step": 4', b'"step": 5')
    damages = {"torn": data[:-9], "changed": changed, "empty": b"", "gone": None}
    for damage, left in damages.items() if FULL else list(damages.items())[1:2]:
        workdir = tmp_path / damage
        shutil.copytree(straight, workdir)
        path = workdir / guard_log.FILE
        path.unlink() if left is None else path.write_bytes(left)
        assert runs.train(workdir, *BACK, "--config.num_steps=7") == 0
        error = capsys.readouterr().err
        assert error.count("warning:") == 1 and "written anew" in error
        assert path.read_bytes() == data
        assert guard_log.attempt(guard_log.read(workdir)[0]) == 1


@pytest.mark.full
def test_a_damaged_healthy_checkpoint(tmp_path, collapses, capsys):
    """One that is damaged between two rollbacks: the one before it is taken, with one line."""
    collapses.clear()
    collapses.add((0, 6))
    workdir = tmp_path / "run"
    assert runs.train(workdir, *BACK[:-1], "--config.num_steps=5") == 0
    assert steps(workdir) == [2, 4, 5]
    for number in (4, 5):
        for path in (workdir / "checkpoints" / str(number) / "state").rglob("*"):
            if path.is_file() and path.stat().st_size > 100:
                path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)
    # From 2 on; the foreseen collapse then goes back to 4, which is new.
    assert runs.train(workdir, *BACK) == 0
    assert "is corrupt" in capsys.readouterr().err
    assert told(workdir) == [(6, "rolled_back", 0)]


def test_healthy_checkpoints_are_kept(tmp_path):
    """Whatever `keep_checkpoints` says, while the run is not healthy."""
    kept = Guard(runs.tiny_config("--config.guard.action=rollback"), tmp_path)
    for step, healthy in ((2, [2]), (4, [2, 4]), (6, [4, 6])):
        kept.saved(step)
        assert kept.healthy == healthy
    kept._alarmed_at = 7
    kept.saved(8)
    assert kept.healthy == [4, 6]
    assert Guard(runs.tiny_config(), tmp_path, kept=kept.to_json()).healthy == [6]
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", keep_latest=1)
    for step in (2, 4, 6, 8):
        checkpoints.pinned = [2, 4]
        checkpoints.save(step, {"x": np.arange(3)}, {})
    checkpoints.wait()
    assert checkpoints.all_steps() == [2, 4, 8]
    checkpoints.pinned = [4]
    checkpoints.save(10, {"x": np.arange(3)}, {})
    checkpoints.close()
    assert checkpoints.all_steps() == [4, 10]


@pytest.mark.full
def test_a_run_that_a_signal_stopped_goes_back_as_one_that_was_not(
    straight, tmp_path, collapses, monkeypatch
):
    """It has saved a step that the other has not, and does not go back to it."""
    workdir, next_batch, calls = tmp_path / "run", setup.next_batch, []

    def stopped(run):
        calls.append(run)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return next_batch(run)

    with monkeypatch.context() as patch:
        patch.setattr(setup, "next_batch", stopped)
        assert runs.train(workdir, *BACK) == 75
    assert steps(workdir) == [2, 3]
    assert runs.train(workdir, *BACK) == 0
    runs.assert_same_state(workdir, straight, 6)
    assert told(workdir) == told(straight) and steps(workdir) == [2, 4, 6]


def test_what_is_changed():
    config = runs.tiny_config()
    config.optimizer.g_lr, config.optimizer.d_lr = 1e-4, 4e-4
    config.guard.on_rollback.lr_factor = 0.5
    config.guard.on_rollback.r1 = 10.0
    assert rollback.rules(config, 0) is config
    rules = rollback.rules(config, 2)
    assert (rules.optimizer.g_lr, rules.optimizer.d_lr) == (2.5e-5, 1e-4)
    assert rules.regularizer.r1 == 10.0 and config.regularizer.r1 == 0.0
    assert rollback.changes(config, 2) == {
        "optimizer.g_lr": [5e-5, 2.5e-5],
        "optimizer.d_lr": [2e-4, 1e-4],
    }
    assert rollback.changes(config, 1)["regularizer.r1"] == [0.0, 10.0]
    # Only the one that is far ahead is slowed down.
    config.optimizer.d_lr = 1e-2
    assert rollback.rules(config, 1).optimizer.g_lr == 1e-4
    assert rollback.rules(config, 1).optimizer.d_lr == 5e-3
    config.optimizer.g_lr, config.optimizer.d_lr = 1e-2, 1e-4
    assert rollback.rules(config, 1).optimizer.d_lr == 1e-4
    seeds = {rollback.data_seed(config, attempt) for attempt in range(9)}
    assert len(seeds) == 9 and rollback.data_seed(config, 0) == config.seed
    config.guard.on_rollback.new_draw = False
    assert rollback.data_seed(config, 3) == config.seed


def full(path, *_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    ["guard.jsonl", "samples/step_00000003.png", "metrics.jsonl"],
)
def test_the_disk_is_full_while_a_run_goes_back(
    straight,
    collapses,
    tmp_path,
    monkeypatch,
    capsys,
    name,
):
    """Its line is written first: without it nothing has happened, with it the rest follows."""
    workdir, append, write = tmp_path / "run", paths.append_text, paths.write_bytes
    every = "--config.sample_every_steps=3"  # before the step that is judged

    def append_text(path, text):
        full(path) if str(path).endswith(name) else append(path, text)

    def write_bytes(path, data):
        full(path) if str(path).endswith(f"abandoned/0/{name}") else write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "append_text", append_text)
        patch.setattr(paths, "write_bytes", write_bytes)
        assert runs.train(workdir, *BACK, every) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in last and name in last
    assert not (workdir / "abandoned" / "0" / "metrics.jsonl").exists()
    assert runs.train(workdir, *BACK, every) == 0
    runs.assert_same_state(workdir, straight, 6)
    assert (workdir / guard_log.FILE).read_bytes() == (straight / guard_log.FILE).read_bytes()
    assert runs.metric_lines(workdir)[-3:] == runs.metric_lines(straight)[-3:]


@pytest.mark.full
def test_a_rollback_keeps_the_lock_and_needs_it(straight, collapses, tmp_path, monkeypatch, capsys):
    """A second run is refused in the middle; one that was taken over changes nothing more."""
    workdir, seen, settle = tmp_path / "run", [], rollback.settle

    def settled(*args):
        if seen or told(workdir):
            seen.append(runs.train(workdir, *BACK))
        return settle(*args)

    with monkeypatch.context() as patch:
        patch.setattr(rollback, "settle", settled)
        assert runs.train(workdir, *BACK) == 0
    assert seen == [2] and "has been training there" in capsys.readouterr().err
    runs.assert_same_state(workdir, straight, 6)

    other, roll_back = tmp_path / "other", Guard._roll_back

    def taken_over(self, *args):
        for claim in (other / lock.FOLDER).glob("*.json"):
            claim.unlink()
        time.sleep(0.2)  # twenty beats
        roll_back(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "BEAT_SECONDS", 0.01)
        patch.setattr(Guard, "_roll_back", taken_over)
        assert runs.train(other, *BACK) == 1
    assert "was taken over by another run" in capsys.readouterr().err.splitlines()[-1]
    assert told(other) == [] and steps(other) == [2] and not (other / "abandoned").exists()


def has_begun(workdir, step):
    """Whether a run that goes on from step 4 has written the line of a later one, or goes back."""
    if step == 4:
        return (workdir / "abandoned").exists()
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return f'"step": {step},' in "".join(lines[-3:])


@pytest.mark.full
def test_killed_twenty_times(tmp_path, cache_dir):
    """SIGKILL a moment after a random step of a run with saves, scores and a rollback.

    D's rate is 1e38 from step 4 on, so its metrics are NaN until a rollback has lowered it.
    """
    first, straight = tmp_path / "first", tmp_path / "straight"
    assert runs.train(first, "--config.guard.action=rollback") == 0
    diverging = (
        *("--config.guard.action=rollback", "--config.guard.on_rollback.lr_factor=1e-41"),
        *("--config.optimizer.d_lr=1e38", "--allow-change", "--config.num_steps=24"),
        *(
            "--config.eval_every_steps=8",
            "--config.eval_samples=100",
            "--config.guard.every_steps=2",
        ),
    )

    def start(workdir):
        shutil.copytree(first, workdir)
        command = [sys.executable, "-m", "biggan_jax", "train", f"--workdir={workdir}"]
        return subprocess.Popen(
            [*command, *runs.TINY, *diverging],
            env=runs.environment(cache_dir),
            cwd=runs.ROOT,
            stderr=subprocess.DEVNULL,
        )

    assert start(straight).wait(timeout=600) == 0
    assert [state for _, state, _ in told(straight)][:2] == ["collapsed", "rolled_back"]
    random, killed = np.random.default_rng(), 0
    for i in range(20):
        workdir = tmp_path / f"run{i}"
        process, reached = start(workdir), int(random.integers(4, 25))
        while process.poll() is None and not has_begun(workdir, reached):
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.5))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert runs.train(workdir, *diverging) == 0
        runs.assert_same_state(workdir, straight, 24)
        assert runs.metric_lines(workdir) == runs.metric_lines(straight)
        assert (workdir / "guard.jsonl").read_bytes() == (straight / "guard.jsonl").read_bytes()
        ours, theirs = best.read(workdir), best.read(straight)
        assert (ours["step"], ours["scores"]) == (theirs["step"], theirs["scores"])
        shutil.rmtree(workdir)
    assert killed >= 15


@pytest.mark.full
def test_200_mutations_of_the_log_through_train(straight, tmp_path, capsys):
    """Whatever it holds, the run goes on as it was, and the log is the one it had."""
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    path = workdir / guard_log.FILE
    data, said = path.read_bytes(), 0
    for seed in range(mutations.COUNT):
        path.write_bytes(mutations.mutated("lines", data, seed))
        assert runs.train(workdir, *BACK) == 0, seed
        error = capsys.readouterr().err
        assert path.read_bytes() == data and "Traceback" not in error, seed
        said += error.count(f"warning: {path}") == 1
    assert said == mutations.COUNT
    runs.assert_same_state(workdir, straight, 6)


def test_damaged_metrics_do_not_stop_a_rollback(tmp_path):
    """What it gives up is every line that can be read, whatever lies between them."""
    lines = [b'{"step": %d}' % step for step in range(1, 6)]
    lines[3:3] = [b"[" * 9999, b'{"step": 1e999}', b'{"step": "x"}', b"\xff", b"{}"]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 7']))
    rollback._move(tmp_path, 0, 2)
    kept = (tmp_path / "abandoned" / "0" / "metrics.jsonl").read_bytes()
    assert kept == b'{"step": 3}\n{"step": 4}\n{"step": 5}\n'
