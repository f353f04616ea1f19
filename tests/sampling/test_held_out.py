"""`biggan look held-out`: what is drawn of D's judgement is what was measured."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.pictures import held_out as pictures
from biggan_jax.sampling import held_out
from tests import runs


def written(workdir, gap=0.5, steps=(10, 20, 30)):
    """A run whose D is surer of its training images by `gap`; the last logit was infinite."""
    with open(workdir / "metrics.jsonl", "w") as file:
        for step in steps:
            line = {"step": step, "d_loss": 1.0}
            values = {"accuracy_train": 1.0, "accuracy_held_out": 1 - gap}
            values |= {"logit_train": 2.0, "logit_held_out": None if step == steps[-1] else -1.0}
            line |= {f"monitor/d/{name}": value for name, value in values.items()}
            file.write(json.dumps(line) + "\n")
        file.write('{"step": 40, "monitor/d/accu')
    return workdir


def test_two_runs_in_one_picture(run_copy, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((run_copy / "config.json").read_bytes())
    written(run_copy), written(other, gap=0.0)
    argv = ["look", "held-out", "--from", run_copy, other, "--out", tmp_path / "F.png"]
    argv = [str(word) for word in argv]
    assert cli.main([*argv, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["runs"]
    assert first["from"] == str(run_copy) and first["steps"] == [10, 30]
    assert first["last"] == {
        "accuracy_train": 1.0, "accuracy_held_out": 0.5, "logit_train": 2.0, "logit_held_out": -1.0
    }  # fmt: skip
    assert second["last"]["accuracy_held_out"] == 1.0
    assert cli.main(argv) == 0
    assert "accuracy 1.000 on training images, 0.500 on held-out ones" in capsys.readouterr().out
    steps, values = held_out.read(run_copy)["logit_held_out"]
    assert steps == [10, 20, 30] and values[:2] == [-1, -1] and math.isnan(values[2])
    with Image.open(tmp_path / "F.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int32)
    # Both runs' colours of matplotlib, C0 and C1, are in both panels.
    for color in ((31, 119, 180), (255, 127, 14)):
        found = np.abs(pixels - color).sum(axis=-1) < 30
        assert found[:, : pixels.shape[1] // 2].any() and found[:, pixels.shape[1] // 2 :].any()


def test_a_run_without_held_out_images_is_told_how(trained, tmp_path, capsys):
    argv = ["look", "held-out", f"--from={trained}", f"--out={tmp_path}/F.png"]
    assert cli.main(argv) == 2
    words = ("no judgement of held-out images", "--config.data.holdout=0.1")
    runs.assert_one_error(capsys.readouterr(), *words)
    assert not (tmp_path / "F.png").exists()


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1, 2, 3], [1, 1.5, 2]), ([math.nan, 2], [math.nan, 2]), ([0, 0, 9, 9], [0, 0, 4.5, 9])],
)
def test_the_running_mean(values, mean):
    window = 2 if len(values) == 4 else 5
    np.testing.assert_array_equal(pictures.running_mean(values, window), mean)
