"""Generators as programs: the same images without this package, and a card that tells the truth."""

import json
import runpy
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from biggan_jax import cli, models
from biggan_jax.errors import UserError
from biggan_jax.interop import model_card, portable
from biggan_jax.sampling import load
from biggan_jax.sampling.generator import LoadedGenerator
from tests import runs

ALONE = """
import sys
import jax, numpy
assert "biggan_jax" not in sys.modules
with open(sys.argv[1], "rb") as file:
    generator = jax.export.deserialize(bytearray(file.read()))
given = numpy.load(sys.argv[2])
for n in (1, 5):
    images = generator.call(given["z"][:n], given["labels"][:n])
    assert numpy.abs(images - given["images"][:n]).max() < 1e-5
assert generator.platforms == ("cpu", "cuda", "tpu")
assert not any(name.startswith("biggan") for name in sys.modules)
"""


def given(generator, count=5):
    """(z, labels, images) of a generator."""
    z = generator.sample_z(3, count)
    labels = np.arange(count, dtype=np.int32) % generator.num_classes
    return z, labels, generator(z, labels)


@pytest.mark.parametrize("mode", ["running", pytest.param("standing", marks=pytest.mark.full)])
def test_folded_weights_make_the_same_images(trained, mode):
    generator = load.load_generator(trained, bn_mode=mode)
    z, labels, images = given(generator)
    made = portable.portable(generator)
    assert np.abs(jax.jit(made.function)(z, labels) - images).max() < 1e-5
    params = portable.folded(generator)["params"]
    kernel = params["rgb"]["kernel"].reshape(-1, params["rgb"]["kernel"].shape[-1])
    # Divided by an estimate of the largest singular value, which is never above it.
    assert 1 - 1e-5 <= np.linalg.svd(kernel)[1][0] < 1.5
    generator.set_bn_mode("batch")
    with pytest.raises(UserError, match="running or standing"):
        portable.portable(generator)


@pytest.mark.parametrize(
    "name",
    [
        "dcgan_cifar10",
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name in ("sagan128", "sngan_cifar10", "biggan_deep128")
        ),
    ],
)
def test_every_family_is_a_program(name):
    """Of random weights, and of any batch size."""
    config = runpy.run_path(str(runs.ROOT / "configs" / f"{name}.py"))["get_test_config"]()
    if config.model.num_classes is None:
        config.model.num_classes = 10
    module, _ = models.build(config.model)
    z, labels = np.zeros((2, config.model.dim_z), np.float32), np.zeros(2, np.int32)
    init = jax.jit(lambda key: module.init({"params": key}, z, labels, train=False))
    generator = LoadedGenerator(config, init(jax.random.key(0)))
    made = portable.portable(generator)
    (n,) = jax.export.symbolic_shape("N")
    shapes = ((n, generator.dim_z), np.float32), ((n,), np.int32)
    exported = jax.export.export(jax.jit(made.function), platforms=("cpu", "cuda", "tpu"))(
        *(jax.ShapeDtypeStruct(*shape) for shape in shapes)
    )
    z, labels, images = given(generator, 3)
    assert np.abs(np.asarray(exported.call(z, labels)) - images).max() < 1e-5


