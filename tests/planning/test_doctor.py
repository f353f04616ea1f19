"""`biggan doctor`: what would stop a run, found before it starts."""

import json
import shutil
from collections import namedtuple

import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.planning import doctor, machine
from tests import runs, small_folder


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Players of the same settings are traced once for what a step needs of memory."""
    kept, footprint = {}, doctor.footprint

    def once(train_step):
        key = repr((train_step.generator, train_step.discriminator))
        if key not in kept:
            kept[key] = footprint(train_step)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "footprint", once)
        yield


def examined(capsys, *argv):
    """(exit code, problems by where, the object)."""
    code = cli.main(["doctor", "--json", *argv])
    result = json.loads(capsys.readouterr().out)
    assert {"problems", "images", "classes"} <= set(result)
    for problem in result["problems"]:
        assert problem["what"] and problem["remedy"] and problem["where"], problem
    assert code == (2 if any(p["stops"] for p in result["problems"]) else 0)
    return code, {p["where"]: p for p in result["problems"]}, result


def test_a_sound_config(capsys):
    code, problems, result = examined(capsys, *runs.TINY)
    assert (code, problems) == (0, {})
    assert (result["images"], result["classes"]) == (1797, 10)
    assert cli.main(["doctor", *runs.TINY]) == 0
    out = capsys.readouterr().out
    for words in ("1,797 images", "memory: ", "disk: ", "time: ", "no problems found"):
        assert words in out


@pytest.mark.parametrize(
    ("override", "where", "words", "remedy"),
    [
        (
            "batch_size=0",
            "batch_size",
            "batch_size is 0",
            "set --config.batch_size to a value from 1 to",
        ),
        ("accumulation_steps=5", "batch_size", "16 is not divisible", "--config.batch_size=15"),
        ("init_from=/nowhere/run", "init_from", "/nowhere/run is no workdir", "init_from"),
        ("finetune.freeze_d=1", "finetune", "finetune.freeze_d is 1", "--config.init_from"),
        ("data.source=folder:/nowhere", "data.source", "no folder /nowhere", "correct the path"),
        ("model.num_classes=3", "model.num_classes", "is 3, but digits has 10", "num_classes=10"),
        ("model.resolution=20", "data.source", "20", "resolution"),
        ("model.init=orthogonl", "model", "orthogonl", "orthogonal"),
    ],
)
def test_what_would_stop_a_run(capsys, override, where, words, remedy):
    code, problems, _ = examined(capsys, *runs.TINY, f"--config.{override}")
    assert code == 2 and problems[where]["stops"]
    assert words in problems[where]["what"] + problems[where]["remedy"]
    assert remedy in problems[where]["remedy"]


def test_settings_outside_their_domains_are_named_and_the_rest_is_looked_at(capsys):
    overrides = ("augment.policy=foo", "data.balance=nan", "model.d_head=san2", "ema.decay=2")
    argv = [*runs.TINY, *(f"--config.{override}" for override in overrides)]
    code, problems, result = examined(capsys, *argv)
    keys = {override.partition("=")[0] for override in overrides}
    assert code == 2 and set(problems) == keys and len(result["problems"]) == 4
    assert all(f"--config.{key}" in problems[key]["remedy"] for key in keys)
    assert result["images"] == 1797


@pytest.mark.full
def test_what_lanes_and_held_out_images_leave_out(capsys, tmp_path):
    """`train` refuses a balance of lanes; a class may have lost its only image."""
    pictures = small_folder.make(tmp_path / "pictures", (5, 1))
    source = pictures[0].partition("=")[2]
    records = ["prepare", f"--source={source}", "--resolution=16", "--channels=1"]
    assert cli.main([*records, "--lanes=6", f"--out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out
    argv = [*runs.TINY, *pictures]
    laned = f"--config.data.source=records:{tmp_path / 'out'}"
    code, problems, _ = examined(capsys, *argv, laned, "--config.data.balance=0.5")
    assert code == 2 and "draws a class from all images" in problems["data.source"]["what"]
    half = "--config.data.holdout=0.5"
    code, problems, _ = examined(capsys, *argv, laned, half)
    assert code == 2 and "has no image to train on" in problems["data.source"]["what"]
    code, problems, _ = examined(capsys, *argv, half)
    assert code == 0 and problems["class_1 1"]["what"] == "1 class has no image to train on"


def test_several_at_once_those_that_stop_first(capsys):
    overrides = ("batch_size=3000", "regularizer.every_steps=4", "init_from=/nowhere")
    argv = [*runs.TINY, *(f"--config.{override}" for override in overrides)]
    _, problems, result = examined(capsys, *argv)
    stops = [problem["stops"] for problem in result["problems"]]
    assert stops == sorted(stops, reverse=True) and stops[0]
    assert "takes 3,000 images and there are 1,797" in problems["batch_size * num_d_steps"]["what"]
    assert "no effect" in problems["regularizer.every_steps"]["what"]
    assert "--config.batch_size" in problems["batch_size * num_d_steps"]["remedy"]


def test_too_few_samples_for_scores(capsys):
    scored = ("--config.eval_every_steps=2", "--config.eval_samples=64")
    code, problems, _ = examined(capsys, *runs.TINY, *scored)
    assert code == 2
    advice = problems["eval_samples"]["remedy"].split()[1]
    assert examined(capsys, *runs.TINY, *scored[:1], advice)[0] == 0


@pytest.mark.full
def test_inception_without_its_weights(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_INCEPTION", str(tmp_path))
    argv = ("--config.eval_every_steps=2", "--config.eval_features=inception")
    code, problems, _ = examined(capsys, *runs.TINY, *argv)
    assert code == 2 and str(tmp_path) in str(problems["eval_features"])


def test_memory_disk_and_time(capsys, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 10_000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    monkeypatch.setattr(machine, "flops_per_second", lambda: 1.0)
    code, problems, result = examined(capsys, *runs.TINY)
    assert code == 2
    memory, disk = (p for p in result["problems"] if p["stops"])
    assert "10 kB are there" in memory["what"] and "accumulation_steps" in memory["remedy"]
    assert "1 kB are free" in disk["what"] and "keep_checkpoints=1" in disk["remedy"]
    assert "years" in problems["num_steps"]["what"] and not problems["num_steps"]["stops"]


def test_figures_have_no_exponents():
    assert [doctor.size(n) for n in (999.6, 999_700, 2.5e12)] == ["1 kB", "1 MB", "2,500 GB"]
    assert doctor.duration(250 * 365.25 * 86400) == "250 years"
    assert doctor.duration(99.6) == "1.7 min" and doctor.duration(36 * 60) == "36 min"


@pytest.mark.full
def test_scores_by_a_classifier_of_one_class(capsys, tmp_path):
    pictures = small_folder.make(tmp_path / "pictures", (3,))
    scored = ("--config.eval_every_steps=2", "--config.eval_features=classifier")
    code, problems, _ = examined(capsys, *runs.TINY, *pictures, *scored)
    assert code == 2 and "no classifier can be fitted" in problems["eval_features"]["what"]


def test_a_workdir_that_train_refuses(capsys, tmp_path):
    (tmp_path / "thesis.docx").write_text("")
    code, problems, _ = examined(capsys, *runs.TINY, "--workdir", str(tmp_path))
    assert code == 2 and "holds other things (thesis.docx)" in problems["workdir"]["what"]
    assert examined(capsys, *runs.TINY, "--workdir", str(tmp_path / "run"))[0] == 0


def test_a_run_that_train_refuses_to_go_on_with(capsys, run_copy):
    """A damaged config.json, and one of another run; the run itself is none."""
    before = (run_copy / "config.json").read_bytes()
    other = before.replace(b'"ch": 4', b'"ch": 8')
    for data, words in (
        (b'{"ba', "cannot be read"),
        (other, "has model.ch 8, not 4 as checkpoint"),
    ):
        (run_copy / "config.json").write_bytes(data)
        code, problems, _ = examined(capsys, *runs.TINY, "--workdir", str(run_copy))
        assert code == 2 and f"config.json {words}" in problems["workdir"]["what"]
    (run_copy / "config.json").write_bytes(before)
    assert examined(capsys, *runs.TINY, "--workdir", str(run_copy))[0] == 0


def test_images_alone(capsys):
    code, _, result = examined(capsys, "--data", "digits", "--resolution", "16", "--channels", "1")
    assert code == 0 and result["images"] == 1797
    code, problems, result = examined(capsys, "--data", "folder:/nowhere")
    assert code == 2 and result["images"] is None
    assert problems["folder:/nowhere"]["remedy"] == "correct the path"


def test_an_unreadable_image(capsys, tmp_path):
    """The option that the remedy names is taken."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
        (tmp_path / name / "b.png").write_bytes(b"")
    argv = ("--data", f"folder:{tmp_path}", "--resolution", "8")
    code, _, result = examined(capsys, *argv)
    assert code == 2 and result["problems"][0]["what"].startswith("2 files are no readable image")
    advice = result["problems"][0]["remedy"].partition("pass ")[2].split()
    assert examined(capsys, *argv, *advice)[0] == 0


