"""Copies of training images: which sets are compared, what is said of them, and where."""

import json
import types

import numpy as np
import pytest

from biggan_jax import cli, data
from biggan_jax.data import holdout
from biggan_jax.errors import UserError
from biggan_jax.evaluation import memorisation, opening, report
from biggan_jax.evaluation.reference import Reference
from tests import runs


def drawn(count, seed, size=6):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def split(features, share=0.25, other=None):
    return memorisation.sets(range(len(features)), share, features, other, "classifier")


def test_the_sets_are_those_that_training_tells_apart():
    features = drawn(200, 0)
    mask = holdout.of_indices(200, 0.25)
    found = split(features)
    np.testing.assert_array_equal(found.train, features[~mask])
    np.testing.assert_array_equal(found.held_out, features[mask])
    assert (
        found.described
        == f"{(~mask).sum()} training images, {mask.sum()} held-out images of the run"
    )
    found = split(features, 0.0, ("folder:x:test", drawn(30, 1)))
    assert len(found.train) == 200 and found.described.endswith(
        "30 held-out images of folder:x:test"
    )
    found = split(features, 0.25, ("folder:x:test", drawn(30, 1)))
    assert len(found.held_out) == mask.sum()  # of the run itself
    assert split(features, 0.0).why == memorisation.NO_HELD_OUT
    few = split(features, 0.0, ("x", drawn(19, 1)))
    assert few.held_out is None and "20 held-out images that are no training images" in few.why


def test_held_out_images_that_were_trained_on_are_left_out():
    features, others = drawn(200, 0), drawn(40, 1)
    others[:15] = features[:15] + 1e-7
    found = split(features, 0.0, ("x", others))
    np.testing.assert_array_equal(found.held_out, others[15:])
    assert found.described.endswith(
        "25 held-out images of x without 15 that are training images too"
    )


@pytest.mark.parametrize("held_out", [True, False])
def test_copies_are_told_from_fresh_draws(held_out):
    found = split(drawn(400, 0), 0.25 if held_out else 0.0)
    rng = np.random.default_rng(5)
    copies = found.train[rng.integers(0, len(found.train), 300)]
    half = np.concatenate([copies[:200] + 0.01, drawn(100, 3)])
    judged = {}
    for name, fake in (("copies", copies), ("half", half), ("fresh", drawn(300, 2))):
        values, absent = memorisation.score(found, fake)
        assert (values.keys() | absent.keys()) == {"authenticity", *memorisation.HELD_OUT_SCORES}
        assert bool(absent) != held_out
        judged[name] = memorisation.judge(values, found.described, found.features)
        assert f"{values['authenticity']:.0%} of the samples" in judged[name]["sentence"]
    assert judged["copies"]["verdict"] == "copies"
    assert "The samples are copies" in judged["copies"]["sentence"]
    assert judged["half"]["verdict"] == "nearer"
    assert judged["fresh"]["verdict"] == "none"
    limits = judged["fresh"]["limits"]
    assert "classifier features" in limits and found.described in limits and "proves" in limits


def test_data_without_two_different_images_have_no_scores():
    found = split(np.ones((50, 3), np.float32))
    values, absent = memorisation.score(found, drawn(9, 0, 3))
    assert values == {} and "two different training images" in absent["authenticity"]
    assert memorisation.judge(values, "", "") is None


def opened(tmp_path, asked=None, *overrides, side=None, count=300, opens=True):
    config = runs.tiny_config(*overrides)
    source = types.SimpleNamespace(spec=config.data.source)
    training = type("Training", (), {"spec": source.spec, "__len__": lambda self: count})()

    def open_training():
        if not opens:
            raise UserError("gone")
        return training, "digest"

    def measure(pair):
        assert pair[0] is training
        return Reference(None, drawn(count, 0))

    real = Reference(None, drawn(40, 1))
    features = {"at_hand": None, "open_training": open_training, "measure": measure}
    return memorisation.opened(config, asked, side, real, **features, features="classifier")


