"""`biggan verify`: layers of another implementation agree, and the first that does not is named.

The recordings are of `numpy_peer`, which shares no code with ours.
"""

import json
import re
import shutil

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.errors import UserError
from biggan_jax.interop import recording
from tests import pages, runs
from tests import pytorch_files as files
from tests.interop import numpy_peer
from tests.interop.numpy_peer import Peer

Z = np.random.RandomState(1).standard_normal((3, 6)).astype(np.float32)
IMAGES = np.random.RandomState(2).uniform(-1, 1, (3, 3, 16, 16)).astype(np.float32)
LABELS = np.array([2, 0, 1])
INPUTS = {"g": {"z": Z, "labels": LABELS}, "d": {"images": IMAGES, "labels": LABELS}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The import of a random pair."""
    folder = tmp_path_factory.mktemp("verify")
    for player in "gd":
        weights = {k: np.float32(x) for k, x in numpy_peer.weights(player).items()}
        files.save(folder / "peer" / player.upper(), weights)
    where = [str(folder / "peer"), "--out", str(folder / "m")]
    assert cli.main(["import", "--format", "biggan-pytorch", *where]) == 0
    return folder / "m"


def recorded(path, player="g", change=None, bn_eps=1e-5):
    """(the file, the peer) of a recording, its weights changed before."""
    weights = {k: np.array(x, np.float32) for k, x in numpy_peer.weights(player).items()}
    if change:
        change(weights)
    peer = Peer(weights, bn_eps)
    if player == "g":
        peer.generator(Z, LABELS)
    else:
        peer.discriminator(IMAGES, LABELS, down=(True, True, False))
    return peer.save(path / f"{player}.npz", **INPUTS[player]), peer


def run(capsys, directory, path, *more):
    """(the exit code, the object of --json, what a person reads)."""
    raw = [] if path.name[0] == "d" else ["--raw"]
    argv = ["verify", "--from", directory, "--against", path, *raw, *more, "--json"]
    code = cli.main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def fails(capsys, directory, path, *words, more=()):
    argv = ["verify", "--from", directory, "--against", path, *more]
    assert cli.main([str(word) for word in argv]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


@pytest.mark.parametrize("player", "gd")
def test_the_recordings_are_the_peers(player):
    """`numpy_peer` gives what BigGAN-PyTorch's own classes gave."""
    f, weights = files.open_fixture(
        {"g": "f01_biggan32_G_shared_hier", "d": "f01_biggan32_D"}[player]
    )
    peer = Peer(weights)
    if player == "g":
        out = peer.generator(f["in/z"], f["in/y"])
    else:
        out = peer.discriminator(f["in/x"], f["in/y"])
    np.testing.assert_allclose(out, f["eval/out"], atol=2e-5)
    for name, x in peer.seen.items():
        if f"eval/act/{name}/first64" in f:
            np.testing.assert_allclose(x.ravel()[:64], f[f"eval/act/{name}/first64"], atol=2e-5)


def test_every_layer_of_g_agrees(tmp_path, capsys, directory):
    path, peer = recorded(tmp_path)
    code, result, said = run(capsys, directory, path)
    assert code == 0 and result["first_difference"] is None and result["cause"] is None
    rows = {row["name"]: row for row in result["layers"]}
    # In the order in which they were computed there, with one exception: attention before `o`.
    assert list(rows) == [name for name in peer.seen if name != "activation"]
    assert result["unknown"].keys() == {"activation"} and result["not_recorded"] == []
    assert all(row["ok"] and row["relative"] < 1e-5 for row in rows.values())
    assert rows["blocks.0.1.o"]["ours"] == "attention_8/o"
    assert (
        rows["blocks.1.0.conv_sc"] | {"ours": "block_1/shortcut", "shape": [3, 8, 16, 16]}
        == (rows["blocks.1.0.conv_sc"])
    )
    assert result["names"] == "BigGAN-PyTorch" and result["layout"].startswith("NCHW by the shapes")
    # 8 channels of 8 pixels fit both layouts.
    assert "NCHW for blocks.0.0.conv1, blocks.0.0.bn2" in result["layout"]
    lines = said.splitlines()
    assert lines[-1] == f"{len(rows)} layers agree within 2e-05 of the largest value"
    assert sum(line.endswith("  ok") for line in lines) == len(rows)
    assert "not compared, since no layer here has these names: activation" in said


def test_every_layer_of_d_agrees(tmp_path, capsys, directory):
    """Convolutions that are fused with pooling here are compared before it."""
    path, peer = recorded(tmp_path, "d")
    code, result, _ = run(capsys, directory, path)
    assert code == 0
    rows = {row["name"]: row for row in result["layers"]}
    assert rows.keys() == peer.seen.keys()
    assert rows["blocks.0.0.conv2"]["ours"] == "block_0/conv2 without resampling"
    assert rows["blocks.1.0.conv_sc"]["ours"] == "block_1/shortcut without resampling"
    assert rows["blocks.0.0.conv_sc"]["ours"] == "block_0/shortcut"


def one_weight(weights):
    weights["blocks.1.0.conv1.weight"][5, 2, 1, 1] += 1


def one_u(weights):
    weights["blocks.0.0.conv1.u0"][:] = np.random.RandomState(3).standard_normal((1, 8))


def no_bias(weights):
    weights["blocks.0.0.conv2.bias"][:] = 0


def statistics(weights):
    weights["blocks.0.0.bn2.stored_mean"][:] *= 1.5


@pytest.mark.parametrize(
    ("change", "bn_eps", "name", "cause"),
    [
        (one_weight, 1e-5, "blocks.1.0.conv1", None),
        pytest.param(
            one_u,
            1e-5,
            "blocks.0.0.conv1",
            r"its weight is [\d.]+ times ours: another spectral",
            marks=pytest.mark.full,
        ),
        (None, 1e-3, "blocks.0.0.bn1", "its epsilon is 0.001 there and 1e-05 here"),
        pytest.param(no_bias, 1e-5, "blocks.0.0.conv2", "no bias there", marks=pytest.mark.full),
        pytest.param(
            statistics, 1e-5, "blocks.0.0.bn2", "other running statistics", marks=pytest.mark.full
        ),
    ],
)
def test_the_first_difference_is_named(tmp_path, capsys, directory, change, bn_eps, name, cause):
    path, _ = recorded(tmp_path, change=change, bn_eps=bn_eps)
    code, result, said = run(capsys, directory, path)
    assert code == 1 and result["first_difference"] == name
    names = [row["name"] for row in result["layers"]]
    before = result["layers"][: names.index(name)]
    assert before and all(row["ok"] for row in before)
    last = said.splitlines()[-1]
    assert last.startswith(f"first layer that differs: {name}, ours block_")
    if cause is None:
        assert result["cause"] is None and last.endswith(f"up to {before[-1]['name']})")
    else:
        assert re.search(cause, result["cause"]) and result["cause"] in last


def write(path, arrays, **more):
    np.savez(path, **(arrays | more))
    return path


G = {"z": Z, "labels": LABELS, "linear": np.zeros((3, 128), np.float32)}
D = {"images": IMAGES, "labels": LABELS, "embed": np.zeros((3, 8), np.float32)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": LABELS, "linear": Z}, "neither z nor images"),
        (G | {"images": IMAGES}, "both z and images"),
        ({"z": Z, "labels": LABELS}, "z and no activations"),
        (G | {"linear": np.array([{}, None])}, "linear.npy holds object, neither numbers nor text"),
        (G | {"linear": np.array(["a"])}, "linear of <U1 is no activation"),
        (G | {"linear": np.full((3, 128), np.nan)}, "NaN or infinity in linear"),
        (G | {"z": Z * np.inf}, "z hold NaN or infinity"),
        (G | {"z": Z[:, :5]}, r"z has shape .3, 5.; this model takes .N, 6."),
        (G | {"z": Z[:0]}, "holds no samples"),
        (G | {"labels": LABELS[:2]}, r"labels have shape .2,.; z asks for .3."),
        (G | {"labels": LABELS + 1}, "class 3 does not exist: this model has classes 0 to 2"),
        (G | {"labels": LABELS + 0.5}, "class ids are integers"),
        ({"z": Z, "linear": Z}, "holds no labels, and the model has 3 classes"),
        (D | {"images": IMAGES[..., :8]}, r"images have shape .3, 3, 16, 8."),
        (D | {"images": IMAGES[:, :1]}, r"images have shape .3, 1, 16, 16."),
        (D | {"images": IMAGES * 127.5}, r"images reach 127.*in .-1, 1."),
    ],
)
def test_bad_arrays(tmp_path, capsys, directory, arrays, words):
    more = ["--raw"] if "z" in arrays else []
    fails(capsys, directory, write(tmp_path / "x.npz", arrays), "x.npz", words, more=more)


