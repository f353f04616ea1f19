"""`biggan import --format pretrained-biggan`: outputs, and statistics for every truncation."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from flax import traverse_util

from biggan_jax import cli, load_generator
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.interop import convert
from biggan_jax.storage import truncation_statistics
from biggan_jax.storage.weights import load_weights, save_weights
from tests import peer, runs
from tests import pytorch_files as files

FORMAT = ("--format", "pretrained-biggan")


def test_outputs_equal_the_peers(tmp_path, capsys, fixtures_dir):
    f, weights = files.open_fixture("f05_hf_biggandeep128", fixtures_dir)
    path = files.save(tmp_path / "hf" / "pytorch_model", weights)
    name = "biggan-deep-128-pytorch_model" + path.suffix.replace("pth", "bin")
    path = path.rename(path.with_name(name))
    config = {k: v.tolist() for k, v in files.peer.split(f, "meta").items()}
    config["eps"] = 1e-4  # in double precision, as in their files
    config["layers"] = [[bool(up), *widths] for up, *widths in config["layers"]]
    (path.parent / "biggan-deep-128-config.json").write_text(json.dumps(config))
    out = tmp_path / "m"
    result = files.imported(capsys, *FORMAT, path.parent, "--out", out)
    expected = {"name": "biggan_deep", "sn_eval": "stored", "cond_order": "z_embedding"}
    expected |= {"bn_eps": 1e-4, "sn_eps": 1e-4, "rgb_width": 8, "g_attention": [64]}
    assert result["model"] | expected == result["model"]
    assert result["networks"]["g_ema"]["unused"] == []

    # tests/models holds the outputs of these variables against the peer's.
    def rows(row):
        return peer.pretrained_variables(weights, 8, "attention_64", row)

    for truncation, row in ((None, 50), (0.5, 25)):
        got = load_generator(out, truncation_statistics=truncation)._variables
        jax.tree.map(np.testing.assert_array_equal, got, rows(row))
    got = load_generator(out, truncation_statistics=0.435)._variables["batch_stats"]
    between = jax.tree.map(
        lambda a, b: 0.25 * a + 0.75 * b, rows(21)["batch_stats"], rows(22)["batch_stats"]
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), got, between)
    # Which of its 51 rows the peer uses.
    for t, row in zip(f["bn_interp/trunc"], f["bn_interp/effective_mean_row"], strict=True):
        index, weight = truncation_statistics.position(
            round(float(t), 4), 51, hf_interpolation=True
        )
        assert index + weight == pytest.approx(row, abs=1e-4)

    config["layers"][3] = [True, 16, 16]
    (path.parent / "biggan-deep-128-config.json").write_text(json.dumps(config))
    assert cli.main(["import", *FORMAT, str(path.parent), "--out", str(out)]) == 2
    runs.assert_one_error(capsys.readouterr(), "config.json: its layers for 128 pixels")


@pytest.mark.parametrize(
    ("t", "correct", "hf"),
    [(0.0, 0, 0), (0.02, 1, 1), (0.435, 21.75, 21.25), (0.14, 7, 8), (0.28, 14, 15),
     (0.56, 28, 29), (0.58, 29, 28), (0.94, 47, 46), (0.999, 49.95, 49.05), (1.0, 50, 50)],
)  # fmt: skip
def test_rows(t, correct, hf):
    for expected, flag in ((correct, False), (hf, True)):
        index, weight = truncation_statistics.position(t, 51, flag)
        assert index + weight == pytest.approx(expected, abs=1e-9)
        assert index + (weight > 0) <= 50
        # 0.58 * 50 is 28.999999999999996: a row of its own all the same.
        assert flag or expected % 1 or (index, weight) == (expected, 0)


def test_a_truncation_outside_the_rows():
    with pytest.raises(UserError, match="is 1.5; they were taken for 0 to 1"):
        truncation_statistics.position(1.5, 51)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tiny model with three rows of statistics."""
    out = tmp_path_factory.mktemp("rows")
    config = default_config()
    config.model.update(resolution=16, ch=4, num_classes=2, dim_z=6, shared_dim=4)
    config.model.update(g_attention=(), d_attention=())
    rng = np.random.default_rng(0)
    shapes = {path: leaf.shape for path, leaf in convert.target(config.model, "g").items()}
    flat = {path: rng.standard_normal(shape, np.float32) for path, shape in shapes.items()}
    flat = {path: abs(x) if path.endswith("/var") else x for path, x in flat.items()}
    variables = traverse_util.unflatten_dict(flat, sep="/")
    scales = np.array([1, 9, 2], np.float32)
    rows = jax.tree.map(lambda x: scales[:, None] * x[None], variables["batch_stats"])
    save_weights(out, "g_ema", variables)
    save_weights(out, truncation_statistics.NAME, {"batch_stats": rows})
    (out / "config.json").write_text(json.dumps({"model": config.model.to_dict()}))
    return out


def test_samples_take_the_statistics_of_their_truncation(directory, tmp_path, capsys):
    def sample(*argv):
        out = tmp_path / "x.npz"
        argv = ["sample", f"--from={directory}", f"--out={out}", "--per-class=1", *argv]
        assert cli.main(argv) == 0
        return dict(np.load(out))

    g = load_generator(directory)
    variables = g._variables
    places = jax.tree.map(lambda x: x.sharding, variables)

    def expected(got, t, hf=False):
        chosen = truncation_statistics.select(variables, directory, t, hf)
        g._variables = jax.device_put(chosen, places)  # where the weights lie: on all devices
        images = np.clip(np.rint((g(got["z"], got["labels"]) + 1) * 127.5), 0, 255)
        return np.abs(images - got["images"].astype(float)).max() <= 1

    got = sample("--truncation=0.25")
    assert expected(got, 0.25) and not expected(got, 1.0)
    got = sample("--truncation=0.25", "--truncation-statistics=0.6", "--hf-interpolation")
    assert expected(got, 0.6, hf=True) and not expected(got, 0.6)
    got = sample("--truncation=2.5")  # beyond the last row
    assert expected(got, 1.0)


def test_no_statistics_to_choose_from(directory, tmp_path, capsys):
    weights = load_weights(directory, "g_ema")
    save_weights(tmp_path, "g_ema", weights)
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    argv = ["sample", "--from", str(tmp_path), "--out", str(tmp_path / "x.png")]
    assert cli.main([*argv, "--truncation-statistics", "0.5"]) == 2
    runs.assert_one_error(capsys.readouterr(), "holds no statistics for several truncations")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "one config.json and one pytorch_model.bin .*found no config and no weights"),
        (["config.json"], "found .*config.json and no weights"),
        (["config.json", "pytorch_model.bin"], "config.json is no config of pytorch-pretrained"),
        (["a-config.json", "b-config.json", "a-pytorch_model.bin"], "a-config.json, .*b-config"),
    ],
)
def test_bad_folder(tmp_path, capsys, names, words):
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    assert cli.main(["import", *FORMAT, str(folder), "--out", str(tmp_path / "m")]) == 2
    runs.assert_one_error(capsys.readouterr(), words)
