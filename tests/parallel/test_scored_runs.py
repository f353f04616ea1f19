"""A run of two processes that scores its samples: the same numbers as one process."""

import json
import shutil

import pytest

from biggan_jax.metrics import classifier
from biggan_jax.storage import best
from tests.parallel.test_distributed import (
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


@pytest.fixture(scope="module")
def two(one, tmp_path_factory, cache_dir):
    """The workdir of two processes of one device each, which find that classifier."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    for folder in (one / "cache").glob("classifier-*"):
        shutil.copytree(folder, workdir / "cache" / folder.name)
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
