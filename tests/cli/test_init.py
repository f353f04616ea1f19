"""`biggan init`: a config that trains, and commands that can be pasted."""

import json
import shlex
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.cli import init as init_command
from biggan_jax.config import config_file
from biggan_jax.planning import config_text, machine, recommend
from tests import runs

ODD = "my pets, it's (1): é"


@pytest.fixture
def quick(monkeypatch):
    """No step is compiled, and the machine is as fast as two cores."""
    monkeypatch.setattr(recommend, "measured", lambda config: (0.2, 10.0))
    monkeypatch.setattr(machine, "flops_per_second", lambda *args: 2e11)


def pictures(folder, count=6, size=(20, 30), mode="RGB", classes=("cat", "dog")):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shape = (*size, 3) if mode == "RGB" else size
            image = rng.integers(0, 256, shape, np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


def init(capsys, folder, *options):
    code = cli.main(["init", str(folder), "--json", "--minutes=2", *options])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


@pytest.mark.full
def test_what_it_writes_trains_and_its_commands_can_be_pasted(quick, tmp_path, capsys, monkeypatch):
    """Relative paths with odd characters; an unreadable picture; pictures that decode slowly."""
    data = pictures(tmp_path / ODD, 2, mode="L", classes=tuple("0123456789"))
    (data / "0" / "broken.png").write_text("<html>404</html>")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_text, "PREPARE_FROM", 0.0)
    code, result, err = init(capsys, f"{ODD} run", f"--data=folder:{ODD}")
    assert code == 0 and (result["images"], result["classes"]) == (21, 10)
    assert "measuring a training step" in err and "1 file is no readable image" in err
    place = tmp_path / f"{ODD} run" / "config.py"
    assert result["config"] == str(place)
    config = config_file.load(str(place), [])
    flat = config_lib.flatten(config)
    assert json.loads(json.dumps({k: flat[k] for k in result["settings"]})) == result["settings"]
    assert flat["data.source"] == f"folder:{data}" and flat["data.on_bad_record"] == "skip"
    for line in result["commands"]:
        assert line in place.read_text() and line in err
    monkeypatch.chdir("/")
    # The traced program of `runs.TINY`.
    tiny = ["--config.ema.decay=0.98", "--config.num_steps=2", "--config.monitor_every_steps=9"]
    if "augment.policy" in flat:
        tiny.append("--config.augment.policy=none")
    more = {"train": [*runs.TINY[1:], *tiny]}
    for line in result["commands"]:
        name, *options = shlex.split(line)[1:]
        assert cli.main([name, *options, *more.get(name, [])]) == 0, line
    assert (place.parent / "run" / "report" / "index.html").is_file()
    before = place.read_bytes()
    capsys.readouterr()
    assert cli.main(["init", str(place.parent), f"--data=folder:{data}"]) == 2
    words = "config.py exists already and is not overwritten", "name another folder"
    runs.assert_one_error(capsys.readouterr(), *words)
    assert place.read_bytes() == before


@pytest.mark.full
def test_what_takes_long_is_said(quick, tmp_path, capsys, monkeypatch):
    """One line a phase, each of which seems to take long."""
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timer.function(*timer.args))
    spec = f"folder:{pictures(tmp_path / 'pets')}"
    code, _, err = init(capsys, tmp_path / "run", f"--data={spec}")
    told = [line for line in err.splitlines() if line.endswith(" ...")]
    assert code == 0 and [line.partition(" of ")[0] for line in told] == [
        "looking at pictures",
        "measuring how much this machine computes in a second ...",
        "looking for copies, and for what would stop a run ...",
        told[-1],
    ]
    assert told[0].endswith(f"{spec} ...") and told[-1].startswith("measuring a training step at")


def test_commands_are_one_line_whatever_a_path_holds():
    for text in ("a b", "it's", "a\nb", 'tab\t\'\\ $x `y` "z"', "\udcff\x01é", "~", "*", "!x"):
        word = config_text.shell_word(text)
        assert "\n" not in word
        done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
        assert done.stdout == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x", "--data=folder:/nowhere"), ("--data='folder:/nowhere'", "no folder /nowhere")),
        (("x", "--data=digit"), ("did you mean 'digits'",)),
        (("x", "--data="), ("it is empty",)),
        (("x", "--data=digits", "--minutes=0"), ("--minutes is 0", "such as 60")),
        (("x", "--data=digits", "--minutes=nan"), ("--minutes",)),
        (("x", "--data=digits", "--resolution=20"), ("is 20", "16, 32, 64")),
        (("x", "--data=digits", "--config.seed=1"), ("takes no settings",)),
        (("pets", "--data=folder:pets"), ("lies in the folder of the pictures", "pets-run")),
        (("pets/run", "--data=folder:pets"), ("lies in the folder of the pictures",)),
        (("pets/cat/0.png", "--data=digits"), ("is a file",)),
        (("gs://b/x", "--data=digits"), ("no folder or file of this machine",)),
        (("x", "--data=folder:torn"), ("1 class has no readable image", "repair one image")),
        (("x", "--data=folder:all_torn"), ("no readable image",)),
        pytest.param(
            ("x", "--data=folder:cut"),
            ("class has no readable image", "dog"),
            marks=pytest.mark.full,
        ),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    quick, tmp_path, capsys, monkeypatch, arguments, words
):
    pictures(tmp_path / "pets", 1)
    for name, classes in (("torn", ("cat", "dog")), ("all_torn", ("dog",))):
        pictures(tmp_path / name, 1, classes=classes)
        (tmp_path / name / "dog" / "0.png").write_text("<html>404</html>")
    whole = pictures(tmp_path / "cut", 1, classes=("dog",)) / "dog" / "0.png"
    whole.write_bytes(whole.read_bytes()[:60])  # its header is intact
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init_command, "SILENT_SECONDS", 60.0)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["init", *arguments]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("digits", {"model.resolution": 16, "model.channels": 1, "model.num_classes": 10}),
        ("grey", {"model.channels": 1, "model.resolution": 16, "model.num_classes": 1}),
        pytest.param(
            "records", {"model.resolution": 32, "model.num_classes": 2}, marks=pytest.mark.full
        ),
        pytest.param(
            "tiny", {"model.resolution": 16, "model.num_classes": 2}, marks=pytest.mark.full
        ),
    ],
)
def test_kinds_of_data(quick, tmp_path, capsys, kind, settings):
    spec = kind
    if kind == "records":
        source = pictures(tmp_path / "pets")
        spec = f"records:{tmp_path / 'made'}"
        prepare = [f"--source=folder:{source}", "--resolution=32", f"--out={tmp_path / 'made'}"]
        assert cli.main(["prepare", *prepare]) == 0
        capsys.readouterr()
    elif kind == "grey":
        spec = f"folder:{pictures(tmp_path / 'pets', mode='L', classes=('all',))}"
    elif kind == "tiny":
        spec = f"folder:{pictures(tmp_path / 'pets', size=(3, 9))}"
    code, result, _ = init(capsys, tmp_path / "new", f"--data={spec}")
    assert code == 0
    assert {key: result["settings"].get(key) for key in settings} == settings
    assert all(line.startswith("biggan ") for line in result["commands"])
    config = config_file.load(result["config"], ["--config.num_steps=2"])
    assert config.num_steps == 2
