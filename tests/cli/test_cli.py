"""The commands: exit codes, one line for every bad input, one JSON line for --json."""

import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, data
from biggan_jax.cli import options
from biggan_jax.config import config_file
from tests import runs


def fails(capsys, argv, *words):
    """The command ends with 2 and one line on stderr that holds these patterns."""
    assert cli.main([str(a) for a in argv]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def train(workdir, *overrides):
    return ["train", f"--workdir={workdir}", *runs.TINY, *overrides]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--workdir=w"], "'--workdir'.*biggan --help"),
        (["trian"], "unknown command 'trian' .*mean 'train'.*: choose from train, sample"),
        (["frobnicate"], "frobnicate.*train.*sample"),
        (["train"], "--config, --workdir"),
        (["train", "--config", "none.py", "--workdir", "w"], "none.py: no such file"),
        (["train", "--config", "nosuch", "--workdir", "w"], "nosuch: no such.*one of .*digits"),
        (["train", "--conf", runs.DIGITS, "--workdir", "w"], "required: --config"),
        (["sample", "--from", "d", "--out", "x.png", "--per-classs", "3"], "--per-classs"),
        (["sample", "--from", "d", "--out", "x.png", "--per-class", "few"], "--per-class.*'few'"),
        (["sample", "--from", "d", "--out", "x.png", "--bn-mode", "best"], "--bn-mode.*'best'"),
        (["sample", "--from", "d", "--out", "x.png", "--config.batch_size=3"], "config.batch_size"),
        (["inspect"], "--config FILE and --from DIR"),
        (["inspect", "--config", runs.DIGITS, "--from", "d"], "one of --config FILE and --from"),
        (["inspect", "--config", runs.DIGITS, "--bogus"], "unknown option '--bogus'"),
        (["inspect", "--config", runs.DIGITS, "--config.model.name=bigan"], "mean 'biggan'"),
        (["inspect", "--config", runs.DIGITS, "--config.model.dim_z=61"], "dim_z is 61.*dim_z=60"),
        (["inspect", "--config", runs.DIGITS, "--config.model.resolution=48"], "is 48.*16, 32, 64"),
        (["inspect", "--config", runs.DIGITS, "--config.model.channels=2"], "channels is 2.*1.*3"),
        (["inspect", "--config", runs.DIGITS, "--config.model.ch=1",
          "--config.model.g_attention=8"], "4 channels at 8 pixels.*--config.model.ch"),
        (["inspect", "--config", "biggan_jax/config/__init__.py"], "AttributeError.*get_config"),
        (["bench", "--config", runs.DIGITS, "--config.loss=hing"], "did you mean 'hinge'"),
        (["bench", "--config", runs.DIGITS, "--config.mesh=(9,)"], "needs 9 devices.*there are 8"),
        (["prepare", "--source", "digits", "--resolution", "0", "--out", "p"], "--resolution is 0"),
        (["prepare", "--source", "digit", "--resolution", "8", "--out", "p"],
         "--source='digit'.*mean 'digits'"),
    ],
)  # fmt: skip
def test_bad_usage(capsys, monkeypatch, argv, words):
    monkeypatch.chdir(runs.ROOT)
    fails(capsys, argv, words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.model.chh=3", "unknown config key 'model.chh'.*did you mean 'model.ch'"),
        ("--config.data.source=folder:/none", "/none"),
        ("--config.data.source=", "value is missing; write it as --config.data.source=digits"),
        ("--config.data.source=:x", "unknown kind ''"),
        ("--config.model.num_classes=7", "num_classes is 7, but digits has 10 .*num_classes=10"),
        ("--config.batch_size=12", None),
        ("--config.model.g_attention=64", "64 pixels.*8, 16.*--config.model.g_attention"),
        ("--config.model.g_attention=(8", "--config.model.g_attention"),
        ("--config.mesh=", "--config.mesh"),
        ("--config.mesh=(4,4)", r"mesh \(4, 4\) needs 16 devices.*--config.mesh"),
        ("--config.mesh=(2,2,2)", r"mesh is \(2, 2, 2\).*--config.mesh"),
        ("--config.mesh=(-2,)", r"mesh is \(-2,\).*--config.mesh"),
        ("--config.seed=-1", "seed is -1"),
        ("--config.optimizer.beta2=1", "beta2 is 1.0"),
        ("--config.loss=relativstic", "unknown loss 'relativstic'.*mean 'relativistic'.*hinge"),
        ("--config.regularizer.r1=-1", "r1 is -1.0; set --config.regularizer.r1 to 0 or more"),
        ("--config.regularizer.r2=nan", "r2 is nan; set --config.regularizer.r2 to a finite"),
        ("--config.regularizer.every_steps=0", "is 0; set --config.regularizer.every_steps to 1"),
        ("--config.model.attention_form=papr", "'papr'.*mean 'paper'.*one of published, paper"),
    ],
)
def test_bad_settings_of_a_training(tmp_path, capsys, override, words):
    mesh = ("--config.mesh=(8,)",) if words is None else ()
    words = words or "12 is not divisible by 8 devices .*--config.batch_size=8"
    fails(capsys, train(tmp_path / "w", override, *mesh), words)
    assert not (tmp_path / "w" / "config.json").exists()