@pytest.mark.parametrize("content", [b"", b"abc", "half"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_bad_files(tmp_path, capsys, directory, content, suffix):
    path = tmp_path / f"x{suffix}"
    if content == "half":
        np.savez(tmp_path / "whole.npz", **G)
        content = (tmp_path / "whole.npz").read_bytes()[:400]
    path.write_bytes(content)
    fails(capsys, directory, path, f"x{suffix}.*(cannot be read|no safetensors file)")


def test_files_that_are_not_there(tmp_path, capsys, directory):
    fails(capsys, directory, tmp_path / "x.npz", "x.npz: no such file")
    (tmp_path / "y.npz").mkdir()
    fails(capsys, directory, tmp_path / "y.npz", "y.npz: it is a directory")
    fails(capsys, directory, tmp_path / "g.pth", "name an .npz or .safetensors file")


def test_names_and_shapes_that_do_not_fit(tmp_path, capsys, directory):
    def refused(name, x, words, *more):
        path = write(tmp_path / "x.npz", {"z": Z, "labels": LABELS, name: x})
        fails(capsys, directory, path, words, more=["--raw", *more])

    wide = np.zeros((3, 8, 8, 9), np.float32)
    refused("blocks.0.0.conv1", wide, r"blocks.0.0.conv1 is .3, 8, 8, 9., ours .block_0/conv1. ")
    refused(
        "blocks.0.0.con1",
        wide,
        "no recorded name is .*near blocks.0.0.conv1.: name the layers in --map",
    )
    refused("linear", G["linear"], "--tolerance is 2.0; set it", "--tolerance", "2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "names.json cannot be read"),
        ("[1]", "must be one JSON object of names"),
        ('{"first": 1}', "must be one JSON object of names"),
        ('{"first": "block_0/conf1"}', "'block_0/conf1' is no layer .*'block_0/conv1'"),
        ('{"firsd": "block_0/conv1"}', "'firsd' is not recorded .did you mean 'first'"),
        (None, "names.json: no such file"),
    ],
)
def test_bad_maps(tmp_path, text, words):
    path = tmp_path / "names.json"
    if text is not None:
        path.write_text(text)
    known = {"block_0/conv1": "block_0/conv1", "blocks.0.0.conv1": "block_0/conv1"}
    with pytest.raises(UserError, match=words):
        recording.read_map(path, known, ["first"])
    path.write_text('{"first": "blocks.0.0.conv1"}')
    assert recording.read_map(path, known, ["first"]) == {"first": "block_0/conv1"}


def test_the_other_player(tmp_path, capsys, directory):
    path = write(tmp_path / "x.npz", D)
    fails(capsys, directory, path, "--raw is of a generator.*leave it out", more=["--raw"])
    words = "--bn-mode is of a generator.*leave it out"
    fails(capsys, directory, path, words, more=["--bn-mode", "batch"])
    lone = shutil.copytree(directory, tmp_path / "lone")
    shutil.rmtree(lone / "weights" / "g")
    path = write(tmp_path / "x.npz", G)
    fails(capsys, lone, path, "no weights 'g' in .*: it has d", more=["--raw"])


@pytest.mark.full
def test_own_names_nhwc_and_a_map(tmp_path, capsys, directory):
    """What no peer is known to have named; the order of the first linear layer is the nearer."""
    _, peer = recorded(tmp_path)
    hwc = peer.seen["linear"].reshape(3, 8, 16).swapaxes(1, 2).reshape(3, -1)
    arrays = {
        "first": hwc,
        "linear": hwc,
        "shared": peer.seen["shared"],
        "block_0.conv1": peer.seen["blocks.0.0.conv1"].transpose(0, 2, 3, 1),
        "block_1/conv1": peer.seen["blocks.1.0.conv1"].transpose(0, 2, 3, 1),
        "module.output": peer.seen["output"].transpose(0, 2, 3, 1),
        "elsewhere": hwc,
    }
    arrays = {name: x.astype(np.float32) for name, x in arrays.items()}
    path = write(tmp_path / "g.npz", INPUTS["g"] | arrays)
    (tmp_path / "names.json").write_text('{"first": "linear"}')
    code, result, _ = run(capsys, directory, path, "--map", tmp_path / "names.json")
    assert code == 0 and result["names"] is None and result["unknown"].keys() == {"elsewhere"}
    ours = {row["name"]: row["ours"] for row in result["layers"]}
    assert ours == {
        "first": "linear",
        "linear": "linear",
        "shared": "shared",
        "block_0.conv1": "block_0/conv1",
        "block_1/conv1": "block_1/conv1",
        "module.output": "output",
    }
    assert result["layout"] == "NHWC by the shapes of 2 layers; NHWC for block_0.conv1 too, " \
        "whose shapes fit both"  # fmt: skip
    assert "block_0/conv2" in result["not_recorded"]


@pytest.mark.full
def test_safetensors_and_a_training_forward(tmp_path, capsys, directory):
    """Statistics of the batch fit with --bn-mode batch, and are named as the cause without."""
    from safetensors.numpy import save_file

    _, peer = recorded(tmp_path)
    x = peer.seen["linear"].reshape(3, 8, 4, 4)
    gain, bias = (peer.seen[f"blocks.0.0.bn1.{name}"] for name in ("gain", "bias"))
    deviation = np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    y = (x - x.mean((0, 2, 3), keepdims=True)) / deviation
    y = y * (1 + gain[..., None, None]) + bias[..., None, None]
    arrays = {"z": Z, "labels": LABELS.astype(np.float32), "blocks.0.0.bn1": np.float32(y)}
    save_file(arrays, tmp_path / "g.safetensors")
    code, result, _ = run(capsys, directory, tmp_path / "g.safetensors")
    assert code == 1 and "the statistics of the batch: record in evaluation" in result["cause"]
    code, result, _ = run(capsys, directory, tmp_path / "g.safetensors", "--bn-mode", "batch")
    assert code == 0, result["layers"]


@pytest.mark.full
def test_an_inner_batch_norm_before_gain_and_bias(tmp_path, capsys, directory):
    """As StudioGAN has it, whose names also say whose the recording is."""
    _, peer = recorded(tmp_path)
    gain, bias = (peer.seen[f"blocks.0.0.bn1.{name}"] for name in ("gain", "bias"))
    y = peer.seen["blocks.0.0.bn1"]
    plain = (y - bias[..., None, None]) / (1 + gain[..., None, None])
    arrays = {"linear0": peer.seen["linear"], "blocks.0.0.bn1": y, "blocks.0.0.bn1.bn": plain}
    arrays = {name: x.astype(np.float32) for name, x in arrays.items()}
    path = write(tmp_path / "g.npz", INPUTS["g"] | arrays)
    code, result, _ = run(capsys, directory, path)
    assert code == 0, result
    assert result["names"] == "PyTorch-StudioGAN" and len(result["layers"]) == 3
    assert result["layers"][1]["ours"] == "block_0/bn1/norm before gain and bias"
    write(path, INPUTS["g"] | arrays | {"blocks.0.0.bn1.bn": 1.1 * arrays["blocks.0.0.bn1.bn"]})
    code, result, _ = run(capsys, directory, path)
    assert code == 1 and result["first_difference"] == "blocks.0.0.bn1.bn"
    assert "other running statistics" in result["cause"]


@pytest.mark.full
def test_a_difference_that_begins_within_the_tolerance(tmp_path, capsys, directory):
    """An epsilon of 3e-5 in place of 1e-5 changes the output little more than rounding does."""
    path, _ = recorded(tmp_path, bn_eps=3e-5)
    _, result, _ = run(capsys, directory, path, "--tolerance", "1e-6")
    assert result["first_difference"] == "blocks.0.0.bn1" and result["begins"] is None
    assert "its epsilon is 3e-05 there" in result["cause"]
    (first,) = (x["relative"] for x in result["layers"] if x["name"] == "blocks.0.0.bn1")
    code, result, said = run(capsys, directory, path, "--tolerance", f"{1.01 * first}")
    assert code == 1 and result["first_difference"] != "blocks.0.0.bn1"
    assert result["begins"] == "blocks.0.0.bn1"
    assert "the difference begins at blocks.0.0.bn1: set --tolerance" in said.splitlines()[-1]


def test_the_recorder_of_the_page(tmp_path, capsys, directory):
    """What docs/import.md shows records modules of PyTorch, before what is done in place."""
    torch = pytest.importorskip("torch")
    (block,) = (block for block in pages.blocks("docs/import.md") if block.language == "python")
    names: dict = {}
    exec(compile(block.text, block.where, "exec"), names)
    peer = Peer({k: np.float32(x) for k, x in numpy_peer.weights("g").items()})

    class Generator(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.linear = torch.nn.Embedding(3, 4), torch.nn.Linear(2, 128)
            self.activation = torch.nn.ReLU(inplace=True)
            for layer, weight in ((self.shared, "shared"), (self.linear, "linear")):
                layer.weight.data = torch.tensor(peer.weight(weight), dtype=torch.float32)
            self.linear.bias.data = torch.tensor(peer.w["linear.bias"], dtype=torch.float32)

        def forward(self, z, shared):
            return {"two": self.activation(self.linear(z[:, :2])), "of": shared}

    g, z, y = Generator(), torch.tensor(Z), torch.tensor(LABELS)
    names["record"](g, tmp_path / "g.npz", lambda: g(z, g.shared(y)), z=z, labels=y)
    assert not g.training and not g.linear._forward_hooks
    code, result, _ = run(capsys, directory, tmp_path / "g.npz")
    assert code == 0
    assert [row["name"] for row in result["layers"]] == ["shared", "linear"]
    assert result["unknown"].keys() == {"activation"}
