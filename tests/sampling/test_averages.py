"""Averages chosen afterwards: by name in every command that reads a generator, and scored."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, load_generator
from biggan_jax.config import averages
from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.evaluation import inputs
from biggan_jax.metrics import classifier
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.planning import spectra
from biggan_jax.storage import best, checkpoint
from biggan_jax.training import state as state_lib
from tests import runs

NAMES = ("decay_0.5", "profile_0.1")
TEST = "digits:test"


@pytest.fixture(scope="module")
def averaged(trained, tmp_path_factory):
    """A run whose step 5 keeps two more averages: a copy of G, and weights shrunk to nothing."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("averaged") / "run")
    state, _ = runs.load_state(workdir, 4)
    g = state_lib.copied(state.generator)
    others = {NAMES[0]: g, NAMES[1]: g.replace(params=jax.tree.map(lambda x: 0.1 * x, g.params))}
    config = json.loads((workdir / "config.json").read_text())
    config["ema"] |= {"decays": [0.5], "profiles": [0.1]}
    (workdir / "config.json").write_text(json.dumps(config))
    record = json.loads((workdir / "checkpoints" / "4" / "meta" / "metadata").read_text())
    state = state.replace(step=state.step + 1, averages=others)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", async_save=False)
    checkpoints.save(5, state, record["meta"] | {"config": config})
    checkpoints.close()
    return workdir


def outputs(workdir, ema, **settings):
    generator = load_generator(workdir, ema=ema, **settings)
    return generator(generator.sample_z(0, 4), np.arange(4))


def test_a_generator_by_the_name_of_its_average(averaged):
    np.testing.assert_array_equal(outputs(averaged, NAMES[0]), outputs(averaged, False))
    np.testing.assert_array_equal(outputs(averaged, "ema"), outputs(averaged, True))
    assert not np.allclose(outputs(averaged, NAMES[1]), outputs(averaged, False), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ema": "decay0.5"}, r"no such average \(did you mean 'decay_0.5'\?\): it has ema, dec"),
        ({"ema": "decay_0.6"}, r"\(did you mean 'decay_0.5'\?\)"),
        ({"ema": "profile_0.25"}, r"\(did you mean 'profile_0.1'\?\)"),
        ({"ema": "x"}, "no such average: it has ema, decay_0.5, profile_0.1$"),
        # Of a step before they were taken up.
        ({"ema": NAMES[0], "step": 4}, "step 4 of .* has no such average.*--config.ema.decays=0.9"),
    ],
)
def test_names_that_are_not_there(averaged, settings, words):
    with pytest.raises(UserError, match=words):
        load_generator(averaged, **settings)


