"""Models that are handed on: hf:// addresses at a hub of this machine, and model directories."""

import json
import pickle
import shutil
import socket
import sys

import jax
import numpy as np
import pytest

from biggan_jax import cli, load_discriminator, load_generator
from biggan_jax.errors import UserError
from biggan_jax.storage import hub, published, tensor_file
from biggan_jax.storage.digest import named_leaves
from tests import hub_server, runs

ADDRESS = "hf://some-user/digits.v2"
REPO = "some-user/digits.v2"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub where huggingface_hub asks, its cache empty."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with hub_server.running() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        yield running


@pytest.fixture(scope="module")
def handed_on(trained, tmp_path_factory):
    """The files of `export --format directory` of the tiny run."""
    out = tmp_path_factory.mktemp("handed_on") / "model"
    assert cli.main(["export", f"--from={trained}", "--format=directory", f"--out={out}"]) == 0
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_equal(a, b):
    """Two loaded networks have the same weights, to the bit."""
    jax.tree.map(np.testing.assert_array_equal, a._variables, b._variables)


def fails(capsys, argv, *words):
    capsys.readouterr()
    assert cli.main([str(a) for a in argv]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def sample(tmp_path, source=ADDRESS):
    return ["sample", "--from", source, "--per-class", 1, "--out", tmp_path / "a.png"]


def test_pushed_and_loaded(server, trained, tmp_path, capsys):
    argv = ["export", f"--from={trained}", f"--push={ADDRESS}", "--license=mit", "--json"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert result["pushed"] == ADDRESS and result["url"].startswith(server.endpoint)
    files = server.repo(REPO)
    assert set(files) == {"config.json", "model.safetensors", "README.md", "samples.png"}
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: mit\n") and f"load_generator('{ADDRESS}')" in card

    assert_equal(*(load_generator(x) for x in (trained, ADDRESS)))
    assert_equal(*(load_generator(x, ema=False) for x in (trained, ADDRESS)))
    assert_equal(*(load_discriminator(x) for x in (trained, ADDRESS)))

    # What the hub has given once is read without it.
    server.status = 500
    assert cli.main([str(a) for a in sample(tmp_path)]) == 0
    folder = published.local(ADDRESS)
    server.status = 401  # taken back
    fails(capsys, sample(tmp_path), "answered 401")
    assert published.is_published(folder) and published.name(folder) == "some-user_digits.v2"


@pytest.mark.full
def test_another_revision(server, handed_on, capsys, tmp_path):
    server.files[REPO] = {"main": {}, "v1": contents(handed_on)}
    argv = ["inspect", "--from", f"{ADDRESS}@v1", "--json"]
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["generator"]["parameters"] > 0
    fails(capsys, sample(tmp_path), "holds no config.json")
    fails(capsys, sample(tmp_path, f"{ADDRESS}@v2"), "no branch, tag or commit v2")
    assert cli.main(["export", f"--from={handed_on}", f"--push={ADDRESS}@v3", "--float16"]) == 0
    half = server.files[REPO]["v3"]["model.safetensors"]
    assert len(half) < 0.6 * len(server.files[REPO]["v1"]["model.safetensors"])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "answered 401.*hf auth login.*HF_TOKEN"),
        pytest.param(403, "answered 403.*may not", marks=pytest.mark.full),
        pytest.param(404, "answered 404.*no such repository", marks=pytest.mark.full),
        (500, "answered 500.*try again"),
        pytest.param(302, "answer cannot be read.*HF_ENDPOINT", marks=pytest.mark.full),
    ],
)
def test_a_hub_that_refuses(server, handed_on, capsys, tmp_path, status, words):
    server.status = status
    fails(capsys, sample(tmp_path), ADDRESS, words)
    fails(capsys, ["export", "--from", handed_on, "--push", ADDRESS], ADDRESS, words)
    with pytest.raises(UserError, match=words):
        load_generator(ADDRESS)


def test_a_hub_that_is_not_there(server, handed_on, capsys, tmp_path, monkeypatch):
    fails(capsys, sample(tmp_path), "answered 404")  # it is there, without the repository
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{runs.free_port()}")
    fails(capsys, sample(tmp_path), ADDRESS, "cannot be reached", "127.0.0.1")
    fails(capsys, ["export", "--from", handed_on, "--push", ADDRESS], "cannot be reached")


