"""`biggan bench`: the arithmetic of its figures on a tiny step."""

import json

import pytest

from biggan_jax import cli, data
from biggan_jax.parallel import sharding
from biggan_jax.planning import bench, summary
from biggan_jax.training import build as build_lib
from tests import runs


def test_figures(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "open_source", None)  # never a dataset
    c = runs.tiny_config("--config.num_d_steps=2")
    result = bench.bench(c, profile=tmp_path / "trace")
    assert list(result) == [
        "images_per_second",
        "step_seconds",
        "compile_seconds",
        "peak_bytes",
        "flops_per_second",
    ]
    assert all(value > 0 for value in result.values())
    assert result["images_per_second"] == pytest.approx(2 * 16 / result["step_seconds"])
    train_step = build_lib.train_step(c, sharding.make_mesh((1,)))
    flops = summary.step_flops(train_step, 16) * 16
    assert result["flops_per_second"] == pytest.approx(flops / result["step_seconds"])
    assert 1e5 < result["peak_bytes"] < 2e9
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_synthetic_batch():
    c = runs.tiny_config("--config.num_d_steps=3", "--config.model.num_classes=4")
    batch = bench.synthetic_batch(c)
    assert batch["image"].shape == (3, 16, 16, 16, 1) and batch["image"].dtype == "uint8"
    assert batch["label"].shape == (3, 16) and batch["label"].dtype == "int32"
    assert set(batch["label"].ravel()) == {0, 1, 2, 3} and batch["image"].std() > 50


def test_input_pipeline(monkeypatch, capsys):
    monkeypatch.setattr(bench, "INPUT_SECONDS", 0.2)
    monkeypatch.setattr(bench, "bench", lambda *_, **__: {"step_seconds": 1.0})
    assert cli.main(["bench", *runs.TINY, "--data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_images_per_second"] > 100


def test_input_pipeline_without_data(tmp_path, capsys):
    path = tmp_path / "c.py"
    path.write_text("from biggan_jax.config import default_config as get_config\n")
    argv = ["bench", "--config", str(path), "--config.model.num_classes=2", "--data"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "--config.data.source")
