"""The processes of a run share the samples of an evaluation, and all get the same scores."""

import dataclasses
import functools
import json
import threading

import jax
import numpy as np
import pytest

from biggan_jax import cli, data
from biggan_jax.errors import UserError
from biggan_jax.evaluation import evaluator as evaluator_lib
from biggan_jax.evaluation import opening, reference, streaming
from biggan_jax.evaluation.streaming import Fakes
from biggan_jax.metrics import classifier
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.parallel import processes
from biggan_jax.sampling import load
from tests import runs

PROGRAM = """
import json, sys
import jax, numpy as np
from tests.evaluation import test_processes

port, number = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(f"localhost:{port}", 2, number)
test_processes.processes.GATHERED_BYTES = 100  # many pieces
fakes = test_processes.share([range(0, 17), range(17, 40)][number]).joined()
print("RESULT" + json.dumps(test_processes.numbers(fakes)), flush=True)
jax.distributed.shutdown()
"""


def share(numbers):
    """Fakes of some of 40 samples, whose features have a large common offset."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(40, 3)) + 1e4).astype(np.float32)
    logits, labels = rng.normal(size=(40, 2)), np.arange(40, dtype=np.int32) % 2
    fakes = Fakes(40, 3, 2, keep=25, share=numbers)
    for i in numbers:
        fakes.add(features[i : i + 1], logits[i : i + 1], labels[i : i + 1])
    return fakes


def numbers(fakes):
    statistics = fakes.moments.statistics()
    return {
        "mean": statistics.mean.tolist(),
        "covariance": statistics.covariance.tolist(),
        "is": fakes.inception_score.result(),
        "features": fakes.features.tolist(),
        "labels": fakes.labels.tolist(),
        "asked": fakes.asked.tolist(),
        "correct": fakes.correct.tolist(),
    }


def assert_same_sums(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        exact = name in ("features", "labels", "asked", "correct")
        np.testing.assert_allclose(got[name], value, rtol=0 if exact else 1e-11, err_msg=name)


def test_two_real_processes_have_the_sums_of_one():
    zero, one = runs.two_processes(PROGRAM)
    assert zero == one  # bit for bit: all take the same decisions
    assert_same_sums(zero, json.loads(json.dumps(numbers(share(range(40))))))


class Threads:
    """Threads in the place of processes."""

    def __init__(self, count, monkeypatch):
        self.count, self.barrier, self.own = count, threading.Barrier(count), threading.local()
        self.values = [None] * count
        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(jax, "process_index", lambda: self.own.number)
        monkeypatch.setattr(processes, "gather", self.gather)
        monkeypatch.setattr(processes, "total", lambda x: sum(self.gather(x)))
        monkeypatch.setattr(processes, "concatenated", lambda x: np.concatenate(self.gather(x)))

    def gather(self, value):
        self.values[self.own.number] = value
        self.barrier.wait(60)
        found = list(self.values)
        self.barrier.wait(60)
        return found

    def results(self, call):
        """What every thread's `call(number)` returns or raises as a UserError."""
        found = [None] * self.count

        def run(number):
            self.own.number = number
            try:
                found[number] = call(number)
            except UserError as error:
                found[number] = str(error)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.fixture(scope="module")
def opened(trained, tmp_path_factory):
    """(evaluator, generator) of the tiny run."""
    recipe = Recipe(max_images=640, batch_size=64, holdout=0.02)
    settings = opening.Settings(data="digits:test", num_samples=90)
    config = runs.tiny_config("--config.model.num_classes=10")
    with pytest.MonkeyPatch.context() as patch:
        fitted = functools.partial(classifier.cached, recipe=recipe)
        patch.setattr("biggan_jax.evaluation.inputs.cached", fitted)
        scorer = opening.open_evaluator(config, tmp_path_factory.mktemp("cache"), settings)
    return scorer, load.load_generator(trained)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.full), 8])
def test_scores_are_those_of_one_process(opened, monkeypatch, count):
    scorer, generator = opened
    monkeypatch.setattr(evaluator_lib, "BATCH_SIZE", 16)  # 6 batches: 8 processes leave two idle
    scorer = dataclasses.replace(scorer, keep=50)
    alone = scorer(generator)
    made = []
    monkeypatch.setattr(streaming.Fakes, "add", counting(made, streaming.Fakes.add))
    results = Threads(count, monkeypatch).results(lambda number: scorer(generator))
    assert sum(made) == 90  # shared, not repeated
    for result in results:
        assert result["scores"] == pytest.approx(alone["scores"], rel=1e-6)
        assert result["scores"] == results[0]["scores"]
        assert result["protocol"] == alone["protocol"]
        for row, expected in zip(result["per_class"], alone["per_class"], strict=True):
            assert row.pop("name") == expected["name"]
            assert row == pytest.approx({k: expected[k] for k in row}, rel=1e-6)
            assert row.keys() == expected.keys() - {"name"}


def counting(made, add):
    def counted(self, features, logits, labels):
        made.append(len(labels))
        add(self, features, logits, labels)

    return counted


@pytest.mark.parametrize("count", [2, 4])
def test_the_real_side_is_that_of_one_process(opened, tmp_path, monkeypatch, count):
    scorer, _ = opened
    monkeypatch.setattr(reference, "BATCH_SIZE", 128)  # 3 batches of 355 images
    source = data.open_source("digits:test", resolution=16, channels=1)
    alone = scorer.reference
    taken = []
    read = source.read
    monkeypatch.setattr(source, "read", lambda rows: taken.extend(rows) or read(rows))
    threads = Threads(count, monkeypatch)
    caches = [tmp_path / str(i) for i in range(count)]  # not one folder that all see

    def measure(number, keep=300):
        extractor = scorer.extractor
        return reference.measure(source, "digest", extractor, caches[number], keep=keep)

    once = threads.results(measure)
    assert sorted(taken) == list(range(355))
    again = threads.results(measure)  # found by process 0
    assert len(taken) == 355
    assert [len(list(folder.glob("*.npz"))) for folder in caches if folder.exists()] == [2]
    for got in (*once, *again):
        for name in ("mean", "covariance"):
            x, y = (getattr(side.statistics, name) for side in (got, alone))
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(x, getattr(once[0].statistics, name))
        assert got.statistics.count == 355 and len(got.features) == 300
        np.testing.assert_array_equal(got.features, once[0].features)
        np.testing.assert_array_equal(got.labels, once[0].labels)
    kept = np.sort(np.random.default_rng(0).permutation(355)[:300])
    np.testing.assert_array_equal(once[0].labels, read(range(355))[1][kept])
    np.testing.assert_allclose(once[0].features, alone.features[kept], rtol=1e-5, atol=1e-5)
    if count == 2:  # files that others have replaced are measured anew, on every host
        monkeypatch.setattr(source, "stamp", lambda: "later")
        threads.results(measure)
        assert len(taken) == 2 * 355


def test_all_processes_hear_of_one_that_fails(opened, monkeypatch):
    scorer, generator = opened
    monkeypatch.setattr(evaluator_lib, "BATCH_SIZE", 32)
    threads = Threads(2, monkeypatch)

    class Failing:
        def __getattr__(self, name):
            return getattr(scorer.extractor, name)

        def __call__(self, images):
            if threads.own.number == 1:
                raise UserError("these images are not taken")
            return scorer.extractor(images)

    failing = dataclasses.replace(scorer, extractor=Failing())
    results = threads.results(lambda number: failing(generator))
    assert results == ["these images are not taken"] * 2


def test_a_follower_is_one_process(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert cli.main(["evaluate", f"--from={tmp_path}", "--follow"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--follow is one process beside a run")