@pytest.mark.parametrize(
    "override",
    [
        "--config.loss=relativstic",
        *(
            pytest.param(override, marks=pytest.mark.full)
            for override in (
                "--config.regularizer.every_steps=1.5",
                "--config.regularizer.r1=-1",
                "--config.regularizer.r1=nan",
                "--config.regularizer.r2=much",
                "--config.regularizer.every_steps=0",
                "--config.model.attention_form=papr",
                "--config.optimizer.d_lr=-1e-4",
            )
        ),
    ],
)
def test_the_value_that_a_refusal_names_is_taken(capsys, override):
    inspect, key = ["inspect", *runs.TINY], override.partition("=")[0]
    fails(capsys, [*inspect, override], ADVICE)
    assert cli.main([*inspect, override]) == 2
    found = runs.re.search(ADVICE, capsys.readouterr().err)
    assert cli.main([*inspect, f"{key}={next(filter(None, found.groups()))}"]) == 0


ADVICE = "did you mean '(.+?)'|to (?:a finite value, )?([0-9.]+) or more|write it as --.+?=(.+)"


def images(folder, count=10):
    for label in range(count):
        (folder / str(label)).mkdir(parents=True)
        Image.new("L", (20, 20), 20 * label).save(folder / str(label) / "0.png")


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_bad_folder(tmp_path, capsys, damage):
    folder = tmp_path / "images"
    if damage == "empty":
        folder.mkdir()
        words = "images.*no sub-folder with images"
    else:
        images(folder)
        picture = folder / "3" / "0.png"
        content = picture.read_bytes()
        picture.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"no image")
        words = "3/0.png.*on_bad_record=skip"
    assert cli.main(train(tmp_path / "w", f"--config.data.source=folder:{folder}/")) == 2
    # A bad file is found in the first batch, after the data report.
    lines = capsys.readouterr().err.splitlines()
    runs.re.search(words, lines[-1]) or pytest.fail(lines[-1])
    assert [line for line in lines if line.startswith("biggan: ")] == lines[-1:]
    assert len(lines) == 1 or damage != "empty"


def test_labels_outside_the_range(tmp_path, capsys):
    """idx files hold any byte."""
    pixels, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8)
    for name, header, array in (
        ("images-idx3", struct.pack(">4i", 2051, 20, 28, 28), pixels),
        ("labels-idx1", struct.pack(">2i", 2049, 20), labels),
    ):
        (tmp_path / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    spec = f"--config.data.source=fashion_mnist:{tmp_path}"
    fails(capsys, train(tmp_path / "w", spec), "labels? .*19", "10 classes|0 to 9")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.model.ch=8", "model.ch 4 -> 8.*--workdir"),
        ("--config.batch_size=32", "batch_size 16 -> 32.*--workdir"),
        ("--config.model.g_attention=()", r"g_attention \(8,\) -> \(\)"),
    ],
)
def test_workdir_of_another_run(trained, capsys, override, words):
    fails(capsys, train(trained, override), words)


def test_other_rules_need_a_flag_that_the_refusal_names(run_copy, capsys):
    rate = "--config.optimizer.g_lr=0.001"
    fails(capsys, train(run_copy, rate), "optimizer.g_lr 0.0004 -> 0.001.*--allow-change")
    assert cli.main(train(run_copy, rate, "--allow-change")) == 0
    capsys.readouterr()
    assert json.loads((run_copy / "config.json").read_text())["optimizer"]["g_lr"] == 0.001
    fails(capsys, train(run_copy, rate, "--config.model.ch=8", "--allow-change"), "model.ch 4 -> 8")