def test_copies_are_sought_where_training_images_are_few_or_it_is_asked_for(tmp_path, monkeypatch):
    other = types.SimpleNamespace(spec="digits:test"), "digest"
    found = opened(tmp_path, side=other)
    assert len(found.train) == 300 and "40 held-out images of digits:test" in found.described
    assert opened(tmp_path, False, side=other) is None
    assert opened(tmp_path, side=other, opens=False) is None
    with pytest.raises(UserError, match="gone"):
        opened(tmp_path, True, side=other, opens=False)
    assert opened(tmp_path, None, "--config.data.source=tfds:cifar10", side=other) is None
    monkeypatch.setattr(memorisation, "LARGEST", 299)
    assert opened(tmp_path, side=other) is None
    assert len(opened(tmp_path, True, side=other).train) == 300


class Fixed:
    """A generator whose samples are given images."""

    def __init__(self, generator, images):
        self._generator, self._images = generator, images

    def __getattr__(self, name):
        return getattr(self._generator, name)

    def __call__(self, z, labels):
        return self._images[: len(labels)].astype(np.float32) / 127.5 - 1


class Blocks:
    """Features network: the mean grey values of 4 x 4 blocks."""

    name, digest, resize, feature_dim = "blocks", "0" * 64, "none", 16
    has_logits = True

    def __call__(self, images):
        blocks = images.reshape(len(images), 4, 4, 4, 4).mean(axis=(2, 4))
        logits = np.zeros((len(images), 10), np.float32)
        return {"features": blocks.reshape(-1, 16).astype(np.float32), "logits": logits}


def test_an_evaluation_says_that_training_images_are_copied(trained, tmp_path, monkeypatch):
    from biggan_jax.sampling import load

    monkeypatch.setattr(opening, "_fitted", lambda *args: Blocks())
    share = "--config.data.holdout=0.25"
    config = runs.tiny_config("--config.data.source=digits:train", share)
    scorer = opening.open_evaluator(config, tmp_path, opening.Settings(num_samples=150))
    source = data.open_source("digits:train", resolution=16, channels=1)
    held_out = holdout.of_indices(len(source), 0.25)
    generator = load.load_generator(trained)
    images = source.read(np.flatnonzero(~held_out)[:150])[0]
    fresh = data.open_source("digits:test", resolution=16, channels=1).read(range(150))[0]
    results = [scorer(Fixed(generator, shown)) for shown in (images, fresh)]
    copies, other = (result["scores"] for result in results)
    assert copies["authenticity"] == 0 and copies["nearer_than_held_out"] > 0.99
    assert copies["data_copying"] < -10
    assert other["authenticity"] > 0.3 and abs(other["data_copying"]) < 4
    assert [result["memorisation"]["verdict"] for result in results] == ["copies", "none"]
    said = report.lines(results[0])
    assert any(line.startswith("The samples are copies") for line in said)
    assert "held-out images of the run" in results[0]["protocol"]["memorisation"]
    without = opening.open_evaluator(
        config, tmp_path, opening.Settings(num_samples=150, memorisation=False)
    )
    assert without.training is None
    prints = [e.protocol(generator)["fingerprint"] for e in (scorer, without)]
    assert prints[0] == prints[1]


@pytest.mark.full
def test_the_page_of_a_run_shows_what_the_evaluation_found(tmp_path):
    from biggan_jax.evaluation import run_history, run_tables
    from tests.evaluation import made_run

    workdir = made_run.make(tmp_path / "run")
    place = workdir / "report" / "evaluation.json"
    assert run_tables.memorisation(run_history.read(workdir)).is_empty()
    judged = {"verdict": "copies", "sentence": "The samples are <copies>.", "limits": "Seen in x."}
    scores = {"fid": 3.0, "authenticity": 0.01, "data_copying": -20.5}
    protocol = {"step": 4, "features": "classifier", "memorisation": "100 training images"}
    found = {"scores": scores, "protocol": protocol, "memorisation": judged}
    place.parent.mkdir()
    place.write_text(json.dumps(found))
    section = run_tables.memorisation(run_history.read(workdir))
    assert section.text[:2] == ["The samples are <copies>.", "Seen in x."]
    assert section.tables[0].rows == [("authenticity", "0.01"), ("data_copying", "-20.5")]
    assert cli.main(["report", f"--from={workdir}"]) == 0
    assert "The samples are &lt;copies&gt;." in (workdir / "report" / "index.html").read_text()
    for damaged in ("{", "[]", '{"memorisation": 3}', '{"memorisation": {"sentence": 7}}'):
        place.write_text(damaged)
        assert run_tables.memorisation(run_history.read(workdir)).is_empty()
        assert cli.main(["report", f"--from={workdir}"]) == 0