def test_a_hub_that_does_not_answer(server, handed_on, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        fails(capsys, sample(tmp_path), "cannot be reached")
        fails(capsys, ["export", "--from", handed_on, "--push", ADDRESS], "cannot be reached")


def test_a_hub_that_sends_in_circles(server, capsys, tmp_path, monkeypatch):
    def again(handler):
        handler.answer(b"", 302, {"Location": handler.path})

    monkeypatch.setattr(hub_server._Handler, "do_GET", again)
    fails(capsys, sample(tmp_path), "answer cannot be read .*redirects.*: is HF_ENDPOINT right")


def test_a_truncated_file(server, handed_on, capsys, tmp_path, monkeypatch):
    server.files[REPO] = {"main": contents(handed_on)}
    server.truncated = 100
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its attempts
    fails(capsys, sample(tmp_path), ADDRESS, "truncated", "try again")
    server.truncated = None
    assert cli.main([str(a) for a in sample(tmp_path)]) == 0


def test_what_a_repository_may_hold_instead(server, handed_on, capsys, tmp_path):
    files = contents(handed_on)
    config = {"config.json": files["config.json"]}
    code = pickle.dumps({"g": 1})
    bin = {"pytorch_model.bin": code}
    cut = {"model.safetensors": files["model.safetensors"][:-9]}
    cases = {
        "a": (bin, "holds no config.json"),
        "b": (config | bin, "pytorch_model.bin: a pickle can run code"),
        "c": (config | {"other.safetensors": b"x"}, "no model.safetensors but other.safetensors"),
        "d": (config | {"model.safetensors": code}, "is a pickle under the name"),
        "e": (config | cut, "or is truncated.*push it again, .*delete .*models--u--e and try"),
        "g": (files | {"config.json": b'{"a'}, "cannot be read.*push it.*delete .*u--g"),
        "f": ({"config.json": b'{"architectures": ["X"]}'} | cut, "config.json"),
    }
    for name, (held, words) in cases.items():
        server.files[f"u/{name}"] = {"main": held}
        fails(capsys, sample(tmp_path, f"hf://u/{name}"), words)
        assert not any("pytorch_model" in path for path in server.asked)  # it is not even fetched
    server.files["u/e"] = {"main": files}
    shutil.rmtree(tmp_path / "hf" / "models--u--e")
    assert cli.main([str(a) for a in sample(tmp_path, "hf://u/e")]) == 0


def test_addresses(capsys, tmp_path, monkeypatch):
    assert hub.parse("hf://u/r@v1.0") == ("u/r", "v1.0") and hub.parse("hf://u/r/") == ("u/r", None)
    for wrong in ("hf://", "hf://u", "hf://u/r/x", "hf://u/r@", "hf://u/../r", "hf://u/r r"):
        with pytest.raises(UserError, match="is no model of the hub: write hf://USER/REPO"):
            hub.parse(wrong)
    fails(capsys, sample(tmp_path, "hf://digits"), "write hf://USER/REPO")
    fails(capsys, ["export", "--from=digits-demo", "--push=user/repo"], "write hf://USER/REPO")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    fails(capsys, sample(tmp_path), r"pip install 'biggan_jax\[hub\]'")
    fails(capsys, ["export", "--from=digits-demo", f"--push={ADDRESS}"], r"pip install .*\[hub\]")


def test_a_model_directory_of_one_file(handed_on, trained, tmp_path, capsys):
    """It is one for every command; what other loaders ask of its metadata is there."""
    import safetensors

    with safetensors.safe_open(handed_on / "model.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt" and json.loads(metadata["step"]) == 4
    assert {path.name for path in handed_on.iterdir()} == {
        *("config.json", "model.safetensors", "model_card.md", "samples.png")
    }
    fails(capsys, ["train", f"--workdir={handed_on}", *runs.TINY], "is a model directory")
    # Imported, it is what a directory of our own layout holds.
    out = tmp_path / "ours"
    argv = ["import", "--format=biggan-jax", handed_on / "model.safetensors", f"--out={out}"]
    assert cli.main([str(a) for a in argv]) == 0
    assert_equal(*(load_generator(x) for x in (out, handed_on)))
    # In a workdir, where somebody has exported into it, checkpoints count.
    assert tensor_file.path_in(trained) is None


@pytest.mark.full
def test_training_starts_from_a_model_of_the_hub(server, handed_on, tmp_path, capsys):
    server.files[REPO] = {"v1": contents(handed_on)}
    assert runs.train(tmp_path / "run", f"--config.init_from={ADDRESS}@v1") == 0
    err = capsys.readouterr().err
    assert f"starting from {ADDRESS}@v1" in err and "starts anew" not in err


def test_damaged_model_directories(handed_on, tmp_path, capsys):
    copy = shutil.copytree(handed_on, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["model"]["ch"] = 8
    (copy / "config.json").write_text(json.dumps(config))
    fails(
        capsys,
        sample(tmp_path, copy),
        r"does not fit config.json: .*mean is \(16,\) there and \(32,\)",
    )
    shutil.copy(handed_on / "config.json", copy)
    arrays = tensor_file.load(copy / "model.safetensors", "g_ema")
    leaves = {f"params/{i}": x for i, x in enumerate(jax.tree.leaves(arrays))}
    leaves["params/0"] = np.full((2,), np.nan, np.float32)
    (copy / "model.safetensors").write_bytes(tensor_file.encode({"g_ema": leaves}, {}))
    fails(capsys, sample(tmp_path, copy), "NaN or infinity in g_ema/params/0")
    whole = {name: np.zeros(x.shape, np.int32) for name, x in leaves.items()}
    (copy / "model.safetensors").write_bytes(tensor_file.encode({"g_ema": whole}, {}))
    fails(capsys, sample(tmp_path, copy), "holds int32, no floating-point numbers, in g_ema/params")
    (copy / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 768}))
    words = r"no config of a biggan_jax model \(its keys are model_type, hidden_size\): give a"
    fails(capsys, sample(tmp_path, copy), words)
    config["model"]["chh"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    fails(capsys, sample(tmp_path, copy), "'model.chh'.*take the version that wrote it, or put a")
    with pytest.raises(UserError, match="g/x is too large for float16"):
        tensor_file.encode({"g": {"x": np.float32([1e9])}}, {}, half=True)


@pytest.mark.full
def test_what_is_damaged_is_not_handed_on(handed_on, tmp_path, capsys):
    """Exports of weights that do not fit their config; the model of another is not replaced."""
    copy = shutil.copytree(handed_on, tmp_path / "copy")
    arrays = dict(named_leaves(tensor_file.load(copy / "model.safetensors", "g_ema")))
    del arrays["params/rgb/bias"]
    (copy / "model.safetensors").write_bytes(tensor_file.encode({"g_ema": arrays}, {}))
    command = ["export", "--from", copy, "--out"]
    for argv in (["a.safetensors"], ["a", "--format=directory"], ["a", "--format=biggan-pytorch"]):
        fails(capsys, [*command, tmp_path / argv[0], *argv[1:]], "params/rgb/bias is missing there")
    assert not list(tmp_path.glob("a*"))
    for config in ({"model_type": "bert"}, {"model": {"ch": 3}}):
        (copy / "config.json").write_text(json.dumps(config))
        before = contents(copy)
        fails(
            capsys,
            ["export", "--from", handed_on, "--format=directory", "--out", copy],
            "copy holds another model; choose another directory",
        )
        assert contents(copy) == before
    again = ["export", "--from", handed_on, "--format=directory", "--out", tmp_path / "new"]
    assert [cli.main(list(map(str, again))) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("made.onnx", "made.onnx is not read back: give the directory that it was exported from"),
        ("folder", "holds no config.json; generator.stablehlo is not read back"),
        ("all.safetensors", "biggan import --format biggan-jax .*all.safetensors --out DIR"),
    ],
)
def test_exports_are_no_model_directories(tmp_path, capsys, name, words):
    (tmp_path / "folder").mkdir()
    for file in ("made.onnx", "folder/generator.stablehlo", "all.safetensors"):
        (tmp_path / file).write_bytes(b"")
    fails(capsys, sample(tmp_path, tmp_path / name), words)


def test_digits_demo(tmp_path, monkeypatch, capsys):
    """The model that comes with the package draws digits that are recognised as their class."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    folder = published.local(published.DEMO)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    monkeypatch.chdir(tmp_path)
    generator = load_generator("digits-demo")
    assert generator.class_names == tuple("0123456789")
    labels = np.arange(200, dtype=np.int32) % 10
    images = np.asarray(generator(generator.sample_z(0, 200), labels))
    small = images.reshape(200, 8, 2, 8, 2).mean((2, 4)).reshape(200, 64)
    digits = load_digits()
    svm = SVC(gamma=0.02).fit(digits.data / 8 - 1, digits.target)
    assert np.mean(svm.predict(small) == labels) > 0.9
    assert cli.main(["sample", "--from=digits-demo", "--per-class=1", "--out=a.png"]) == 0
    # A folder of this name is meant where there is one.
    (tmp_path / "digits-demo").mkdir()
    fails(capsys, ["sample", "--from=digits-demo", "--out=a.png"], "holds no config.json")
    # Nothing is written into the package.
    assert published.is_published(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("folder:/home/me/faces", "folder:faces"),
        ("folder:/home/me/faces/:train", "folder:faces:train"),
        ("records:gs://secret-bucket/a/faces64", "records:faces64"),
        ("zip:~/a.zip,../b/c.zip", "zip:a.zip,c.zip"),
        ("gs://bucket", "bucket"),
        ("hf://me/model@main", "hf://me/model@main"),
        ("digits", "digits"),
        ("fashion_mnist:test", "fashion_mnist:test"),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_places_are_not_handed_on(value, told):
    config = {"data": {"source": value, "list": [value]}, "model": {"class_names": ["/a/b"]}}
    assert published.without_places(config) == {
        "data": {"source": told, "list": [told]}, "model": {"class_names": ["/a/b"]}
    }  # fmt: skip
