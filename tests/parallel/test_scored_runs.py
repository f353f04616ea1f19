"""A run of two processes that scores: the same numbers as one process, also after kills."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from biggan_jax.metrics import classifier
from biggan_jax.storage import best
from tests import dying, runs
from tests.parallel.test_distributed import (
    SETTINGS,
    Processes,
    assert_close,
    sgd,  # noqa: F401
    steps,
    train_here,
)

# Only scoring saves step 3.
SCORED = (
    "--config.eval_every_steps=3",
    "--config.eval_samples=90",
    "--config.checkpoint_every_steps=4",
)


# The sums that the processes share are tested in test_processes.py; this is a whole run.
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The workdir of one process of two devices, whose classifier was fitted in a few steps."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    recipe = classifier.Recipe(max_images=640, batch_size=64, holdout=0.02)
    with pytest.MonkeyPatch.context() as patch:
        fit = classifier.fit
        # Kept under the name of the usual recipe, by which the two processes look for it.
        patch.setattr(classifier, "fit", lambda *a, **k: fit(*a, **(k | {"recipe": recipe})))
        assert train_here(workdir, "--config.mesh=(2,1)", *SCORED) == 0
    return workdir


def with_classifier(one, workdir):
    """A new workdir that has the classifier of another one in its cache."""
    for folder in (one / "cache").glob("classifier-*"):
        shutil.copytree(folder, workdir / "cache" / folder.name)
    return workdir


@pytest.fixture(scope="module")
def two(one, tmp_path_factory, cache_dir):
    """The workdir of two processes of one device each, which find that classifier."""
    workdir = with_classifier(one, tmp_path_factory.mktemp("two") / "run")
    run = Processes(workdir, cache_dir, *SCORED, devices=1)
    assert run.codes() == [0, 0], run.text()
    assert not any("fitting" in text for text in run.text())
    return workdir


def eval_lines(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(name.startswith("eval/") for name in line)]


def test_two_processes_score_as_one(one, two):
    (ours,), (theirs,) = eval_lines(two), eval_lines(one)  # one line, though two processes scored
    assert ours["step"] == 3 and ours["eval/fid"] > 0
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_the_scored_step_is_saved_and_the_best_kept(one, two):
    assert steps(two) == [3, 4]
    ours, theirs = best.read(two), best.read(one)
    assert ours["step"] == 3
    assert ours["score"] == ours["scores"]["fid"] == eval_lines(two)[0]["eval/fid"]
    assert ours["protocol"]["fingerprint"] == theirs["protocol"]["fingerprint"]
    for name in ("g", "g_ema", "d"):
        assert (two / "best" / "weights" / name).is_dir()


def test_scoring_changes_no_step(one, two):
    for number in (3, 4):
        assert_close(two, one, number)


# The first thing that scoring does, and what comes when all samples of a process are scored.
PLACES = (
    "biggan_jax.evaluation.evaluator:Evaluator.__call__",
    "biggan_jax.evaluation.streaming:Fakes.joined",
)


def assert_nothing_lost(workdir):
    """The scored step is there, and says by itself that its scores are still to come."""
    assert steps(workdir) == [3]
    assert eval_lines(workdir) == []


def assert_same_run(workdir, other):
    for number in (3, 4):
        runs.assert_same_state(workdir, other, number)
    assert runs.metric_lines(workdir) == runs.metric_lines(other)
    ours, theirs = (best.read(each) for each in (workdir, other))
    assert ours["step"] == 3 and ours["scores"] == theirs["scores"]
    assert ours["protocol"] == theirs["protocol"] | {"model": str(workdir)}


def test_one_of_two_killed_while_it_scores(one, two, tmp_path, cache_dir):
    workdir = with_classifier(one, tmp_path / "run")
    for victim, place in enumerate(PLACES):  # process 0 holds the coordination service
        run = Processes(workdir, cache_dir, *SCORED, devices=1, dies={victim: place})
        codes = run.codes()
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] != 0, run.text()
        assert_nothing_lost(workdir)
    run = Processes(workdir, cache_dir, *SCORED, devices=1)
    assert run.codes() == [0, 0], run.text()
    assert_same_run(workdir, two)


def alone(workdir, cache_dir, place=""):
    """Exit code of one process, which is killed where `place` says."""
    command = (sys.executable, "-m", "tests.sgd_train", f"--workdir={workdir}", *SETTINGS, *SCORED)
    flags = os.environ["XLA_FLAGS"].replace("count=8", "count=1")
    environment = runs.environment(cache_dir) | {"XLA_FLAGS": flags, dying.PLACE: place}
    return subprocess.run(command, env=environment, cwd=runs.ROOT, capture_output=True).returncode


def test_a_process_killed_while_it_scores(one, tmp_path, cache_dir):
    workdir, straight = (with_classifier(one, tmp_path / name) for name in ("run", "straight"))
    assert alone(straight, cache_dir) == 0
    for place in PLACES:
        assert alone(workdir, cache_dir, place) == -signal.SIGKILL
        assert_nothing_lost(workdir)
    assert alone(workdir, cache_dir) == 0
    assert_same_run(workdir, straight)


def test_evaluate_killed_leaves_all_whole(one, tmp_path, cache_dir):
    """Between the files of the real side, in front of a rename, while it scores, as it writes."""
    workdir = with_classifier(one, tmp_path / "run")
    for name in ("config.json", "checkpoints", "metrics.jsonl"):
        copy = shutil.copytree if (one / name).is_dir() else shutil.copyfile
        copy(one / name, workdir / name)
    command = ["evaluate", f"--from={workdir}", "--samples=90", "--json"]

    def evaluate(place="", more=()):
        environment = runs.environment(cache_dir) | {dying.PLACE: place}
        program = [sys.executable, "-m", "tests.dying", *command, *more]
        return subprocess.run(program, env=environment, cwd=runs.ROOT, capture_output=True)

    def files():
        own = (p for p in sorted(workdir.rglob("*")) if p.is_file() and "cache" not in p.parts)
        return {str(p): p.read_bytes() for p in own}

    before, apart = files(), tmp_path / "apart"
    shutil.copytree(workdir / "cache", apart)
    straight = evaluate("", [f"--cache={apart}", f"--out={tmp_path / 'straight'}"])
    assert straight.returncode == 0, straight.stderr
    for place in (
        *("os:replace", "biggan_jax.evaluation.reference:archives.to_bytes@2"),
        *(PLACES[1], "biggan_jax.evaluation.report:write"),
    ):
        assert evaluate(place).returncode == -signal.SIGKILL, place
        assert files() == before, place
    again = evaluate()
    assert again.returncode == 0, again.stderr
    wanted, got = (json.loads(each.stdout) for each in (straight, again))
    for name in ("scores", "protocol", "per_class"):
        assert got[name] == wanted[name]


def test_two_processes_evaluate_as_one(one, tmp_path, cache_dir):
    """Whole batches of 300 samples and of 1,797 real images each, and one result is written."""
    port = runs.free_port()
    together = [f"--coordinator=localhost:{port}", "--num-processes=2"]
    environment = runs.environment(cache_dir)
    environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("count=8", "count=1")

    def start(name, *more):
        workdir = tmp_path / name
        if not workdir.exists():
            shutil.copytree(one, workdir)
            for path in (workdir / "cache").glob("*.npz"):
                path.unlink()
        command = ["evaluate", f"--from={workdir}", "--samples=300", "--json", *more]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.dying", *command],
            env=environment,
            cwd=runs.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    started = [start("two", *together, f"--process-id={i}") for i in range(2)]
    (alone, _), *both = runs.read_all([start("one"), *started])
    alone, *both = (json.loads(out) for out in (alone, *(out for out, _ in both)))
    for result in both:
        assert result["scores"] == both[0]["scores"]
        assert result["scores"] == pytest.approx(alone["scores"], rel=1e-6)
        assert result["protocol"]["fingerprint"] == alone["protocol"]["fingerprint"]
    written = json.loads((tmp_path / "two" / "report" / "evaluation.json").read_text())
    assert written["scores"] == both[0]["scores"]
    other = [start("two", *together, f"--process-id={i}", f"--seed={i}") for i in range(2)]
    for process, (_, err) in zip(other, runs.read_all(other), strict=True):
        assert process.returncode == 2 and "seed is 0 in process 0 and 1 in process 1" in err
