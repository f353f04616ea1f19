"""`biggan evaluate`: scores with their protocol, curves, following a run, bad input."""

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, data
from biggan_jax import config as config_lib
from biggan_jax.errors import UserError
from biggan_jax.evaluation import (
    class_match,
    evaluate,
    folders,
    follow,
    inputs,
    memorisation,
    opening,
    reference,
    report,
)
from biggan_jax.evaluation import evaluator as evaluator_lib
from biggan_jax.metrics import classifier, moments
from biggan_jax.metrics import scores as score_lib
from biggan_jax.metrics.classifier import Classifier
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.sampling import load
from biggan_jax.storage import best, checkpoint
from tests import runs

pytestmark = pytest.mark.usefixtures("few_steps")
TEST = "digits:test"
SETTINGS = opening.Settings(data=TEST, num_samples=90)


@pytest.fixture(scope="module")
def few_steps():
    """Classifiers are fitted in a few steps; the scores need not mean much here."""
    with pytest.MonkeyPatch.context() as patch:
        recipe = Recipe(max_images=640, batch_size=64, holdout=0.02)
        patch.setattr(inputs, "cached", functools.partial(classifier.cached, recipe=recipe))
        yield


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory, few_steps):
    """A copy of the run whose cache holds a classifier and the measured test digits."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("evaluate") / "run")
    evaluate.evaluate(folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def opened(workdir):
    """(evaluator, generator) of the run."""
    config = runs.tiny_config("--config.model.num_classes=10")
    scorer = opening.open_evaluator(config, workdir / "cache", SETTINGS)
    return scorer, load.load_generator(workdir)


@pytest.mark.full
def test_the_protocol_says_that_held_out_images_are_among_the_real_ones(opened, tmp_path):
    scorer, generator = opened
    of_other_data = scorer.protocol(generator)
    assert "real_held_out" not in of_other_data
    overrides = ("--config.model.num_classes=10", f"--config.data.source={TEST}")
    prints = []
    for share in (0.0, 0.25):
        config = runs.tiny_config(*overrides, f"--config.data.holdout={share}")
        found = opening.open_evaluator(config, tmp_path, SETTINGS).protocol(generator)
        assert found.get("real_held_out") == (share and "included, 0.25 of all" or None)
        assert found["real_count"] == of_other_data["real_count"]
        prints.append(found["fingerprint"])
    assert prints[0] == prints[1]  # the same real side: the two may be compared


def copy_of(workdir, tmp_path):
    return shutil.copytree(workdir, tmp_path / "run")


def command(workdir, *more):
    return ["evaluate", f"--from={workdir}", "--data", TEST, "--samples=90", *map(str, more)]


def test_scores_protocol_and_report(workdir, tmp_path, capsys):
    assert cli.main([*command(workdir, "--out", tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    out = json.loads(captured.out)
    assert out["scores"].keys() == {
        "fid", "is_mean", "is_std", "kid", "precision", "recall", "density", "coverage",
        "class_accuracy", "intra_fid", "authenticity",
    } | (out["scores"].keys() & {"kid_standard_error"})  # fmt: skip
    assert "fitting" not in captured.err and "real images:" not in captured.err  # all cached
    # The run has trained on all digits, those of the test split among them.
    assert out["absent"].keys() == set(memorisation.HELD_OUT_SCORES)
    assert "no training images, and there are 0" in out["absent"]["data_copying"]
    p = out["protocol"]
    assert p["memorisation"].startswith("1,797 training images, 0 held-out images of digits:test")
    assert (p["real"], p["real_count"], p["samples"], p["step"]) == (TEST, 355, 90, 4)
    assert p["features"] == "classifier" and p["weights"] == "ema" and p["bn_mode"] == "running"
    assert len(p["features_digest"]) == len(p["real_digest"]) == 64
    rows = out["per_class"]
    assert [row["asked"] for row in rows] == [9] * 10
    assert np.mean([r["accuracy"] for r in rows]) == pytest.approx(out["scores"]["class_accuracy"])
    assert np.mean([row["intra_fid"] for row in rows]) == pytest.approx(out["scores"]["intra_fid"])
    assert json.loads((tmp_path / "evaluation.json").read_text()) == out
    again = evaluate.evaluate(workdir, SETTINGS)
    assert again["scores"] == out["scores"] and again["protocol"] == p


def test_scores_are_those_of_the_arrays(workdir, opened):
    """The pass agrees with features taken by hand."""
    scorer, generator = opened
    result = scorer(generator)
    labels = np.arange(90, dtype=np.int32) % 10
    images = generator(generator.sample_z(0, 90), labels)
    uint8 = np.rint((images.astype(np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    features, logits = scorer.extractor.features(uint8)
    real = scorer.reference
    score = score_lib
    mu, sigma = features.astype(np.float64).mean(0), np.cov(features.astype(np.float64).T)
    fid = score.frechet_distance(real.statistics.mean, real.statistics.covariance, mu, sigma)
    assert result["scores"]["fid"] == pytest.approx(fid, rel=1e-6)
    assert result["scores"]["is_mean"] == pytest.approx(
        score.inception_score(logits)["mean"], rel=1e-9
    )
    prdc = score.prdc(real.features, features)
    assert {name: result["scores"][name] for name in prdc} == pytest.approx(prdc)
    assert result["scores"]["class_accuracy"] == (logits.argmax(1) == labels).mean()


def test_one_device_and_eight_agree(workdir, opened):
    scorer, generator = opened
    assert len(jax.devices()) == 8
    path = next((workdir / "cache").glob("classifier-*"))
    alone = Classifier.load(path, devices=jax.devices()[:1])
    images, _ = data.open_source(TEST, resolution=16, channels=1).read(range(40))
    np.testing.assert_allclose(
        alone(images)["features"], scorer.extractor(images)["features"], rtol=1e-5, atol=1e-5
    )
    other = dataclasses.replace(scorer, extractor=alone)(generator)["scores"]
    assert other == pytest.approx(scorer(generator)["scores"], rel=1e-5)


@pytest.mark.full
def test_the_step_is_in_the_protocol(workdir, tmp_path, capsys):
    assert cli.main([*command(workdir, "--step=2", "--out", tmp_path), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    newest = evaluate.evaluate(workdir, SETTINGS)
    assert (second["protocol"]["step"], newest["protocol"]["step"]) == (2, 4)
    assert second["scores"]["fid"] != newest["scores"]["fid"]


def test_curve_of_truncations(workdir, tmp_path, capsys):
    assert cli.main(command(workdir, "--truncation=1.0,0.1", "--out", tmp_path)) == 0
    table = capsys.readouterr().out.splitlines()
    out = json.loads((tmp_path / "truncation.json").read_text())
    assert [point["truncation"] for point in out["curve"]] == [0.1, 1.0]
    assert len({point["fingerprint"] for point in out["curve"]}) == 2
    assert out["protocol"]["truncation"] == 1.0 and out["scores"] == out["curve"][1]["scores"]
    # Samples of a class differ less from one another.
    assert out["curve"][0]["scores"]["recall"] <= out["curve"][1]["scores"]["recall"]
    assert out["curve"][0]["scores"]["fid"] != out["curve"][1]["scores"]["fid"]
    assert table[0].split()[:2] == ["truncation", "fid"] and table[1].startswith("0.1 ")
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".csv", ".png"}


def test_matrix(workdir):
    out = evaluate.evaluate(workdir, SETTINGS, matrix=True, ema=False)
    cells = {(row["bn_mode"], row["weights"]): row["scores"]["fid"] for row in out["matrix"]}
    modes = ("running", "batch", "standing")
    assert cells.keys() == {(mode, name) for mode in modes for name in ("ema", "raw")}
    assert len(set(cells.values())) == 6
    assert out["scores"]["fid"] == cells["running", "raw"] and out["protocol"]["weights"] == "raw"
    assert len({row["fingerprint"] for row in out["matrix"]}) == 6


def test_reference_file_gives_fid_without_the_data(workdir, tmp_path):
    statistics = next((workdir / "cache").glob("reference-*.npz"))
    settings = dataclasses.replace(SETTINGS, reference=statistics)
    own, full = evaluate.evaluate(workdir, settings), evaluate.evaluate(workdir, SETTINGS)
    assert own["scores"]["fid"] == full["scores"]["fid"] and "kid" not in own["scores"]
    assert own["protocol"]["real_digest"] == full["protocol"]["real_digest"]
    # A file of pytorch-fid says nothing of its making.
    made = moments.load(statistics)
    np.savez(tmp_path / "plain.npz", mu=made.mean, sigma=made.covariance)
    plain = dataclasses.replace(SETTINGS, reference=tmp_path / "plain.npz")
    result = evaluate.evaluate(workdir, plain)
    assert result["scores"]["fid"] == full["scores"]["fid"]
    assert result["protocol"]["real"] == "plain.npz" and result["protocol"]["real_count"] is None


@pytest.mark.full
def test_damaged_cache_is_measured_again(workdir, opened, tmp_path):
    folder = copy_of(workdir, tmp_path)
    for path in folder.glob("cache/*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    result = evaluate.evaluate(folder, SETTINGS)
    assert result["scores"] == opened[0](opened[1])["scores"]


def test_training_scores_and_keeps_the_best(trained, tmp_path):
    workdir = tmp_path / "run"
    more = ("eval_every_steps=2", "eval_samples=70", "keep_checkpoints=1")
    assert runs.train(workdir, *(f"--config.{setting}" for setting in more)) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    fids = {line["step"]: line["eval/fid"] for line in lines if "eval/fid" in line}
    assert sorted(fids) == [2, 4] and len(set(fids.values())) == 2
    step = min(fids, key=fids.get)
    assert checkpoint.Checkpoints(workdir / "checkpoints").all_steps() == [4]
    kept = best.read(workdir)
    assert (kept["step"], kept["score"]) == (step, fids[step])
    shutil.copytree(workdir / "cache", workdir / "best" / "cache")
    settings = dataclasses.replace(SETTINGS, data=None, num_samples=70)
    alone = evaluate.evaluate(workdir / "best", settings)
    assert alone["scores"]["fid"] == fids[step]
    runs.assert_same_state(workdir, trained, 4)  # looking at a run does not change it
    rest = [line for line in runs.metric_lines(workdir) if "eval/fid" not in line]
    assert rest == runs.metric_lines(trained)
    # A later command without the scores does not lose it.
    assert runs.train(workdir, "--config.num_steps=6", "--config.keep_checkpoints=1") == 0
    assert best.read(workdir) == kept
    assert load.load_generator(workdir / "best")(np.zeros((1, 12)), [3]).shape == (1, 16, 16, 1)


def test_bad_settings_of_a_training_run(workdir):
    config = runs.tiny_config("--config.eval_every_steps=2", "--config.eval_samples=64")
    source = data.open_source("digits", resolution=16, channels=1)
    opened = functools.partial(evaluate.during_training, source=source, digest=source.digest())
    with pytest.raises(UserError, match="64 samples.*set --config.eval_samples=65 or more"):
        opened(config, workdir=workdir)
    config.eval_features = "inception"
    with pytest.raises(UserError, match="no Inception weights"):
        opened(config, workdir=workdir)
    config.eval_every_steps = None
    assert opened(config, workdir=workdir) is None


def advised(message):
    """The option that a message tells the user to set."""
    return re.search(r"(?:set|use) (--config[^ ]+|--[^ ]+ [^ ]+)", message)[1]


@pytest.mark.full
def test_advice_can_be_followed_literally(workdir, tmp_path, capsys):
    """On the command line, and in the settings of a run."""
    assert cli.main(command(workdir, "--samples=64")) == 2
    words = advised(capsys.readouterr().err).split()
    assert words == ["--samples", "65"]
    assert cli.main([*command(workdir, "--out", tmp_path), *words]) == 0
    capsys.readouterr()
    config = runs.tiny_config("--config.eval_every_steps=2", "--config.eval_samples=64")
    source = data.open_source("digits", resolution=16, channels=1)
    opened = functools.partial(
        evaluate.during_training, source=source, digest=source.digest(), workdir=workdir
    )
    with pytest.raises(UserError) as caught:
        opened(config)
    assert advised(str(caught.value)) == "--config.eval_samples=65"
    assert opened(runs.tiny_config("--config.eval_every_steps=2", advised(str(caught.value))))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (evaluator_lib.COMMAND, ["--features", "inception"]),
        (evaluator_lib.CONFIG, ["--config.eval_features=inception"]),
    ],
)
def test_a_single_class_asks_for_other_features(tmp_path, options, advice):
    (tmp_path / "images" / "one").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("L", (16, 16)).save(tmp_path / "images" / "one" / name)
    settings = opening.Settings(features="classifier", num_samples=90, options=options)
    config = runs.tiny_config(f"--config.data.source=folder:{tmp_path / 'images'}")
    with pytest.raises(UserError, match="single class") as caught:
        opening.open_evaluator(config, tmp_path / "cache", settings)
    assert advised(str(caught.value)).split() == advice
    if options is evaluator_lib.CONFIG:
        assert runs.tiny_config(*advice).eval_features == "inception"
    else:
        args = cli.parser().parse_args(["evaluate", "--from=x", *advice])
        assert args.features == "inception"


@pytest.mark.full
def test_training_images_that_are_gone(workdir, tmp_path, capsys):
    folder = copy_of(workdir, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["source"] = "folder:gone"
    (folder / "config.json").write_text(json.dumps(config))
    assert cli.main(["evaluate", f"--from={folder}", "--samples=90"]) == 2
    words = "data.source='folder:gone'.*relative to where the training ran: say where they are "
    words += "with --data SPEC, restore them, or use --features inception$"
    runs.assert_one_error(capsys.readouterr(), words)
    assert cli.main(["evaluate", f"--from={folder}", "--features=inception"]) == 2
    captured = capsys.readouterr()
    words = "data.source='folder:gone'.*relative.*give other real images with --data SPEC$"
    runs.assert_one_error(captured, words)
    # The advice, followed: the images are those that the cached classifier was fitted to.
    assert cli.main(["evaluate", f"--from={folder}", "--samples=90", "--data=digits"]) == 0
    err = capsys.readouterr().err
    assert "the classifier is one of --data digits" in err and "fitting" not in err


def test_inception_weights_that_are_somewhere_else(tmp_path):
    """The message names the folder, the file and the command."""
    published = tmp_path / inputs.inception.PUBLISHED_NAME
    with pytest.raises(
        UserError, match=f"no Inception weights in {tmp_path}: download .*{published.name}"
    ):
        inputs.open_inception(tmp_path)
    published.touch()
    words = f"run `biggan import --format inception-fid {tmp_path} --out {tmp_path}`$"
    with pytest.raises(UserError, match=words):
        inputs.open_inception(tmp_path)
    with pytest.raises(UserError, match="is a file: name the folder that holds inception.npz"):
        inputs.open_inception(published)


@pytest.mark.full
def test_unwritable_directory(workdir, tmp_path, capsys, monkeypatch):
    """Its cache is read, and what is measured anew is kept elsewhere; the report is refused."""
    folder = copy_of(workdir, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    unwritable = folders.unwritable

    def read_only(path):
        inside = Path(path).is_relative_to(folder)
        return "Read-only file system" if inside else unwritable(path)

    monkeypatch.setattr(folders, "unwritable", read_only)
    before = sorted(folder.rglob("*"))
    assert cli.main(command(folder)) == 0
    captured = capsys.readouterr()
    assert f"{folder / 'cache'} cannot be written (Read-only file system): using" in captured.err
    assert "fitting" not in captured.err and "real images:" not in captured.err  # copied
    last = f"not written: {folder / 'report'} cannot be written (Read-only file system)"
    assert last in captured.out.splitlines()[-1]
    assert cli.main(command(folder, "--data=digits:train")) == 0  # measured anew
    assert sorted(folder.rglob("*")) == before
    (cache,) = (tmp_path / "home" / ".cache" / "biggan_jax").iterdir()
    held = len(list(folder.glob("cache/reference-*.npz")))
    assert len(list(cache.glob("reference-*.npz"))) == held + 1
    capsys.readouterr()
    assert follow_run(folder) == 2
    words = "Read-only file system.*leave out --follow, and name a folder with --out"
    runs.assert_one_error(capsys.readouterr(), words)


@pytest.mark.full
def test_no_folder_for_the_cache(workdir, tmp_path, capsys, monkeypatch):
    """Before anything is measured; the advice works."""
    folder = copy_of(workdir, tmp_path)
    shutil.move(folder / "cache", tmp_path / "kept")
    (folder / "cache").write_text("no folder")
    monkeypatch.setenv("HOME", "/dev/null")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "open_evaluator", None)
        assert cli.main(command(folder)) == 2
    words = "cache cannot be written .Not a directory.: name a folder.*--cache DIR"
    runs.assert_one_error(capsys.readouterr(), words)
    assert cli.main(command(folder, "--cache", tmp_path / "kept")) == 0
    assert "real images:" not in capsys.readouterr().err


def follow_run(folder):
    return cli.main(command(folder, "--follow", "--json"))


def jsonl(folder):
    return [json.loads(x) for x in (folder / "evaluations.jsonl").read_text().splitlines()]


def test_follow_scores_every_checkpoint_once(workdir, tmp_path, capsys, monkeypatch):
    folder = copy_of(workdir, tmp_path)
    read = follow.networks.from_checkpoint

    def read_then_delete(directory, config, name, step=None):
        found = read(directory, config, name, step)
        if step == 2:  # as the retention of the run would
            shutil.rmtree(directory / "checkpoints" / "2", ignore_errors=True)
        return found

    monkeypatch.setattr(follow.networks, "from_checkpoint", read_then_delete)
    assert follow_run(folder) == 0
    out = json.loads(capsys.readouterr().out)
    lines = jsonl(folder)
    assert [line["step"] for line in lines] == [2, 4] and out["evaluations"] == lines
    assert [line["images_seen"] for line in lines] == [32, 64]
    alone = evaluate.evaluate(workdir, SETTINGS)
    assert lines[1]["scores"] == alone["scores"]
    best = min(lines, key=lambda line: line["scores"]["fid"])
    assert out["best"] == {"step": best["step"], "fid": best["scores"]["fid"]}
    copied = evaluate.evaluate(folder / "best", SETTINGS)
    assert copied["scores"] == best["scores"] and copied["protocol"]["step"] == best["step"]
    with pytest.raises(UserError, match="leave out --follow"):
        follow.follow(folder / "best", None, None)
    # A second process goes on where the first stopped, whatever a kill has torn.
    with open(folder / "evaluations.jsonl", "a") as file:
        file.write('{"step": 5, "sco')
    assert follow_run(folder) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == lines
    assert (folder / "evaluations.jsonl").read_text().count("\n") == 3


def test_two_followers_of_one_run(workdir, tmp_path, capsys, monkeypatch):
    """The second is refused before it fits or measures anything; the first never notices."""
    folder = shutil.copytree(workdir, tmp_path / "run")
    monkeypatch.setattr(opening, "open_evaluator", None)
    other = "import sys, os; from biggan_jax.storage import lock; from biggan_jax.evaluation import"
    other += " follow\nwith lock.held(sys.argv[1], follow.FOLLOWING): print(1, flush=True); "
    other += "sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", other, folder / "evaluations"],
        cwd=runs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout.readline() == "1\n"
        assert follow_run(folder) == 2
        words = f"has a follower already: process {first.pid} on .* scoring its checkpoints for"
        runs.assert_one_error(capsys.readouterr(), words, rf"`kill {first.pid}`")
        first.stdin.close()
    assert first.returncode == 0
    monkeypatch.setattr(follow, "_follow", lambda *_: {"evaluations": []})
    with follow.alone(folder):  # its caller's is its own
        assert follow.follow(folder, None, None) == {"evaluations": []}
    assert not (folder / "evaluations" / "lock").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--samples=64"], "64 samples for the 64 dimensions .*set --samples 65 or more"),
        (["--reference=nowhere.npz"], "nowhere.npz: no such statistics file"),
        (["--data=digits:nowhere"], "nowhere"),
        (["--data={folder}"], "has 2 classes"),
    ],
)
def test_nothing_is_fitted_before_what_can_be_refused_is(
    trained, tmp_path, capsys, monkeypatch, more, words
):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(tmp_path / "images" / name / "0.png")
    fitted = []
    monkeypatch.setattr(inputs, "fitted_classifier", lambda *_, **__: fitted.append(1) or 1 / 0)
    more = [text.format(folder=f"folder:{tmp_path}/images") for text in more]
    cache = f"--cache={tmp_path}/cache"
    assert cli.main(["evaluate", f"--from={trained}", "--samples=90", cache, *more]) == 2
    runs.assert_one_error(capsys.readouterr(), words)
    assert not fitted


def test_follow_waits_for_an_unfinished_run_until_interrupted(workdir, tmp_path, monkeypatch):
    folder = copy_of(workdir, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_steps": 9, "tensorboard": True}))
    written = []

    class Board:
        def __init__(self, path, active):
            assert path == folder / "evaluations" and active

        def write(self, step, images_seen, scalars):
            written.append((step, images_seen, scalars["eval/fid"]))

        def close(self):
            written.append("closed")

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.writers, "Writers", Board)
    monkeypatch.setattr(follow.time, "sleep", sleep)
    assert follow_run(folder) == 130
    lines = jsonl(folder)
    assert [line["step"] for line in lines] == [2, 4]
    seen = [(line["step"], line["images_seen"], line["scores"]["fid"]) for line in lines]
    assert written == [*seen, "closed"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--samples=99999999999"], "99,999,999,999 samples would.*set --samples 10000"),
        (["--samples=1"], "1 sample has.*set --samples 2 or more"),
        (["--samples=64"], "64 samples for the 64 dimensions.*set --samples 65 or more"),
        (["--data=digits:dev"], "--data='digits:dev'.*no split 'dev'"),
        (["--data=folder:none"], "none"),
        (
            ["--features=inception", "--inception=none"],
            "no Inception weights in none: download.*inception-fid .* --out none`$",
        ),
        (["--reference=none.npz"], "none.npz: no such statistics"),
        (["--truncation=0.1,x"], "--truncation: '0.1,x' is no list.*positive"),
        (["--truncation=0.1,1", "--matrix"], "--matrix takes a single --truncation"),
        (["--follow", "--matrix"], "--follow takes no --matrix"),
        (["--seed=4294967296"], "seed is 4294967296; it must be an integer of 32 bits"),
        (["--cache=/dev/null/x"], "--cache /dev/null/x cannot be written .Not a directory."),
        (["--out=/dev/null/x"], "--out /dev/null/x cannot be written .Not a directory."),
        (["--bn-mode=best"], "--bn-mode.*'best'"),
        (["--frob"], "--frob"),
    ],
)
def test_bad_input_is_one_line(workdir, capsys, monkeypatch, more, words):
    monkeypatch.setattr(reference, "measure", None)  # nothing expensive comes first
    assert cli.main(command(workdir, *more)) == 2
    runs.assert_one_error(capsys.readouterr(), words)


@pytest.mark.full
def test_statistics_of_other_features_are_refused(workdir, tmp_path, capsys):
    path = tmp_path / "s.npz"
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
    assert cli.main(command(workdir, "--reference", path)) == 2
    runs.assert_one_error(capsys.readouterr(), "2048 feature dimensions.* 64")
    other = moments.Statistics(np.zeros(64), np.eye(64), 9, {"features_digest": "abc"})
    path.write_bytes(other.to_bytes())
    assert cli.main(command(workdir, "--reference", path)) == 2
    runs.assert_one_error(capsys.readouterr(), "features_digest abc.*leave out --reference")


def test_images_that_are_not_finite(opened):
    scorer, generator = opened
    weights = jax.tree.map(lambda x: x * np.float32("nan"), generator._variables["params"])
    broken = generator.replace(generator._variables | {"params": weights})
    words = "90 of the generated images 0 to 89 hold NaN.* ema weights are broken; --raw takes"
    with pytest.raises(UserError, match=words):
        scorer(broken)
    with pytest.raises(UserError, match="raw weights are broken$"):
        scorer(broken, weights="raw")


def test_classes_with_too_few_images(opened):
    scorer, generator = opened
    real = scorer.reference
    labels = np.where(real.labels == 3, 4, real.labels)
    emptied = reference.Reference(real.statistics, real.features, labels)
    other = dataclasses.replace(scorer, reference=emptied)
    result = other(generator)
    assert "intra_fid" not in result["scores"] and "class_accuracy" in result["scores"]
    assert "the data have 0 of class 3 (3)" in result["absent"]["intra_fid"]
    assert "intra_fid" not in dataclasses.replace(other, intra_fid=False)(generator)["absent"]
    kept = dataclasses.replace(scorer, keep=15).absent(generator)
    assert kept.keys() == {"intra_fid"} and "15 samples are 1 for some" in kept["intra_fid"]
    fifty = reference.Reference(real.statistics, real.features[:100], np.arange(100) % 50)
    why = dataclasses.replace(scorer, reference=fifty)._too_few_of_a_class(50)
    assert why.endswith("90 samples are 1 for some of them (set --samples 100 or more)")


@pytest.mark.parametrize(
    ("count", "lacking"),
    [
        (6, {"intra_fid"}),
        (5, {"density", "coverage", "intra_fid"}),
        (3, {"precision", "recall", "density", "coverage", "intra_fid"}),
    ],
)
def test_scores_that_too_few_real_images_leave_out(opened, count, lacking):
    """The others are there, and a line says which are not, and why."""
    scorer, generator = opened
    real = scorer.reference
    few = reference.Reference(real.statistics, real.features[:count], real.labels[:count])
    result = dataclasses.replace(scorer, reference=few, training=None)(generator)
    assert result["absent"].keys() == lacking and not lacking & result["scores"].keys()
    rest = {"fid", "kid", "precision", "recall", "density", "coverage", "class_accuracy"} - lacking
    assert rest <= result["scores"].keys()
    lines = [line for line in report.lines(result) if line.startswith("left out: ")]
    assert len(lines) == len(set(result["absent"].values()))
    if "density" in lacking:
        words = f"density, coverage (needs k = 5 neighbours, and there are {count} real images)"
        assert any(words in line for line in lines)


def test_classes_of_the_data_are_matched_by_name(workdir, tmp_path):
    """Real digits in folders of another order give the scores of the same digits in order."""
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    folder = copy_of(workdir, tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"class_names": names}
    source = data.open_source(TEST, resolution=16, channels=1)
    images, labels = source.read(range(60))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = tmp_path / "real" / names[label] / f"{i:02}.png"  # sorted: eight, five, four, ...
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place)
    spec = f"folder:{tmp_path / 'real'}"
    config["data"]["source"] = spec
    path.write_text(json.dumps(config))
    config = config_lib.from_saved(config)
    settings = dataclasses.replace(SETTINGS, data=None)
    by_name = opening.open_evaluator(config, tmp_path / "cache", settings)
    assert by_name.classes.how == "by name" and by_name.classes.names == tuple(names)
    real = data.open_source(spec, resolution=16, channels=1)
    expected = [names.index(real.class_names[i]) for i in real.read(range(60))[1]]
    assert by_name.reference.labels.tolist() == expected
    out = by_name.extractor(images[:8])["logits"]
    swapped = by_name.classes.logits(out)
    for j, name in enumerate(names):
        np.testing.assert_array_equal(swapped[:, j], out[:, real.class_names.index(name)])
    result = by_name(load.load_generator(folder))
    assert result["protocol"]["classes"] == "by name"
    assert [row["name"] for row in result["per_class"]] == names
    # Other names in equal number: refused with both lists, or scored without classes.
    config.class_names = ("cat", *names[1:])
    for cache in (tmp_path / "cache", tmp_path / "other"):
        with pytest.raises(UserError) as error:
            opening.open_evaluator(config, cache, settings)
        for words in ("(eight, five, four,", "(cat, one, two,", "--no-intra-fid"):
            assert words in str(error.value)
    without = dataclasses.replace(settings, intra_fid=False)
    assert opening.open_evaluator(config, tmp_path / "cache", without).classes.names == ()


def test_classes_by_index_where_the_model_has_no_names():
    assert class_match.match((), ("a", "b"), "data").how == "by index"
    same = class_match.match(("a", "b"), ("x", "y"), "data", known=False)
    assert same.how == "by index" and same.ids is None
    with pytest.raises(UserError, match="data has 1 class .a., the model 2 .a, b.: give"):
        class_match.match(("a", "b"), ("a",), "data")
    other = class_match.match(("a", "b"), ("b", "a"), "data", known=False)
    assert other.how == "by name" and other.labels(np.array([0, 1, 1])).tolist() == [1, 0, 0]
    with pytest.raises(UserError, match=r"has 3 classes \(x, y, z\), the model 2 \(a, b\)"):
        class_match.match(("a", "b"), ("x", "y", "z"), "data", known=False)


def test_natural_default_of_the_features(tmp_path, monkeypatch):
    name = inputs.features_name
    monkeypatch.setenv(inputs.INCEPTION_VARIABLE, str(tmp_path))
    assert name(None, None, 3) == "classifier" == name("classifier", tmp_path, 3)
    assert name(None, tmp_path, 1) == "inception" == name("inception", None, 1)
    (tmp_path / inputs.inception.FILE).touch()
    assert name(None, None, 3) == "inception" and name(None, None, 1) == "classifier"
