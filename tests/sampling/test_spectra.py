"""`biggan look spectra` and `inspect --spectra`: what is drawn is what was measured."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.pictures import spectra as pictures
from biggan_jax.sampling import spectra
from tests import runs

LINES = [
    {"step": 1, "d_loss": 1.0},
    {"step": 2, "monitor/g/raw_sigma0/linear": 1.0, "monitor/d/raw_sigma0/block_0/conv1": 2.0},
    {"step": 4, "monitor/g/raw_sigma0/linear": None, "monitor/d/raw_sigma0/block_0/conv1": 9.0},
]


def written(workdir, lines=LINES, end='{"step": 6, "monitor/g/raw_si'):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + end)
    return workdir


def look(workdir, out, *options):
    return cli.main(["look", "spectra", f"--from={workdir}", f"--out={out}", *options])


def test_the_values_of_the_run_are_drawn(run_copy, tmp_path, capsys):
    out = tmp_path / "F.png"
    assert look(written(run_copy), out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == [2, 4] and found["layers"] == {"g": 1, "d": 1}
    assert found["value"] == "raw_sigma0" and Image.open(out).width > 800
    curves = spectra.read(run_copy)
    assert curves["d"] == {"block_0/conv1": ([2, 4], [2.0, 9.0])}
    steps, values = curves["g"]["linear"]
    assert steps == [2, 4] and values[0] == 1 and math.isnan(values[1])


def test_a_run_without_monitors_is_told_how_to_get_them(trained, run_copy, tmp_path, capsys):
    assert look(trained, tmp_path / "F.png") == 2
    runs.assert_one_error(capsys.readouterr(), "no monitors", r"--config.monitor_every_steps=100")
    (run_copy / "metrics.jsonl").unlink()
    assert look(run_copy, tmp_path / "F.png") == 2
    runs.assert_one_error(capsys.readouterr(), "no monitors")
    assert look(written(run_copy), tmp_path / "F.png", "--value=raw_sigma1") == 2
    runs.assert_one_error(capsys.readouterr(), "have raw_sigma0", "did you mean")
    assert not (tmp_path / "F.png").exists()


@pytest.mark.parametrize(
    "line", ["[]", "7", "{}", '{"step": "x"}', '{"monitor/g/raw_sigma0/a": 1}']
)
def test_lines_that_are_no_metrics_are_left_out(run_copy, line):
    written(run_copy, end=line + "\n" + json.dumps(LINES[1]) + "\n")
    assert spectra.read(run_copy)["g"]["linear"][0] == [2, 4, 2]


def lit(picture):
    """Whether each column of a picture's left half has a saturated colour."""
    pixels = np.asarray(picture).astype(int)
    return (np.ptp(pixels, axis=-1) > 60).any(axis=0)


@pytest.mark.parametrize("count", [8, 40])
def test_every_layer_has_its_colour_and_its_line(count):
    layers = {f"layer_{i}": ([0, 100], [1.0 + i, 2.0 + i]) for i in range(count)}
    picture = pictures.over_training({"g": layers, "d": layers})
    colors = {tuple(c) for c in np.asarray(picture).reshape(-1, 3).tolist()}
    wanted = np.round(pictures._colors(layers)[:, :3] * 255).astype(int)
    near = [min(max(abs(a - b) for a, b in zip(c, w, strict=True)) for c in colors) for w in wanted]
    assert max(near) <= 3
    assert lit(picture).mean() > 0.4


@pytest.mark.full
def test_inspect_draws_all_singular_values(trained, tmp_path, capsys):
    out = tmp_path / "F.png"
    assert cli.main(["inspect", f"--from={trained}", f"--spectra={out}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["spectra"]
    assert found["weights"] == ["g", "d"] and found["step"] == 4 and Image.open(out).width > 800
    state, _ = runs.load_state(trained, 4)
    conv = state.discriminator
    matrix = np.asarray(conv.params["block_0"]["conv1"]["kernel"], np.float64)
    matrix = matrix.reshape(-1, matrix.shape[-1]).T
    u = np.asarray(conv.spectral["block_0"]["conv1"]["u"], np.float64)
    v = u @ matrix / np.linalg.norm(u @ matrix)
    want = np.linalg.norm(matrix, 2) / np.linalg.norm(matrix @ v)
    assert found["sigma0"]["d"]["block_0/conv1"] == pytest.approx(want, rel=1e-4)
    assert cli.main(["inspect", "--config=digits", f"--spectra={out}"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--spectra", "--from DIR")
    assert cli.main(["inspect", f"--from={trained}", "--spectra=F.gif"]) == 2
    runs.assert_one_error(capsys.readouterr(), r"--spectra F.gif: the name must end in \.png")
