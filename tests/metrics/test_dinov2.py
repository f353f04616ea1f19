"""DINOv2 against its authors' code and transformers on given weights, and its import."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from biggan_jax import cli, data
from biggan_jax.errors import UserError
from biggan_jax.evaluation import evaluate, inputs
from biggan_jax.metrics import dinov2
from biggan_jax.metrics.dinov2 import DINOv2
from tests import runs

# `images`, uint8 [2, 20, 31, 3]; `offset`, class tokens [2, 128] of facebookresearch's
# DinoVisionTransformer (dinov2/models/vision_transformer.py, as its hub makes it), and `size`,
# those of transformers' Dinov2Model; both of the weights of `recipe`, after the preprocessing of
# dgm-eval.
FIXTURE = runs.ROOT / "tests" / "fixtures" / "dinov2.npz"
WIDTH, DEPTH, GRID = 128, 2, 37
# transformers' names by facebookresearch's.
RENAMED = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "blocks.": "encoder.layer.",
}


def recipe():
    """The weights of the fixture, by facebookresearch's names."""
    w = WIDTH
    shapes = {"cls_token": (1, 1, w), "mask_token": (1, w), "pos_embed": (1, 1 + GRID**2, w)}
    shapes |= {"patch_embed.proj.weight": (w, 3, 14, 14), "patch_embed.proj.bias": (w,)}
    shapes |= {"norm.weight": (w,), "norm.bias": (w,)}
    layers = {"attn.qkv": (3 * w, w), "attn.proj": (w, w), "mlp.fc1": (4 * w, w)}
    layers |= {"mlp.fc2": (w, 4 * w)}
    for i in range(DEPTH):
        for name, shape in layers.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
        names = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma")
        shapes |= {f"blocks.{i}.{name}": (w,) for name in (*names, "ls2.gamma")}
    out = {}
    for i, key in enumerate(sorted(shapes)):
        x = np.random.default_rng(i).standard_normal(shapes[key], dtype=np.float32)
        if "norm" in key and key.endswith("weight"):
            x = 1 + 0.2 * x
        elif x.ndim == 1 or "token" in key:
            x = (0.5 if "gamma" in key else 0.2) * x
        elif key != "pos_embed":
            x = x * np.float32(2 / np.sqrt(np.prod(x.shape[1:])))
        out[key] = x.astype(np.float32)
    return out


def renamed(tensors):
    """The same weights by transformers' names."""
    out = {}
    for key, value in tensors.items():
        for old, new in RENAMED.items():
            key = key.replace(old, new)
        key = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        names = [key.replace("attn.qkv", f"attention.attention.{n}") for n in QKV]
        parts = np.split(value, 3) if "attn.qkv" in key else [value]
        out |= {n: np.ascontiguousarray(p) for n, p in zip(names, parts, strict=False)}
    return out