def test_the_commands_take_the_name(averaged, tmp_path, capsys):
    args = [f"--from={averaged}", "--ema=decay_0.5"]
    assert cli.main(["sample", *args, f"--out={tmp_path / 'a.npz'}", "--per-class=1"]) == 0
    assert cli.main(
        ["sample", f"--from={averaged}", "--raw", f"--out={tmp_path / 'b.npz'}", "--per-class=1"]
    ) == 0  # fmt: skip
    one, other = (np.load(tmp_path / f"{name}.npz")["images"] for name in "ab")
    np.testing.assert_array_equal(one, other)
    assert cli.main(["export", *args, f"--out={tmp_path / 'm.safetensors'}"]) == 0
    files = [str(tmp_path / "m.safetensors"), f"--out={tmp_path / 'm'}"]
    assert cli.main(["import", "--format=biggan-jax", *files]) == 0
    np.testing.assert_array_equal(outputs(tmp_path / "m", True), outputs(averaged, False))
    capsys.readouterr()
    assert cli.main(["sample", *args, "--raw", f"--out={tmp_path / 'c.npz'}"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--raw: not allowed with argument --ema")
    wrong = [f"--from={averaged}", "--ema=decay0.5", f"--out={tmp_path / 'n.safetensors'}"]
    assert cli.main(["export", *wrong]) == 2
    runs.assert_one_error(capsys.readouterr(), "--ema decay0.5: .*did you mean 'decay_0.5'")


def test_the_nearest_number_is_meant():
    there = ["ema", "decay_0.5", "decay_0.99", "decay_0.999", "profile_0.05", "profile_0.1"]
    for asked, meant in (
        ("decay_0.6", "decay_0.5"), ("decay_0.9", "decay_0.99"), ("decay_1", "decay_0.999"),
        ("Profile_0.2", "profile_0.1"), ("decay_.5", "decay_0.5"), ("decay0.99", "decay_0.99"),
    ):  # fmt: skip
        said = did_you_mean(averages.meant(asked, there), there)
        assert said == f" (did you mean {meant!r}?)", asked
    assert [averages.meant(word, ["ema"]) for word in ("decay", "x_1")] == ["decay", "x_1"]


@pytest.mark.full
def test_statistics_and_spectra_of_one_average(averaged, tmp_path, capsys):
    """`look bn` and `inspect --spectra` take --ema and --raw; here this average is a copy of G."""
    found = {}
    for option, names in (("--ema=decay_0.5", ["decay_0.5"]), ("--raw", ["raw"])):
        out = tmp_path / f"{option}.png"
        args = ["look", "bn", f"--from={averaged}", option, f"--out={out}", "--per-class=1"]
        args += ["--classes=1", "--standing-batches=1", "--standing-batch-size=4", "--json"]
        assert cli.main(args) == 0
        assert json.loads(capsys.readouterr().out)["weights"] == names
        found[option] = np.asarray(Image.open(out).convert("L"))[:, -60:]
    pixels = list(found.values())
    np.testing.assert_array_equal(*(image[-30:] for image in pixels))

    drawn = {
        ema: spectra.draw(averaged, tmp_path / "s.png", ema=ema)
        for ema in (None, False, True, *NAMES)
    }
    weights = {ema: result["weights"][0] for ema, result in drawn.items()}
    assert weights == {None: "g", False: "g", True: "g_ema"} | {name: name for name in NAMES}
    sigma = {ema: result["sigma0"]["g"] for ema, result in drawn.items()}
    assert sigma[None] == sigma[False] == sigma[NAMES[0]] != sigma[NAMES[1]]
    assert "average decay_0.5 and discriminator in" in spectra.text(drawn[NAMES[0]])
    capsys.readouterr()
    assert cli.main(["inspect", f"--from={averaged}", "--ema=decay_0.5"]) == 2
    runs.assert_one_error(capsys.readouterr(), "add --spectra F.png")
    assert cli.main(["look", "bn", f"--from={averaged}", "--ema=decay_0.6", "--out=x.png"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--ema decay_0.6: .*mean 'decay_0.5'")


@pytest.mark.full
def test_the_best_state_holds_them_too(averaged, tmp_path):
    workdir = shutil.copytree(averaged, tmp_path / "run")
    state, _ = runs.load_state(workdir, 5)
    config = json.loads((workdir / "config.json").read_text())
    assert best.keep(workdir, 3, state, config, {"fid": 1.0})
    for name in NAMES:
        got = outputs(workdir, name, step="best")
        np.testing.assert_array_equal(got, outputs(averaged, name))
    # Of a follower that scored this one alone.
    shutil.rmtree(workdir / "best" / "weights" / "g_ema")
    shutil.rmtree(workdir / "best" / "weights" / "g")
    shutil.rmtree(workdir / "best" / "weights" / NAMES[1])
    np.testing.assert_array_equal(outputs(workdir, True, step=3), outputs(averaged, NAMES[0]))


@pytest.mark.full
def test_a_sweep_scores_each_names_the_best_and_the_report_has_it(averaged, monkeypatch, capsys):
    recipe = Recipe(max_images=640, batch_size=64, holdout=0.02)
    monkeypatch.setattr(inputs, "cached", functools.partial(classifier.cached, recipe=recipe))
    args = ["evaluate", f"--from={averaged}", f"--data={TEST}", "--samples=90", "--sweep-ema"]
    assert cli.main([*args, "--bn-mode=standing", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    fids = {row["weights"]: row["scores"]["fid"] for row in result["sweep_ema"]}
    assert tuple(fids) == ("ema", *NAMES) and len(set(fids.values())) == 3
    assert result["best_ema"] == min(fids, key=fids.get) == result["protocol"]["weights"]
    assert result["scores"]["fid"] == min(fids.values())
    # What a single evaluation of each says: standing statistics are taken anew.
    assert cli.main([*args[:-1], "--ema=profile_0.1", "--bn-mode=standing", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["scores"]["fid"]
    assert alone == pytest.approx(fids["profile_0.1"])
    assert (averaged / "report" / "ema_sweep.csv").exists()
    assert cli.main(["report", f"--from={averaged}"]) == 0
    page = (averaged / "report" / "index.html").read_text()
    assert f"The best average is {result['best_ema']}, of FID" in page
    assert "Scores of single classes at step 5" in page and "training images" in page


@pytest.mark.full
def test_a_follower_scores_one_of_them_and_keeps_its_best(averaged, tmp_path, monkeypatch, capsys):
    workdir = shutil.copytree(averaged, tmp_path / "run")
    recipe = Recipe(max_images=640, batch_size=64, holdout=0.02)
    monkeypatch.setattr(inputs, "cached", functools.partial(classifier.cached, recipe=recipe))
    args = ["evaluate", f"--from={workdir}", f"--data={TEST}", "--samples=90", "--follow"]
    assert cli.main([*args, "--ema=decay_0.5", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [line["step"] for line in result["evaluations"]] == [5]
    assert "step 4 is passed over" in captured.err  # from before they were taken up
    assert result["evaluations"][0]["protocol"]["weights"] == "decay_0.5"
    np.testing.assert_array_equal(outputs(workdir, True, step="best"), outputs(averaged, NAMES[0]))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--matrix"], "--matrix takes no --sweep-ema: leave one"),
        (["--truncation=0.5,1"], "--sweep-ema takes a single --truncation"),
        (["--follow"], "--follow takes no --matrix, no --sweep-ema"),
        (["--ema=decay_0.5"], "leave --raw and --ema out"),
        (["--step=4"], "keeps no average beside the main one.*--config.ema.decays=0.99,0.999"),
    ],
)
def test_what_a_sweep_does_not_take(averaged, more, words, capsys):
    assert cli.main(["evaluate", f"--from={averaged}", "--sweep-ema", *more]) == 2
    runs.assert_one_error(capsys.readouterr(), words)
