"""`biggan import --format studiogan`: outputs, names, architectures, files that are refused.

`fixtures/studiogan.npz` was made by PyTorch-StudioGAN's own classes (commit 947b35e) in evaluation
mode: names and shapes of their state_dicts, and what they give for the weights and inputs of
`studiogan_weights.py`, every third pixel of the images.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from biggan_jax import cli, load_discriminator, load_generator, models
from biggan_jax.errors import UserError
from biggan_jax.interop import convert, layout
from biggan_jax.interop import studiogan_tensors as tensors
from biggan_jax.storage.weights import load_weights
from tests import pytorch_files as files
from tests import runs
from tests.interop import studiogan_weights
from tests.interop.test_infer import section
from tests.peer import nhwc

FORMAT = ("--format", "studiogan")
BACKBONES = {
    "big_resnet": {"name": "biggan", "width_table": "studiogan", "deep_blocks": "paper",
                   "g_attention": [16], "d_attention": [16], "dim_z": 16},
    "big_resnet_deep_legacy": {"name": "biggan_deep", "width_table": "studiogan_legacy",
                               "deep_blocks": "paper", "g_attention": [16], "d_attention": [16],
                               "dim_z": 10},
    "big_resnet_deep_studiogan": {"name": "biggan_deep", "width_table": "studiogan",
                                  "deep_blocks": "studiogan", "g_attention": [8],
                                  "d_attention": [8], "dim_z": 10},
}  # fmt: skip


def opened(backbone):
    """(the fixture's arrays, state_dict of G, of D)."""
    f = np.load(files.FIXTURES / "studiogan.npz")
    f = {key.removeprefix(f"{backbone}/"): f[key] for key in f if key.startswith(f"{backbone}/")}
    shapes = [json.loads(str(f[f"{player}/shapes"])) for player in "gd"]
    return f, *(studiogan_weights.weights(s, i) for i, s in enumerate(shapes, start=1))


def save(folder: Path, network: str, weights, copy="best", step=100, prefix="") -> Path:
    """A checkpoint as the peer's training writes it."""
    path = folder / f"model={network}-{copy}-weights-step={step}"
    return files.save(path, {prefix + key: value for key, value in weights.items()})


def fails(capsys, argv, *words):
    assert cli.main(["import", *FORMAT, *map(str, argv)]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def forward(loaded, index, *inputs):
    module = models.build(loaded.config.model)[index]
    return jax.jit(module.apply)(loaded._variables, *inputs)


@pytest.mark.parametrize(
    "backbone",
    [
        "big_resnet",
        pytest.param("big_resnet_deep_legacy", marks=pytest.mark.full),
        pytest.param("big_resnet_deep_studiogan", marks=pytest.mark.full),
    ],
)
def test_all_three(tmp_path, capsys, backbone):
    """G, its average with DataParallel's names, and D, from the folder of a training."""
    f, g, d = opened(backbone)
    save(tmp_path / "p", "G", g)
    save(tmp_path / "p", "G_ema", g, prefix="module.")
    save(tmp_path / "p", "D", d)
    result = files.imported(capsys, *FORMAT, tmp_path / "p", "--out", tmp_path / "m")
    assert [part["unused"] for part in result["networks"].values()] == [[], [], []]
    m = result["model"]
    expected = BACKBONES[backbone] | {"ch": 4, "resolution": 32, "num_classes": 5, "shared_dim": 6}
    expected |= {"bn_eps": 1e-4, "sn_eps": 1e-6, "sn_eval": "stored", "d_skip": "activated"}
    assert m | expected == m
    i = studiogan_weights.inputs(32, m["dim_z"], 5)
    y = i["y"].astype(np.int32)
    images = forward(load_generator(tmp_path / "m"), 0, i["z"], y)
    np.testing.assert_allclose(images[:, ::3, ::3], nhwc(f["images"]), atol=2e-5)
    logits = forward(load_discriminator(tmp_path / "m"), 1, nhwc(i["x"]), y)
    np.testing.assert_allclose(logits, f["logits"], rtol=2e-6, atol=2e-5)
    g, ema = (load_weights(tmp_path / "m", name) for name in ("g", "g_ema"))
    jax.tree.map(np.testing.assert_array_equal, g, ema)


def peer_shapes(m, player):
    target = convert.target(m, player)
    keys = tensors.keys_of(target, m, player)
    assert len(set(keys.values())) == len(keys)
    return {
        keys[p]: leaf.shape if p.startswith("spectral/") else layout.peer_shape(p, leaf.shape)
        for p, leaf in target.items()
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_names_are_the_peers(backbone):
    """Every key and shape of its state_dicts, but for the counters."""
    f, _, _ = opened(backbone)
    m = section(resolution=32, ch=4, num_classes=5, shared_dim=6, sn_eval="stored")
    m.update({k: tuple(v) if type(v) is list else v for k, v in BACKBONES[backbone].items()})
    for player in "gd":
        theirs = {k: tuple(s) for k, s in json.loads(str(f[f"{player}/shapes"])).items()}
        ours = {k: s or (1,) for k, s in peer_shapes(m, player).items()}  # attention's sigma
        assert ours == {k: s for k, s in theirs.items() if not k.endswith("tracked")}


DEEP = {"name": "biggan_deep", "dim_z": 9, "width_table": "studiogan_legacy"}
STUDIO = DEEP | {"width_table": "studiogan", "deep_blocks": "studiogan"}


SHAPES = [
    {"resolution": 32, "dim_z": 40, "d_attention": (8,), "ch": 6},
    {"resolution": 64, "dim_z": 40, "g_attention": (16, 64), "d_attention": (4, 16)},
    {"resolution": 64, "dim_z": 20, "num_classes": 1},
    {"resolution": 128, "dim_z": 12, "g_spectral_norm": False, "d_attention": (64,)},
    {"resolution": 256, "dim_z": 70, "g_attention": (64, 128)},
    DEEP | {"resolution": 64, "g_attention": (32,), "d_spectral_norm": False},
    DEEP | {"resolution": 512, "d_attention": (256,)},
    STUDIO | {"resolution": 32, "ch": 4, "d_attention": (16, 8)},
    STUDIO | {"resolution": 128, "g_attention": (8, 64), "d_attention": (64,)},
]


@pytest.mark.parametrize(
    "changes",
    [pytest.param(c, marks=[pytest.mark.full] * (c["resolution"] > 64)) for c in SHAPES],
    ids=lambda c: f"{c.get('deep_blocks', c.get('name', 'biggan'))}{c['resolution']}",
)
def test_the_architecture_is_read_off_the_shapes(changes):
    m = section(**{"ch": 8, "width_table": "studiogan", "sn_eval": "stored"} | changes)
    both = ("name", "resolution", "ch", "channels", "num_classes", "width_table", "deep_blocks")
    found = tensors.generator(peer_shapes(m, "g"), "G")
    keys = (*both, "dim_z", "g_attention", *(("shared_dim",) if m.num_classes > 1 else ()))
    assert {k: found[k] for k in keys} == {k: m[k] for k in keys}
    found = tensors.discriminator(peer_shapes(m, "d"), "D")
    expected = {k: m[k] for k in both} | {"d_attention": tuple(sorted(m.d_attention))}
    assert {k: found[k] for k in expected} == expected


def with_attention(shapes, at):
    """The shapes with attention between two blocks."""

    def moved(key):
        head, _, rest = key.removeprefix("blocks.").partition(".")
        return f"blocks.{int(head) + 1}.{rest}" if key[:6] == "blocks" and int(head) >= at else key

    more = {f"blocks.{at}.0.conv1x1_theta.weight_orig": (1, 8, 1, 1)}
    return {moved(key): shape for key, shape in shapes.items()} | more


@pytest.mark.parametrize(
    ("player", "change", "words"),
    [
        ("g", {"info_mix_linear.weight_orig": (16, 20)}, "info_mix_linear.* InfoGAN's codes"),
        ("g", {"shared.weight": (1, 12)}, "one class with an embedding of its own"),
        ("g", {"blocks.0.0.bn1.gain.weight_orig": (32, 7)}, "batch norms see 7 numbers"),
        ("g", {"blocks.1.0.conv2d2.weight_orig": (9, 32, 3, 3)}, "32, 32, 9, 32 channels fit no"),
        ("d", {"linear2.weight_orig": (7, 16)}, "judges classes by AC, 2C or D2DCE"),
        ("d", {"linear_mi.weight_orig": (7, 16)}, "judges classes by TAC"),
        ("d", {"linear1.weight_orig": (8, 16)}, "judges classes by MH or MD"),
        ("d", {"blocks.1.0.bn1.weight": (16,)}, "batch norm of a D without spectral norm"),
    ],
)  # fmt: skip
def test_what_is_no_network_of_ours(player, change, words):
    m = section(resolution=32, dim_z=16, ch=8, width_table="studiogan")
    read = {"g": tensors.generator, "d": tensors.discriminator}[player]
    shapes = peer_shapes(m, player)
    read(shapes, "F")
    with pytest.raises(UserError, match=f"(?s)^(?!.*\n).*{words}"):
        read(shapes | change, "F")


def test_places_of_attention_and_depths_that_are_none_of_ours():
    m = section(resolution=32, dim_z=16, ch=8, width_table="studiogan")
    d = peer_shapes(m, "d")
    assert tensors.discriminator(with_attention(d, 2), "D")["d_attention"] == (8,)
    for at in (0, 3, 4):  # before the first block, and after the second and third of 8 pixels
        with pytest.raises(UserError, match=rf"blocks.{at} puts attention where"):
            tensors.discriminator(with_attention(d, at), "D")
    g = peer_shapes(section(resolution=32, **DEEP, ch=8), "g")
    with pytest.raises(UserError, match="after the first block|puts attention"):
        tensors.generator(with_attention(g, 1), "G")
    with pytest.raises(UserError, match="7 residual blocks; a stage of BigGAN-deep is 2"):
        more = {k.replace("blocks.5", "blocks.6"): s for k, s in g.items()}
        tensors.generator(g | more, "G")


def test_choice_within_a_folder(tmp_path, capsys):
    _, g, _ = opened("big_resnet")
    for copy, step in (("current", 300), ("best", 90), ("best", 200)):
        save(tmp_path / "p", "G", g, copy, step)

    def chosen(*more):
        result = files.imported(capsys, *FORMAT, tmp_path / "p", *more, "--out", tmp_path / "m")
        return Path(result["networks"]["g"]["file"]).stem

    assert chosen() == "model=G-best-weights-step=200"
    assert chosen("--suffix", "current") == "model=G-current-weights-step=300"
    argv = [tmp_path / "p", "--out", tmp_path / "m", "--suffix", "last"]
    fails(capsys, argv, "no set 'last'; set --suffix to .*best")
    (tmp_path / "empty").mkdir()
    fails(capsys, [tmp_path / "empty", *argv[1:3]], "holds no model=G-.*name the files")


def test_bad_files(tmp_path, capsys):
    _, g, d = opened("big_resnet")
    out = ["--out", tmp_path / "m"]
    foreign = files.save(tmp_path / "G", files.open_fixture("f01_biggan32_D")[1])
    fails(capsys, [foreign, *out], "neither G nor D of PyTorch-StudioGAN: its tensors are")
    mine = save(tmp_path, "G", g)
    assert cli.main(["import", "--format", "biggan-pytorch", *map(str, [mine, *out])]) == 2
    runs.assert_one_error(capsys.readouterr(), "neither G nor D of BigGAN-PyTorch")
    less = {k: v for k, v in d.items() if k != "blocks.2.0.conv2d1.weight_u"}
    fails(capsys, [save(tmp_path, "D", less), *out], "missing: blocks.2.0.conv2d1.weight_u")
    less = {k: v for k, v in g.items() if k != "blocks.0.0.bn1.gain.weight_orig"}
    words = "tensor blocks.0.0.bn1.gain.weight is missing; this is no whole state_dict of PyTorch-S"
    fails(capsys, [save(tmp_path, "G", less), *out], words)
    mine.write_bytes(mine.read_bytes()[:900])
    fails(capsys, [mine, *out], "or is truncated")
    assert not (tmp_path / "m").exists()


def test_what_stands_beside_the_state_dict(tmp_path, capsys):
    """An optimizer, and a score that numpy made."""
    torch = pytest.importorskip("torch")
    _, _, d = opened("big_resnet")
    state = {key: torch.from_numpy(value) for key, value in d.items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    path = tmp_path / "model=D-current-weights-step=7.pth"
    content = {"state_dict": state, "optimizer": optimizer, "best_fid": np.float64(3.5)}
    torch.save(content | {"aa_p": torch.tensor(0.1), "lecam_emas": {"decay": 0.9}}, path)
    result = files.imported(capsys, *FORMAT, path, "--out", tmp_path / "m")
    assert result["networks"]["d"]["unused"] == []