QKV = ("query", "key", "value")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{rule: a file of the recipe in the layout of which that rule is}."""
    folder = tmp_path_factory.mktemp("dinov2")
    tensors = recipe()
    made = {"offset": tensors, "size": renamed(tensors)}
    for rule, layout in made.items():
        save_file(layout, folder / f"{rule}.safetensors")
    return {rule: folder / f"{rule}.safetensors" for rule in made}


def imported(file, out, capsys):
    code = cli.main(["--json", "import", "--format=dinov2", str(file), f"--out={out}"])
    return code, capsys.readouterr()


@pytest.mark.full
def test_a_run_and_doctor_take_these_features(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BIGGAN_DINOV2", str(tmp_path / "net"))
    argv = ["--config.eval_every_steps=2", "--config.eval_features=dinov2"]
    few = f"--config.eval_samples={WIDTH}"
    doctor = ["--json", "doctor", *runs.TINY, *argv, few]
    problems = lambda: [p["what"] for p in json.loads(capsys.readouterr().out)["problems"]]
    assert cli.main(doctor) == 2 and "no DINOv2 weights" in problems()[0]
    assert imported(files["size"], tmp_path / "net", capsys)[0] == 0
    assert cli.main(doctor) == 2 and f"{WIDTH} dimensions of dinov2" in problems()[0]
    config = runs.tiny_config(*argv, f"--config.eval_samples={WIDTH + 1}")
    source = data.open_source("digits", resolution=16, channels=1)
    scores = evaluate.during_training(config, source, source.digest(), tmp_path)
    assert callable(scores)


def test_features_are_those_of_the_published_codes(files, tmp_path, capsys):
    peer = np.load(FIXTURE)
    found = {}
    for rule, file in files.items():
        code, captured = imported(file, tmp_path / rule, capsys)
        result = json.loads(captured.out)
        assert code == 0 and result["parameters"] == sum(x.size for x in recipe().values()) - WIDTH
        net = DINOv2.load(tmp_path / rule, batch_size=2, devices=jax.devices()[:1])
        assert net.feature_dim == WIDTH and net.digest == result["digest"]
        found[rule] = net
        features = net(peer["images"])["features"]
        np.testing.assert_allclose(features, peer[rule], atol=1e-4)
        assert features.dtype == np.float32
    # The two codes place positions otherwise, which the protocol tells; the weights are the same.
    assert np.abs(peer["size"] - peer["offset"]).max() > 0.1
    assert found["size"].digest == found["offset"].digest
    assert found["size"].resize != found["offset"].resize

    # Grey images count as RGB; `score` finds the weights by the option.
    grey = peer["images"][:, :20, :20, :1]
    features = [found["size"](x)["features"] for x in (grey, grey.repeat(3, axis=-1))]
    np.testing.assert_array_equal(*features)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (2, 8, 8, 3), np.uint8))
    argv = ["--json", "score", *[str(tmp_path / "a.npz")] * 2, f"--cache={tmp_path / 'cache'}"]
    assert cli.main([*argv, f"--dinov2={tmp_path / 'size'}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"]["features"] == "dinov2" and "is_mean" in result["absent"]
    assert result["protocol"]["features_digest"] == found["size"].digest
    assert abs(result["scores"]["fid"]) < 1e-3


@pytest.mark.parametrize("size", [(6, 6), (300, 231), (224, 224)])
def test_images_are_resized_by_pillow(size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    got = dinov2.resized(images)
    for image, found in zip(images, got, strict=True):
        want = Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found, np.asarray(want))
    np.testing.assert_array_equal(dinov2.resized(images[..., :1])[..., 2], got[..., 0])


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ("offset", {"blocks.1.mlp.fc1.bias": None}, r"no tensor blocks\.1\.mlp\.fc1\.bias"),
        ("size", {"encoder.layer.0.attention.attention.key.bias": None}, "attention.key.bias"),
        ("size", {"layernorm.bias": np.zeros(3, np.float32)}, r"layernorm.bias is \[3\].*\[128\]"),
        ("offset", {"norm.bias": np.full(WIDTH, np.nan, np.float32)}, "norm.bias.*NaN"),
        ("offset", {"register_tokens": np.zeros((1, 4, WIDTH), np.float32)}, "registers"),
        ("size", {"embeddings.register_tokens": np.zeros((1, 4, WIDTH), np.float32)}, "registers"),
        ("offset", {"blocks.0.mlp.w12.weight": np.zeros((2, 2), np.float32)}, "ViT-g/14"),
        ("offset", {"head.weight": np.zeros((2, 2), np.float32)}, "head.weight, DINOv2 has not"),
        ("size", {"embeddings.cls_token": None}, "no tensor embeddings.cls_token"),
        ("offset", {"pos_embed": np.zeros((1, 8, WIDTH), np.float32)}, r"\[1, 8, 128\]"),
    ],
)
def test_another_network_is_refused(files, tmp_path, capsys, rule, change, words):
    tensors = load_file(files[rule]) | change
    save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "x.safetensors")
    code, captured = imported(tmp_path / "x.safetensors", tmp_path / "out", capsys)
    assert code == 2 and not (tmp_path / "out" / dinov2.FILE).exists()
    runs.assert_one_error(captured, words)


def test_weights_that_are_missing_or_of_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BIGGAN_DINOV2", str(tmp_path))
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8, 3), np.uint8))
    score = ["score", *[str(tmp_path / "a.npz")] * 2, f"--cache={tmp_path / 'cache'}"]
    for options, words in (
        (["--features=dinov2"], f"no DINOv2 weights in {tmp_path}.*--format dinov2 FILE --out"),
        (["--dinov2=none"], "no DINOv2 weights in none"),
        (["--dinov2=a", "--inception=b"], "name one"),
        (["--dinov2=a", "--features=classifier"], "leave one of the two out"),
        (["--features=dinov2", "--resize=clean"], "leave --resize out"),
    ):
        assert cli.main([*score, *options]) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    (tmp_path / dinov2.FILE).write_bytes(b"PK")
    with pytest.raises(UserError, match="import the weights again"):
        DINOv2.load(tmp_path)
    assert inputs.dinov2_directory(None) == tmp_path


def test_the_folder_of_a_published_file(files, tmp_path, capsys):
    code, captured = imported(tmp_path, tmp_path / "out", capsys)
    assert code == 2
    runs.assert_one_error(captured, "holds no file named model.safetensors or")
    (tmp_path / "model.safetensors").write_bytes(files["size"].read_bytes())
    code, captured = imported(tmp_path, tmp_path / "out", capsys)
    assert code == 0 and json.loads(captured.out)["positions"] == "size"
    (tmp_path / "dinov2_vitb14_pretrain.pth").touch()
    code, captured = imported(tmp_path, tmp_path / "out", capsys)
    assert code == 2
    runs.assert_one_error(captured, "holds 2 files named .*: name the file")