def test_a_stablehlo_file_runs_alone(trained, tmp_path, capsys):
    out = tmp_path / "exported"
    argv = [
        "export",
        "--from",
        trained,
        "--format",
        "stablehlo",
        "--out",
        out,
        "--truncation",
        "0.5",
    ]
    assert cli.main(["--json", *map(str, argv), "--license", "cc-by-4.0"]) == 0
    result = json.loads(capsys.readouterr().out)
    files = ["generator.stablehlo", "metadata.json", "model_card.md", "samples.png"]
    assert result["files"] == files == sorted(path.name for path in out.iterdir())
    metadata = json.loads((out / "metadata.json").read_text())
    generator = load.load_generator(trained)
    for name in ("dim_z", "num_classes", "resolution", "channels", "step"):
        assert metadata[name] == getattr(generator, name), name
    assert metadata["class_names"] == list(generator.class_names)
    assert metadata["truncation"] == 0.5 and metadata["bn_mode"] == "running"
    card = (out / "model_card.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "samples.png" in card
    assert "None yet" in card  # nothing was evaluated
    z, labels, images = given(generator)
    np.savez(tmp_path / "given.npz", z=z, labels=labels, images=images)
    program = [sys.executable, "-c", ALONE, str(out / "generator.stablehlo")]
    found = subprocess.run(
        [*program, str(tmp_path / "given.npz")], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    # What the card tells to do is done.
    code = card.split("```python\n")[1].split("```")[0]
    found = subprocess.run(
        [sys.executable, "-c", code + "\nassert images.shape[0] == 4"],
        capture_output=True,
        text=True,
        cwd=out,
    )
    assert found.returncode == 0, found.stderr


def test_an_onnx_file_in_onnx_runtime(trained, tmp_path, caplog):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    out.mkdir()
    (out / "generator.onnx").write_bytes(b"cut off, or of another program")
    assert cli.main(["export", f"--from={trained}", "--format=onnx", f"--out={out}"]) == 0
    assert not [record for record in caplog.records if record.name.startswith("jax2onnx")]
    session = runtime.InferenceSession(str(out / "generator.onnx"))
    generator = load.load_generator(trained)
    z, labels, images = given(generator)
    for n in (1, 5):
        (found,) = session.run(None, {"z": z[:n], "labels": labels[:n]})
        assert np.abs(found - images[:n]).max() < 1e-5
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["class_names"]) == list(generator.class_names)


def test_a_card_has_the_scores_of_its_step_alone(run_copy):
    generator = load.load_generator(run_copy)
    scores, protocol = {"fid": 12.5}, {"fingerprint": "abc", "step": generator.step, "samples": 500}
    protocol |= {"real": "digits", "real_count": 1797, "features": "classifier"}
    protocol |= {"truncation": None, "bn_mode": "running", "weights": "ema"}
    (run_copy / "report").mkdir(exist_ok=True)
    file = run_copy / "report" / "evaluation.json"
    file.write_text(json.dumps({"scores": scores, "protocol": protocol}))
    text = model_card.card(model_card.describe(generator, run_copy), "generator.onnx", "mit")
    assert "| fid | 12.5 |" in text and "protocol abc" in text and "onnxruntime" in text
    file.write_text(json.dumps({"scores": scores, "protocol": protocol | {"step": 999}}))
    assert model_card.describe(generator, run_copy)["scores"] is None
    file.write_text("{")
    assert model_card.describe(generator, run_copy)["scores"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format=stablehlo", "--out=a.bin"), "name a folder, or a file NAME.stablehlo"),
        (("--format=onnx", "--out=a.stablehlo"), "name a folder, or a file NAME.onnx"),
        (("--format=directory", "--out=a.onnx"), "name a folder"),
        (("--format=stablehlo", "--out=x", "--license=a: b"), "SPDX"),
        (("--format=stablehlo", "--out=x", "--truncation=-1"), "truncation"),
        (("--format=safetensors", "--out=a.safetensors", "--license=mit"), "leave it out"),
        (("--format=safetensors", "--out=a.safetensors", "--raw"), "leave it out"),
        (("--format=biggan-pytorch", "--out=x", "--bn-mode=running"), "leave it out"),
    ],
)
def test_what_is_refused(trained, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", f"--from={trained}", *options]) == 2
    runs.assert_one_error(capsys.readouterr(), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "safetensors"])
def test_a_place_that_cannot_be_written_is_named_at_once(trained, tmp_path, capsys, kind):
    (tmp_path / "a").write_text("a file")
    argv = [
        "export",
        f"--from={trained}",
        f"--format={kind}",
        f"--out={tmp_path / 'a' / 'b' / 'c'}",
    ]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "--out .* cannot be written", "name another folder")


@pytest.mark.full
def test_a_program_under_a_name_of_its_own(trained, tmp_path, capsys):
    """The files beside it carry its name, so that nothing else in the folder is written over."""
    out = tmp_path / "it's mine.stablehlo"
    for _ in range(2):  # a second export writes over the first
        assert cli.main(["export", f"--from={trained}", "--format=stablehlo", f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    beside = ("", ".metadata.json", ".model_card.md", ".samples.png")
    assert sorted(tmp_path.iterdir()) == [out.with_name(out.name + end) for end in beside]
    generator = load.load_generator(trained)
    z, labels, images = given(generator)
    made = jax.export.deserialize(bytearray(out.read_bytes())).call(z, labels)
    assert np.abs(made - images).max() < 1e-5
    card = out.with_name(out.name + ".model_card.md").read_text()
    assert "it%27s%20mine.stablehlo.samples.png" in card and f"open({out.name!r}" in card
    folder = tmp_path / "b.stablehlo"
    folder.mkdir()
    assert cli.main(["export", f"--from={trained}", "--format=stablehlo", f"--out={folder}"]) == 0
    assert (folder / "generator.stablehlo").is_file()


def test_a_missing_converter_is_named(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert (
        cli.main(["export", f"--from={trained}", "--format=onnx", f"--out={tmp_path / 'x'}"]) == 2
    )
    runs.assert_one_error(capsys.readouterr(), r"biggan_jax\[onnx\]", "--format stablehlo")