def test_files_whose_pixels_or_whole_class_cannot_be_read(capsys, tmp_path):
    """A header alone is no image, and where nothing of a class can be read, skipping stops too."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.effect_noise((32, 32), 50).save(tmp_path / name / "a.png")
    whole = (tmp_path / "cat" / "a.png").read_bytes()
    (tmp_path / "cat" / "b.png").write_bytes(whole[: len(whole) // 2])
    argv = ("--data", f"folder:{tmp_path}", "--resolution", "8", "--channels", "1")
    code, problems, _ = examined(capsys, *argv)
    assert code == 2 and "truncated" in str(problems)
    skip = ("--on-bad-record", "skip")
    assert examined(capsys, *argv, *skip)[0] == 0
    (tmp_path / "cat" / "a.png").write_bytes(b"")
    for options in ((), skip):
        code, _, result = examined(capsys, *argv, *options)
        assert code == 2
        (lost,) = [p for p in result["problems"] if "1 class has no readable" in p["what"]]
        assert lost["where"] == "cat"
        # Skipping is not advised, as it would not help.
        assert not any("pass --on-bad-record" in p["remedy"] for p in result["problems"])


def test_advice_on_records_that_are_not_there(capsys, tmp_path):
    for folder, advice in ((tmp_path, "folder:PATH"), (tmp_path / "x", "--source SPEC --res")):
        code, _, result = examined(capsys, "--data", f"records:{folder}")
        assert code == 2 and advice in result["problems"][0]["remedy"]
    code, _, result = examined(capsys, "--data", "folder:gs://bucket/images")
    assert code == 2 and "gs://bucket/images is no local folder" in result["problems"][0]["what"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--config FILE, --data SPEC, or both"),
        (["--data", "digits", "--config.seed=1"], "takes no settings"),
        ([*runs.TINY, "--resolution", "8"], "--config.model.resolution"),
        (["--config", "nowhere"], "no such file"),
    ],
)
def test_bad_usage(capsys, argv, words):
    assert cli.main(["doctor", *argv]) == 2
    runs.assert_one_error(capsys.readouterr(), words)


def test_figures_for_a_person():
    sizes = [doctor.size(n) for n in (12, 1234, 5_000_000, 2.345e9, 1.2e13)]
    assert sizes == ["12 bytes", "1.23 kB", "5 MB", "2.35 GB", "12,000 GB"]
    times = [doctor.duration(s) for s in (0.0123, 75, 7200, 2 * 86400, 1e9)]
    assert times == ["0.012 s", "1.2 min", "2 hours", "2 days", "32 years"]
