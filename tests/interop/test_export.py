"""`biggan export`: what is written is read back to the bit, in our layout and in the peer's."""

import json
import pickle
import shutil

import jax
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.interop import export, players
from biggan_jax.interop.files import open_tensors
from biggan_jax.storage import tensor_file
from biggan_jax.storage.weights import load_weights
from tests import pytorch_files as files
from tests import runs


def run(*argv):
    assert cli.main([str(a) for a in argv]) == 0


def networks(directory):
    return {
        name: load_weights(directory, name)
        for name in ("g", "g_ema", "d")
        if (directory / "weights" / name).is_dir()
    }


def test_workdir_there_and_back(trained, tmp_path, capsys):
    file, ours, theirs = (tmp_path / name for name in ("all.safetensors", "ours", "theirs"))
    run("export", "--from", trained, "--format", "safetensors", "--out", file, "--json")
    held = json.loads(capsys.readouterr().out)["networks"]
    assert held.keys() == {"g", "g_ema", "d"}
    result = files.imported(capsys, "--format", "biggan-jax", file, "--out", ours)
    saved = json.loads((trained / "config.json").read_text())["model"]
    assert result["model"] == saved
    state = runs.load_state(trained)[0]
    for name, player in (("g", state.generator), ("d", state.discriminator), ("g_ema", state.ema)):
        for collection, tree in load_weights(ours, name).items():
            same = jax.tree.map(np.array_equal, tree, jax.device_get(getattr(player, collection)))
            assert all(jax.tree.leaves(same)), (name, collection)

    run("export", "--from", trained, "--format", "biggan-pytorch", "--out", tmp_path / "peer")
    capsys.readouterr()
    model = files.imported(
        capsys, "--format", "biggan-pytorch", tmp_path / "peer", "--out", theirs
    )["model"]
    for key in ("name", "resolution", "channels", "ch", "dim_z", "g_attention", "num_classes"):
        assert model[key] == saved[key]
    jax.tree.map(np.testing.assert_array_equal, networks(ours), networks(theirs))