def test_workdir_of_other_data(run_copy, capsys):
    assert cli.main(train(run_copy, "--config.data.source=digits:train")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "other data" in last and "--config.data.source" in last


def test_workdir_with_a_damaged_config(run_copy, capsys):
    (run_copy / "config.json").write_text('{"batch_si')
    fails(capsys, train(run_copy), "config.json cannot be read")
    (run_copy / "config.json").unlink()
    fails(capsys, train(run_copy), "holds no config.json")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dim_z", 61, "model.dim_z is 61.*set model.dim_z=60"),
        ("name", "bigan", "did you mean 'biggan'"),
        ("g_attention", [64], "attention at 64 pixels.*set model.g_attention"),
        ("chh", 3, "does not fit this version: unknown key 'model.chh'.*mean 'model.ch'"),
        ("ch", None, "does not fit this version: model.ch is null"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "inspect"])
def test_a_setting_of_a_model_directory_is_one_of_its_file(
    tmp_path, capsys, command, key, value, words
):
    model = config_file.load(runs.DIGITS, []).model.to_dict() | {key: value}
    (tmp_path / "config.json").write_text(json.dumps({"model": model}))
    out = [f"--out={tmp_path}/x.png"] * (command == "sample")
    assert cli.main([command, "--from", str(tmp_path), *out]) == 2
    captured = capsys.readouterr()
    runs.assert_one_error(captured, f"{tmp_path}/config.json: .*{words}")
    assert "--config" not in captured.err


@pytest.mark.full
def test_checkpoints_fall_back_and_run_out(run_copy, tmp_path, capsys):
    out = ["--per-class=1", f"--out={tmp_path}/x.png"]
    for n in (4, 2):
        for path in (run_copy / f"checkpoints/{n}/state").rglob("d/*"):
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)
        code = cli.main(["sample", "--from", str(run_copy), *out])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        if n == 4:
            assert code == 0 and len(lines) == 1
            assert lines[0].startswith("warning: checkpoint 4 in ") and "corrupt" in lines[0]
    assert code == 2 and "no intact checkpoint" in lines[-1]
    assert [line.split()[0] for line in lines] == ["warning:", "warning:", "biggan:"]
    assert cli.main(train(run_copy)) == 2
    assert "no intact checkpoint" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "10"], "class 10 does not exist.*0 to 9"),
        (["--classes", "0-1000000000000"], "class 1000000000000 does not exist"),
        (["--classes", "-1"], "--classes '-1'"),
        (["--classes", "5-3"], "--classes '5-3'"),
        (["--classes", "one"], "--classes 'one'"),
        (["--truncation", "0"], "truncation is 0.0; it must be above 0"),
        (["--truncation", "-0.5"], "truncation is -0.5"),
        (["--truncation", "nan"], "truncation is nan"),
        (["--per-class", "0"], "--per-class is 0"),
        (["--per-class", "1.5"], "'1.5' is no whole number; write one such as 10"),
        (["--truncation", "0,5"], "'0,5' is no number; write one such as 0.5"),
        (["--per-class", "1", "--interpolate"], "--per-class is 1.*at least 2"),
        (["--seed", "9223372036854775808"], "seed is 9223372036854775808"),
        (["--out", "x.gif"], "x.gif.*.png.* or .npz, or be a folder"),
        (["--out", "x"], "--out x.*.png.* or .npz, or be a folder"),
    ],
)
def test_bad_sampling(trained, tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    fails(capsys, ["sample", "--from", trained, "--out", "x.png", *options], words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["nowhere", "empty", "file", "config only", "no checkpoint"])
def test_sampling_from_no_model(trained, tmp_path, capsys, what):
    directory = tmp_path / "model"
    words = "model is no workdir or model directory"
    if what == "file":
        directory.write_text("")
        words += ": it is a file; give a directory that biggan train, import or export has written"
    elif what != "nowhere":
        directory.mkdir()
    if what == "nowhere":
        words += ": no such directory, correct the path"
    if what in ("config only", "no checkpoint"):
        shutil.copy(trained / "config.json", directory)
        words = "no weights 'g_ema' in .*model"
    if what == "no checkpoint":
        (directory / "checkpoints").mkdir()
        words = "no checkpoint in .*checkpoints: train first"
    fails(capsys, ["sample", "--from", directory, "--out", tmp_path / "x.png"], words)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("train", lambda t, w: train(t)),
        ("sample", lambda t, w: ["sample", "--from", t, "--out", w / "new/x.npz", "--per-class=2"]),
        ("inspect", lambda t, w: ["inspect", "--from", t]),
        ("prepare", lambda t, w: ["prepare", "--source=digits", "--resolution=8", "--channels=1",
                                  "--out", w / "new/records"]),
        ("bench", lambda t, w: ["bench", *runs.TINY]),
    ],
)  # fmt: skip
def test_json_is_one_line_on_stdout(trained, tmp_path, capfd, name, argv):
    assert cli.main([*map(str, argv(trained, tmp_path)), "--json"]) == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 1 and out.endswith("\n")
    result = json.loads(out)
    keys = {
        "train": {"step", "images_seen", "metrics", "workdir", "finished"},
        "sample": {"out", "count", "seconds"},
        "inspect": {"generator", "discriminator", "flops_per_sample_step"},
        "prepare": {"count", "num_classes", "digest", "out"},
        "bench": {"images_per_second", "step_seconds", "compile_seconds", "peak_bytes"},
    }
    assert keys[name] <= result.keys()
    if name == "sample":
        assert result["count"] == 20 and (tmp_path / "new" / "x.npz").is_file()
    if name == "prepare":
        assert result["count"] == 1797
        source = data.open_source(f"records:{result['out']}", resolution=8, channels=1)
        assert len(source) == 1797


