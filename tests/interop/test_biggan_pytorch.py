"""`biggan import --format biggan-pytorch`: outputs, names, contradictions, bad files."""

import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from biggan_jax import cli, load_discriminator, load_generator, models
from biggan_jax.errors import UserError
from biggan_jax.storage.weights import load_weights
from tests import peer, runs
from tests import pytorch_files as files
from tests.peer import nhwc

FORMAT = ("--format", "biggan-pytorch")
G, D = "f01_biggan32_G_shared_hier", "f01_biggan32_D"


def fails(capsys, argv, *words):
    assert cli.main(["import", *FORMAT, *map(str, argv)]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def forward(loaded, index, *inputs):
    """A small forward of what was loaded, which itself pads a batch to 64."""
    module = models.build(loaded.config.model)[index]
    return jax.jit(module.apply)(loaded._variables, *inputs)


def same(tree, other):
    """The two have the same names and bits."""
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def check_generator(directory, f, out="eval/out", z="in/z", y="in/y"):
    images = forward(load_generator(directory), 0, f[z], f[y].astype(np.int32))
    np.testing.assert_allclose(images, nhwc(f[out]), atol=2e-5)


def check_discriminator(directory, f):
    logits = forward(load_discriminator(directory), 1, nhwc(f["in/x"]), f["in/y"].astype(np.int32))
    np.testing.assert_allclose(logits, f["eval/out"][:, 0], atol=2e-5)


@pytest.mark.parametrize("g", [G, "f04b_biggandeep32_G"])
def test_pair(tmp_path, capsys, g):
    """G, an averaged G with DataParallel's names, and D in one folder."""
    f, weights = files.open_fixture(g)
    d = g.replace("_G", "_D").removesuffix("_shared_hier")
    fd, d_weights = files.open_fixture(d)
    folder = tmp_path / "peer"
    files.save(folder / "G", weights)
    files.save(folder / "G_ema", {f"module.{k}": v for k, v in weights.items()})
    files.save(folder / "D", d_weights)
    (folder / "state_dict.pth").write_bytes(b"not to be read")
    (folder / "G_optim.pth").write_bytes(b"not to be read")
    result = files.imported(capsys, *FORMAT, folder, "--out", tmp_path / "m")
    assert result["networks"].keys() == {"g", "g_ema", "d"}
    m, meta = result["model"], lambda key: int(f[f"meta/{key}"])
    assert m["name"] == ("biggan_deep" if "deep" in g else "biggan")
    expected = {
        "resolution": 32,
        "ch": meta("G_ch"),
        "num_classes": 10,
        "dim_z": meta("dim_z_used"),
    }
    expected |= {"shared_dim": meta("shared_dim"), "bn_eps": 1e-5, "sn_eps": 1e-6}
    expected |= {"sn_eval": "iterate", "cond_order": "embedding_z", "d_thin": False}
    expected |= {"g_attention": [16] if "deep" in g else [], "d_attention": []}
    assert m | expected == m
    deep = m["name"] == "biggan_deep"
    if deep:  # tests/models holds the outputs of these variables against the peer's
        expected = peer.variables(weights, {"3": "attention_16"}, 32)
        d_expected = peer.variables(d_weights, {}, deep_d=True)
        d_expected = {k: tree for k, tree in d_expected.items() if tree}
        same(load_weights(tmp_path / "m", "d"), d_expected)
    else:
        check_generator(tmp_path / "m", f)
        check_discriminator(tmp_path / "m", fd)
        expected = load_weights(tmp_path / "m", "g_ema")
    same(load_weights(tmp_path / "m", "g"), expected)
    same(load_weights(tmp_path / "m", "g_ema"), expected)


def test_without_shared_embedding(tmp_path, capsys):
    f, weights = files.open_fixture("f01b_biggan32_G_cifar_script_noshared")
    path = files.save(tmp_path / "G_ema_best0", weights)
    m = files.imported(capsys, *FORMAT, path, "--sn-eps", "1e-8", "--out", tmp_path / "m")["model"]
    assert (m["shared_embedding"], m["hierarchical_z"], m["sn_eps"]) == (False, False, 1e-8)
    images = load_generator(tmp_path / "m")(f["in/z"], f["in/y"])
    np.testing.assert_allclose(images, nhwc(f["eval/out"]), atol=2e-5)


def test_standing_statistics_of_mybn(tmp_path, capsys):
    """`--accumulate_stats` leaves sums and their count."""
    f, weights = files.open_fixture("f01d_biggan32_G_mybn_standing")
    weights |= files.peer.split(f, "standing/after")
    path = files.save(tmp_path / "G", weights)
    result = files.imported(capsys, *FORMAT, path, "--out", tmp_path / "m")
    assert result["model"]["bn_variance"] == "biased"
    assert result["networks"]["g"]["unused"] == []
    check_generator(tmp_path / "m", f, out="standing/eval_out")


@pytest.mark.parametrize("player", ["G", "D"])
def test_128_with_attention_from_safetensors(tmp_path, capsys, fixtures_dir, player):
    """A lone D is fine."""
    _, weights = files.open_fixture(f"f03_biggan128_{player}_attn64", fixtures_dir)
    path = tmp_path / "weights.safetensors"
    save_file({k: np.array(v, order="C") for k, v in weights.items()}, path)
    m = files.imported(capsys, *FORMAT, path, "--out", tmp_path / "m")["model"]
    assert m[f"{player.lower()}_attention"] == [64] and m["resolution"] == 128
    # tests/models holds the outputs of these variables against the peer's.
    place = ({"3": "attention_64"}, 64) if player == "G" else ({"0": "attention_64"},)
    expected = {k: tree for k, tree in peer.variables(weights, *place).items() if tree}
    same(load_weights(tmp_path / "m", player.lower()), expected)


def test_lone_thin_d_of_64_pixels(tmp_path, capsys):
    """Its last block does not halve, which no shape says; made by BigGAN-PyTorch's own class."""
    f, weights = files.open_fixture("biggan64_D_thin")
    path = files.save(tmp_path / "D_copy0", weights)
    m = files.imported(capsys, *FORMAT, path, "--out", tmp_path / "m")["model"]
    expected = {"resolution": 64, "ch": 2, "num_classes": 5, "d_thin": True, "d_attention": []}
    assert m | expected == m
    check_discriminator(tmp_path / "m", f)
    with pytest.raises(UserError, match="no weights 'g_ema' in .*: it has d"):
        load_generator(tmp_path / "m")


def test_output_batch_norm_keeps_its_eps(tmp_path, capsys):
    _, weights = files.open_fixture(G)
    path = files.save(tmp_path / "G", weights)
    files.imported(capsys, *FORMAT, path, "--bn-eps", "1e-3", "--out", tmp_path / "m")
    stats = load_weights(tmp_path / "m", "g")["batch_stats"]
    got = stats["bn_out"]["norm"]["var"] + 1e-3
    np.testing.assert_allclose(got, weights["output_layer.0.stored_var"] + 1e-5, rtol=1e-6)
    got = stats["block_0"]["bn1"]["norm"]["var"]
    np.testing.assert_array_equal(got, weights["blocks.0.0.bn1.stored_var"])


def test_every_tensor_is_accounted_for(tmp_path, capsys):
    _, weights = files.open_fixture(D)
    extra = weights | {"blocks.9.foo": np.ones(2, np.float32), "linear.u1": np.ones((1, 1))}
    path = files.save(tmp_path / "D", extra)
    out = ["--out", tmp_path / "m"]
    # An unknown block would be read as a further one: the architecture must not be guessed from it.
    fails(capsys, [path, *out], "blocks.9.0.conv2.weight|blocks.4.0.conv2.weight")
    extra["foo.weight"] = extra.pop("blocks.9.foo")
    part = files.imported(capsys, *FORMAT, files.save(tmp_path / "D", extra), *out)["networks"]["d"]
    assert part["unused"] == ["foo.weight"]
    buffers = sum(k.endswith("sv0") for k in weights) + 1
    assert (part["unused_buffers"], part["parameters"]) == (buffers, 67169)
    del weights["blocks.1.0.conv2.bias"]
    weights["embed.weight"] = weights["embed.weight"][:, :-1]
    path = files.save(tmp_path / "D", weights)
    words = "missing: blocks.1.0.conv2.bias; misshapen: embed.weight is .10, 31., not .10, 32."
    fails(capsys, [path, "--out", tmp_path / "n"], words)
    assert not (tmp_path / "n").exists()


def test_contradictions(tmp_path, capsys):
    _, weights = files.open_fixture(G)
    _, deep = files.open_fixture("f04b_biggandeep32_D")
    g, d = files.save(tmp_path / "G", weights), files.save(tmp_path / "D", deep)
    out = ["--out", tmp_path / "m"]
    fails(capsys, [g, d, *out], "G.* has name biggan, .*D.* has biggan_deep")
    other = files.save(tmp_path / "G2", weights)
    fails(capsys, [g, other, *out], "are both g; give one")
    fails(capsys, [g, "--config.model.ch=16", *out], "linear.weight is .512, 8., not .1024, 8.|and")
    fails(
        capsys,
        [g, "--config.model.chh=16", *out],
        "unknown config key 'model.chh'.*did you mean 'model.ch'",
    )
    fails(capsys, [g, "--bn-eps", "0", *out], "--bn-eps is 0.0")
    fails(capsys, [g, "--any-weights", *out], "--any-weights is for --format inception-fid")
    files.imported(capsys, *FORMAT, g, *out)
    files.imported(capsys, *FORMAT, g, *out)  # the same again
    config = tmp_path / "m" / "config.json"
    saved = json.loads(config.read_text())
    del saved["model"]["d_skip"]  # by a version that had no such setting
    config.write_text(json.dumps(saved))
    files.imported(capsys, *FORMAT, g, *out)
    assert "d_skip" in json.loads(config.read_text())["model"]
    fails(capsys, [g, "--sn-eps", "1e-4", *out], "holds another model")


def test_choice_within_a_folder(tmp_path, capsys):
    _, weights = files.open_fixture("f01d_biggan32_G_mybn_standing")
    for age, suffix in enumerate(["_best0", "_best1", "_copy0"]):
        path = files.save(tmp_path / "p" / f"G_ema{suffix}", weights)
        os.utime(path, (1e9 - age, 1e9 - age))

    def chosen(*more):
        result = files.imported(capsys, *FORMAT, tmp_path / "p", *more, "--out", tmp_path / "m")
        return Path(result["networks"]["g_ema"]["file"]).name.split(".")[0]

    assert chosen() == "G_ema_best0"  # the newest
    assert chosen("--suffix", "copy0") == "G_ema_copy0"
    files.save(tmp_path / "p" / "G_ema", weights)
    assert chosen() == "G_ema"
    argv = [tmp_path / "p", "--out", tmp_path / "m"]
    fails(capsys, [*argv, "--suffix", "best7"], "no set 'best7'; set --suffix to .*best1")
    (tmp_path / "empty").mkdir()
    fails(capsys, [tmp_path / "empty", *argv[1:]], "empty holds no G.*name the files")


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle", "old"])
def test_code_is_refused_and_not_run(tmp_path, capsys, how):
    torch = pytest.importorskip("torch")
    path, mark = tmp_path / "G.pth", tmp_path / "ran"
    content = {"linear.weight": torch.ones(2), "x": Code(mark)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content["x"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    fails(capsys, [path, "--out", tmp_path / "m"], "G.pth may run code when it is unpickled")
    assert not mark.exists() and not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("half", "no PyTorch file, or is truncated"),
        ("text", "no PyTorch file, or is truncated"),
        ("empty", "no PyTorch file, or is truncated"),
        ("list", "holds a list; give the file of a state_dict"),
        ("number", "holds no tensors"),
        ("other", "neither G nor D of BigGAN-PyTorch: its tensors are a"),
        ("gone", "no such file"),
    ],
)
def test_bad_pth(tmp_path, capsys, damage, words):
    torch = pytest.importorskip("torch")
    path = tmp_path / "G.pth"
    torch.save({"a": torch.ones(99)}, path)
    if damage in ("half", "text", "empty"):
        content = path.read_bytes()
        contents = {"half": content[: len(content) // 2], "text": b"hello world", "empty": b""}
        path.write_bytes(contents[damage])
    elif damage in ("list", "number"):
        torch.save([torch.ones(2)] if damage == "list" else {"itr": 3}, path)
    elif damage == "gone":
        path.unlink()
    fails(capsys, [path, "--out", tmp_path / "m"], f"G.pth.*{words}")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64])
def test_bad_safetensors(tmp_path, capsys, content):
    path = tmp_path / "G.safetensors"
    path.write_bytes(content)
    fails(capsys, [path, "--out", tmp_path / "m"], "no safetensors file, or is truncated")


@pytest.mark.parametrize("archive", [False, True])
def test_a_pickle_under_another_name(tmp_path, capsys, archive):
    path, content = tmp_path / "G.safetensors", pickle.dumps({"a": [1.0] * 9})
    path.write_bytes(content)
    if archive:  # as PyTorch keeps one
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("G/data.pkl", content)
    words = "G.safetensors is a pickle under the name .*a .pth is taken name it G.pth"
    fails(capsys, [path, "--out", tmp_path / "m"], words)


def test_a_header_like_a_pickle_is_none(tmp_path, capsys):
    """A header of 640 bytes begins as a pickle of protocol 2 does."""
    path = tmp_path / "G.safetensors"
    path.write_bytes((640).to_bytes(8, "little") + b"{")
    fails(capsys, [path, "--out", tmp_path / "m"], "no safetensors file, or is truncated")


def test_without_torch(tmp_path, capsys, monkeypatch):
    (tmp_path / "G.pth").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    words = r"pip install 'biggan_jax\[import\]'"
    fails(capsys, [tmp_path / "G.pth", "--out", tmp_path / "m"], words)


def test_half_precision_and_the_format_before_torch_1_6(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    _, weights = files.open_fixture(D)
    half = {k: torch.from_numpy(v).half() for k, v in weights.items()}
    torch.save(half, tmp_path / "D.pth", _use_new_zipfile_serialization=False)
    files.imported(capsys, *FORMAT, tmp_path / "D.pth", "--out", tmp_path / "m")
    got = load_weights(tmp_path / "m", "d")["params"]["embed"]["embedding"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, weights["embed.weight"].astype(np.float16))