def test_the_peers_own_tensors_come_back(tmp_path, capsys):
    """Export of an import is the imported state_dict, the logged singular values excepted."""
    from safetensors.numpy import load_file

    _, weights = files.open_fixture("f01d_biggan32_G_mybn_standing")
    path = files.save(tmp_path / "G", weights)
    files.imported(capsys, "--format", "biggan-pytorch", path, "--out", tmp_path / "m")
    run("export", "--from", tmp_path / "m", "--format", "biggan-pytorch", "--out", tmp_path / "p")
    back = load_file(tmp_path / "p" / "G.safetensors")
    assert back.keys() == weights.keys()
    for key, value in weights.items():
        if not key.endswith("sv0"):
            np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_inception_is_dispatched(tmp_path, capsys):
    argv = ["import", "--format", "inception-fid", str(tmp_path / "no.pth"), "--out", str(tmp_path)]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "no.pth: download https")
    assert cli.main([*argv, "--bn-eps", "1e-4"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--bn-eps is not for --format inception-fid")


def test_bad_exports(trained, tmp_path, capsys):
    def fails(argv, words):
        assert cli.main([str(a) for a in argv]) == 2
        runs.assert_one_error(capsys.readouterr(), words)

    fails(["export", "--from", trained, "--out", tmp_path / "x.pth"], "must end in .safetensors")
    fails(["export", "--from", tmp_path, "--out", tmp_path / "x.safetensors"], "no config.json")
    shutil.copy(trained / "config.json", tmp_path / "config.json")
    fails(["export", "--from", tmp_path, "--out", tmp_path / "x.safetensors"], "holds no weights")
    export._save({"g/params/x": np.ones(2)}, tmp_path / "y.safetensors", {"config": "{}"})
    into = ["--out", tmp_path / "m"]
    ours = ["import", "--format", "biggan-jax"]
    fails([*ours, tmp_path / "y.safetensors", *into], "num_classes is not set")
    fails([*ours, tmp_path / "y.pth", *into], "takes one .safetensors file")
    fails(["import", "--format", "biggan-jax", trained / "config.json", *into], "safetensors file")
    config = (trained / "config.json").read_text()
    said = tensor_file.METADATA | {"config": json.dumps({"model": json.loads(config)["model"]})}
    export._save({"bert/x": np.ones(2)}, tmp_path / "z.safetensors", said)
    fails([*ours, tmp_path / "z.safetensors", *into], "holds none of g, g_ema, d: .* bert/x")
    export._save({"bert/x": np.ones(2)}, tmp_path / "z.safetensors", {})
    fails([*ours, tmp_path / "z.safetensors", *into], "was not written by .* bert/x; give one")
    (tmp_path / "z.safetensors").write_bytes(pickle.dumps({"x": 1}))
    fails([*ours, tmp_path / "z.safetensors", *into], "is a pickle .* export never writes")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "setting", ["cond_order=z_embedding", "attention_kind=residual", "attention_form=paper"]
)
def test_what_the_peer_does_not_have(run_copy, tmp_path, capsys, setting):
    config = json.loads((run_copy / "config.json").read_text())
    key, _, value = setting.partition("=")
    config["model"] |= {key: value, "g_attention": []}
    shutil.rmtree(run_copy / "checkpoints")
    (run_copy / "config.json").write_text(json.dumps(config))
    from biggan_jax.storage.weights import save_weights

    save_weights(run_copy, "g", {"params": {"x": np.ones(2, np.float32)}})
    argv = ["export", "--from", run_copy, "--format", "biggan-pytorch", "--out", tmp_path / "p"]
    assert cli.main([str(a) for a in argv]) == 2
    runs.assert_one_error(capsys.readouterr(), f"no model with {key} {value}")


@pytest.mark.parametrize("change", [{"d_skip": "activated"}, {"deep_blocks": "studiogan"}])
def test_the_blocks_of_studiogan_are_not_the_peers(tmp_path, monkeypatch, change):
    c = default_config()
    c.model.update({"num_classes": 2} | change)
    monkeypatch.setattr(export, "load", lambda *_: export.Loaded(c, {}, 0))
    (key, value), *_ = change.items()
    with pytest.raises(UserError, match=f"no model with {key} {value}: export with"):
        export.to_biggan_pytorch(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("config", ["{", "[" * 9999, '{"model": 1, "model": 2}', "7", "NaN"])
def test_an_export_whose_config_is_damaged(tmp_path, capsys, config):
    from safetensors.numpy import save_file

    path = tmp_path / "all.safetensors"
    metadata = {"format": export.FORMAT, "config": config}
    save_file({"g/params/x": np.ones(2, np.float32)}, path, metadata=metadata)
    argv = ["import", "--format=biggan-jax", str(path), f"--out={tmp_path}/m"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), f"{path} holds no config that can be read")
    save_file({"x": np.ones(2, np.float32)}, path, metadata={"class_names": config})
    with pytest.raises(UserError, match="names of classes in .* cannot be read"):
        players.class_names(open_tensors(path))


def eight_bits(name):
    """A safetensors file of one tensor whose numbers have 8 bits, for which numpy has no type."""
    header = {name: {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    text = json.dumps(header | {"__metadata__": tensor_file.METADATA}).encode()
    return len(text).to_bytes(8, "little") + text + b"ab"


def test_numbers_that_are_not_read(tmp_path):
    """Tensors of 8 bits or of complex numbers are one line, wherever they are read."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(eight_bits("g_ema/params/x"))
    for read in (open_tensors(path).read, lambda name: tensor_file.load(path, "g_ema")):
        with pytest.raises(UserError, match="g_ema/params/x holds numbers .* to float32"):
            read("g_ema/params/x")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda torch, x: x.to_sparse(), "x is torch.sparse_coo, no plain tensor"),
        (lambda torch, x: x.to(torch.complex64), "x is torch.complex64, no plain tensor"),
        (lambda torch, x: x.to("meta"), "x is on meta, no plain tensor"),
    ],
)
def test_tensors_of_pytorch_that_are_not_plain(tmp_path, made, words):
    torch = pytest.importorskip("torch")
    torch.save({"x": made(torch, torch.ones(2)), "y": torch.ones(2)}, tmp_path / "G.pth")
    opened = open_tensors(tmp_path / "G.pth")
    assert opened.read("y").tolist() == [1, 1]
    with pytest.raises(UserError, match=f"G.pth: {words}.* float32"):
        opened.read("x")