def test_person_reads_stdout(trained, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert cli.main(["sample", "--from", str(trained), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert f"100 samples in {out}" in captured.out and captured.err == ""


@pytest.mark.parametrize("command", ["train", "sample", "prepare"])
def test_disk_errors(trained, tmp_path, capsys, command):
    """root may write anywhere, but not below a file."""
    (tmp_path / "file").write_text("")
    argv = {
        "train": train(tmp_path / "file" / "w"),
        "sample": ["sample", "--from", trained, "--out", tmp_path / "file" / "x.png"],
        "prepare": [
            "prepare",
            "--source=digits",
            "--resolution=8",
            "--out",
            tmp_path / "file" / "w",
        ],
    }[command]
    # Where a run or records may live is looked at first: the path is what has to be corrected.
    assert cli.main([str(a) for a in argv]) == (1 if command == "sample" else 2)
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("biggan: ") and str(tmp_path / "file") in last
    assert "Traceback" not in captured.err and captured.out == ""


def test_full_disk_names_the_path(trained, tmp_path, monkeypatch, capsys):
    """The error of a write() holds no file name."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "x.png"
    assert cli.main(["sample", "--from", str(trained), "--out", str(out)]) == 1
    runs.assert_one_error(capsys.readouterr(), f"{out}: .*No space left on device")


@pytest.mark.full
def test_importing_changes_nothing_of_the_process():
    """Neither loggers, hooks, warnings, signals nor the environment."""
    code = (
        "import logging, os, signal, sys, threading, warnings\n"
        "import absl.logging, grain, ml_collections, PIL.Image, sklearn, tensorflow_datasets\n"
        "def state():\n"
        "    loggers = [logging.root, *logging.root.manager.loggerDict.values()]\n"
        "    loggers = [x for x in loggers if isinstance(x, logging.Logger)]\n"
        "    loggers = {x.name: (x.level, [*x.filters], [*x.handlers]) for x in loggers}\n"
        "    loggers = {k: v for k, v in loggers.items() if 'biggan_jax' not in k or any(v)}\n"
        "    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook\n"
        "    stops = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]\n"
        "    return loggers, hooks, stops, [*warnings.filters], {**os.environ}\n"
        "before = state()\n"
        "from biggan_jax import cli\n"
        "from biggan_jax.config import config_file\n"
        "from biggan_jax.data import folder, idx, records, record_writer, stream, tfds_source\n"
        "cli.parser()\n"
        "for old, new in zip(before, state()):\n"
        "    assert old == new, (old, new)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_interrupted(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt  # not a signal: a job in the background may have to ignore SIGINT

    monkeypatch.setattr(options, "load_config", interrupt)
    assert cli.main(["inspect", "--config", runs.DIGITS]) == 130
    runs.assert_one_error(capsys.readouterr(), "interrupted")


def test_module_and_broken_pipe():
    """`python -m biggan_jax`, whose reader goes away before it writes."""
    command = [sys.executable, "-m", "biggan_jax", "doctor", "--data=digits", "--resolution=16"]
    process = subprocess.Popen(
        command, cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1
