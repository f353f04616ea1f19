"""`biggan look`: every kind on a run, on models of other kinds, and with bad input."""

import importlib.util
import json
import re
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, data
from biggan_jax.cli.look import KINDS as KINDS_OF_LOOK
from biggan_jax.models import latents as model_latents
from biggan_jax.pictures import grids, sheet, text
from biggan_jax.sampling import load, run_grid
from biggan_jax.sampling.look import directions
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import networks
from biggan_jax.storage.weights import save_weights
from tests import runs

NAMES = ["猫" * 5, "قطة سوداء", "кошка", "\U0001f431 cat", "x" * 40, "a b", "c", "d", "e", "f"]


def look(kind, source, out, *options):
    """`biggan look` with --json: (exit code, printed)."""
    return cli.main(["look", kind, f"--from={source}", f"--out={out}", *options, "--json"])


def shown(capsys) -> dict:
    captured = capsys.readouterr()
    return json.loads(captured.out)


def pages(monkeypatch) -> list[sheet.Sheet]:
    """The sheets that are drawn from now on."""
    drawn = []

    def draw(page, size):
        drawn.append(page)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(sheet, "draw", draw)
    return drawn


def saved_model(folder, *overrides, classes=10, names=(), weights="g_ema"):
    """A model directory with untrained weights, of one network alone."""
    config = runs.tiny_config(f"--config.model.num_classes={classes}", *overrides)
    rng = np.random.default_rng(0)
    shapes = networks.shapes(config.model, "g")
    draw = lambda x: np.abs(rng.normal(0, 0.3, x.shape)).astype(x.dtype)  # variances among them
    variables = jax.tree.map(draw, shapes)
    variables["params"] = jax.tree.map(lambda x: x - x.mean(), variables["params"])
    save_weights(folder, weights, variables)
    text = json.dumps({"model": config.model.to_dict(), "class_names": list(names)})
    (folder / "config.json").write_text(text)
    return folder


def test_grid_has_a_class_a_row(trained, tmp_path, capsys):
    out = tmp_path / "g.png"
    assert look("grid", trained, out, "--classes=3,1", "--count=2", "--width=300", "--dpi=90") == 0
    result = shown(capsys)
    assert result["kind"] == "grid" and result["out"] == str(out) and result["seconds"] > 0
    assert result["step"] == 4 and result["count"] == 4
    assert [c["class"] for c in result["classes"]] == [3, 1]
    g = load.load_generator(trained)
    images = grids.to_uint8(g(g.sample_z(0, 4), np.array([3, 3, 1, 1])))
    with Image.open(out) as picture:
        assert picture.width == 300 and round(picture.info["dpi"][0]) == 90
        pixels = np.asarray(picture.convert("L")).astype(int)
    page = sheet.Sheet(images.reshape(2, 2, 16, 16, 1), ["3", "1"])
    plan = sheet._plan(page, sheet.Size(90, 300))
    want = np.asarray(sheet.enlarged(images[3], plan.side).convert("L")).astype(int)
    y, x = pixels.shape[0] - plan.gap - plan.side, 300 - plan.gap - plan.side
    np.testing.assert_array_equal(pixels[y : y + plan.side, x : x + plan.side], want)
    assert look("grid", trained, out, "--classes=3,1", "--count=2", "--same-z") == 0


def test_truncation_keeps_one_z_a_row(trained, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        sheet, "draw", lambda page, size: drawn.append(page) or Image.new("L", (9,) * 2)
    )
    out = tmp_path / "t.png"
    assert look("truncation", trained, out, "--thresholds=1,0.5", "--classes=2,7") == 0
    assert shown(capsys)["thresholds"] == [0.5, 1.0, None]
    g = load.load_generator(trained)
    labels = np.array([2, 7])
    for column, level in enumerate((0.5, 1.0, None)):
        want = g(g.sample_z(0, 2, level), labels)
        np.testing.assert_allclose(drawn[0].rows[:, column], want, atol=1e-5)
    assert drawn[0].columns == ["0.5", "1", "none"] and drawn[0].row_labels == ["2", "7"]


@pytest.mark.parametrize(
    "what", [*(pytest.param(x, marks=pytest.mark.full) for x in ("z", "class")), "both"]
)
def test_interpolation_ends_in_samples(trained, tmp_path, capsys, monkeypatch, what):
    drawn = []
    monkeypatch.setattr(
        sheet, "draw", lambda page, size: drawn.append(page) or Image.new("L", (9,) * 2)
    )
    options = ("--classes=2,7", "--count=1", f"--what={what}", "--points=3")
    assert look("interpolate", trained, tmp_path / "i.png", *options) == 0
    row = shown(capsys)["rows"][0]
    assert row["class"] == 2 and row.get("to", {}).get("class") == (None if what == "z" else 7)
    g = load.load_generator(trained)
    z = g.sample_z(0, 2)
    ends = g(z if what != "class" else z[[0, 0]], np.array([2, 2 if what == "z" else 7]))
    np.testing.assert_allclose(drawn[0].rows[0][0], ends[0], atol=1e-5)
    np.testing.assert_allclose(drawn[0].rows[0][-1], ends[1], atol=1e-5)
    assert drawn[0].row_labels == ["2" if what == "z" else "2 → 7"]
    assert np.abs(drawn[0].rows[0][1] - drawn[0].rows[0][0]).max() > 1e-4


@pytest.mark.parametrize("suffix", [".gif", pytest.param(".webp", marks=pytest.mark.full)])
def test_moving_pictures(trained, tmp_path, capsys, suffix):
    out = tmp_path / f"i{suffix}"
    assert look("interpolate", trained, out, "--count=2", "--points=3", "--width=200") == 0
    assert shown(capsys)["animation"]
    with Image.open(out) as picture:
        assert picture.n_frames == 4 and picture.width == 200 and picture.info["loop"] == 0
    out = tmp_path / f"p{suffix}"
    assert look("progress", trained, out, "--count=2") == 0
    assert [s["step"] for s in shown(capsys)["steps"]] == [2, 4]
    with Image.open(out) as picture:
        assert picture.n_frames == 2


def test_chunks_change_one_at_a_time(trained, tmp_path, capsys, monkeypatch):
    asked = []
    call = load.LoadedGenerator.__call__
    monkeypatch.setattr(
        load.LoadedGenerator, "__call__", lambda g, z, y: asked.append(z) or call(g, z, y)
    )
    assert look("chunks", trained, tmp_path / "c.png", "--points=3") == 0
    result = shown(capsys)
    assert [c["resolution"] for c in result["chunks"]] == [4, 8, 16]
    z = asked[0].reshape(3, 3, 12)
    g = load.load_generator(trained)
    own, other = g.sample_z(0, 2)
    for chunk in range(3):
        part = slice(4 * chunk, 4 * chunk + 4)
        others = np.delete(np.arange(12), np.r_[part])
        assert (z[chunk][:, others] == own[others]).all()
        np.testing.assert_allclose(z[chunk, 0, part], own[part], atol=1e-6)
        np.testing.assert_allclose(z[chunk, -1, part], other[part], atol=1e-6)
    images = call(g, np.stack([z[1, 0], z[1, 2]]), np.array([0, 0]))
    change = np.abs(images[1] - images[0]).mean() * 127.5
    assert result["chunks"][1]["change"] == pytest.approx(change, abs=1e-3)


@pytest.mark.full
def test_the_name_of_the_sample_stands_in_pictures_of_one(tmp_path, capsys, monkeypatch):
    """Of several it stands in the rows' labels; by its id where one font has not all letters."""
    folder = saved_model(
        tmp_path / "m", "--config.model.g_attention=()", classes=2, names=("a", "é")
    )
    drawn = pages(monkeypatch)
    known = text.known_part
    monkeypatch.setattr(text, "known_part", lambda x: None if "é:" in x or ": é" in x else known(x))
    for kind, title in (("chunks", "a"), ("directions", f"a: {directions.TITLES['sefa']}")):
        assert look(kind, folder, tmp_path / "x.png", "--classes=a") == 0
        assert drawn[-1].title == title
        more = ["--directions=1"] if kind == "directions" else []
        assert look(kind, folder, tmp_path / "x.png", "--classes=a,é", *more) == 0
        labels = drawn[-1].row_labels
        if kind == "chunks":
            assert labels[0] == "a: first layer, 4 px" and labels[-1] == "class 1: block to 16 px"
        else:
            assert labels == ["1: a", "1: class 1"] and drawn[-1].title == directions.TITLES["sefa"]


def test_a_title_is_no_bare_number():
    assert rows_lib.alone("7", 7) == "class 7" and rows_lib.alone("cat", 7) == "cat"


def test_sefa_is_the_eigenvectors_and_ganspace_agrees(trained):
    g = load.load_generator(trained)
    variables = jax.tree.map(np.asarray, dict(g.applied[1]))
    linear = variables["params"]["linear"]  # of an untrained layer all singular values are alike
    linear["kernel"] = linear["kernel"] * np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)
    g = g.replace(variables)
    kernel = linear["kernel"].astype(np.float64)
    values, vectors = np.linalg.eigh(kernel @ kernel.T)
    found = directions.sefa(g, 3)
    np.testing.assert_allclose(found.strengths**2, values[::-1][:3])
    for i in range(3):
        assert abs(found.vectors[i, :4] @ vectors[:, -1 - i]) == pytest.approx(1)
    assert not found.vectors[:, 4:].any()  # the first layer sees its chunk alone
    # Components of the outputs, by the plain covariance.
    z = g.sample_z(0, directions.SAMPLES)[:, :4].astype(np.float64)
    outputs = z @ kernel
    shares = np.linalg.eigvalsh(np.cov(outputs.T))[::-1]
    other = directions.ganspace(g, 3)
    np.testing.assert_allclose(other.strengths, shares[:3] / shares.sum(), rtol=1e-6)
    # For latents of N(0, I) one deviation of a component is a unit step along SeFa's direction.
    assert abs(other.vectors[0] @ found.vectors[0]) == pytest.approx(1, abs=0.05)


def test_progress_shows_checkpoints_and_grids(trained, run_copy, tmp_path, capsys, monkeypatch):
    """A step whose checkpoint is gone comes from the run's own grid of the same latents."""
    config = load.load_generator(trained).config
    drawn = []
    monkeypatch.setattr(
        sheet, "draw", lambda page, size: drawn.append(page) or Image.new("L", (9,) * 2)
    )
    early = load.load_generator(trained, step=2)
    z = model_latents.sample(
        jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1), (100, config.model.dim_z)
    )
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    images = early(np.asarray(z), labels)
    picture = grids.grid(images, 10, row_labels=["a name"] * 10)
    run_grid.path(run_copy, 1).write_bytes(grids.png(picture))
    np.testing.assert_array_equal(run_grid.read(run_copy, 1, config), grids.to_uint8(images))
    # The grid that the run itself has left is of these latents too.
    own = run_grid.read(trained, 4, config).astype(int)
    again = grids.to_uint8(load.load_generator(trained)(np.asarray(z), labels))
    assert np.abs(own - again).max() <= 1
    assert look("progress", run_copy, tmp_path / "p.png", "--count=3") == 0
    result = shown(capsys)
    assert result["steps"] == [
        {"step": 1, "from": "grid"},
        {"step": 2, "from": "checkpoint"},
        {"step": 4, "from": "checkpoint"},
    ]
    assert [c["class"] for c in result["classes"]] == [0, 4, 9]
    np.testing.assert_array_equal(drawn[0].rows[0], grids.to_uint8(images[[0, 40, 90]]))
    assert np.abs(drawn[0].rows[1].astype(int) - drawn[0].rows[0]).max() <= 1
    assert look("progress", run_copy, tmp_path / "p.png", "--seed=3", "--count=3") == 0
    assert [s["step"] for s in shown(capsys)["steps"]] == [2, 4]


def test_neighbours_are_the_nearest(trained, tmp_path, capsys):
    options = ("--classes=1,8", "--nearest=2")
    assert look("neighbours", trained, tmp_path / "n.png", *options) == 0
    result = shown(capsys)
    source = data.open_source("digits", resolution=16, channels=1)
    real, labels = source.read(range(len(source)))
    g = load.load_generator(trained)
    fake = grids.to_uint8(g(g.sample_z(0, 2), np.array([1, 8]))).astype(np.float64)
    assert result["features"] == "pixels" and result["images"] == len(source) == 1797
    for sample, row in zip(fake, result["rows"], strict=True):
        rms = np.sqrt(((real - sample) ** 2.0).mean((1, 2, 3)))
        order = np.argsort(rms, kind="stable")[:2]
        assert [n["index"] for n in row["nearest"]] == order.tolist()
        assert [n["class"] for n in row["nearest"]] == labels[order].tolist()
        np.testing.assert_allclose([n["distance"] for n in row["nearest"]], rms[order], rtol=1e-4)


KINDS = ("grid", "truncation", "interpolate", "directions")
MODELS = {
    "one class": {"classes": 1},
    "1,000 classes": {"classes": 1000, "names": [f"class {i}" for i in range(1000)]},
    "deep": {"overrides": ("name=biggan_deep", "g_attention=()")},
    "sagan": {"overrides": ("name=sagan", "g_attention=()")},
    "dcgan": {"overrides": ("name=dcgan", "g_attention=()", "ch=4", "resolution=32")},
    "raw weights alone, in colour": {"overrides": ("channels=3",), "weights": "g"},
    "names in other scripts": {"names": NAMES},
}


@pytest.mark.parametrize(
    "name",
    [n if n == "1,000 classes" else pytest.param(n, marks=pytest.mark.full) for n in MODELS],
)
def test_models_of_every_kind(tmp_path, capsys, name):
    spec = dict(MODELS[name])
    overrides = [f"--config.model.{o}" for o in spec.pop("overrides", ())]
    folder = saved_model(tmp_path / "m", *overrides, **spec)
    for kind in KINDS:
        options = [] if kind == "grid" else ["--count=1"]
        assert look(kind, folder, tmp_path / f"{kind}.png", *options) == 0, kind
        result = shown(capsys)
        with Image.open(tmp_path / f"{kind}.png") as picture:
            assert picture.height < 3000
        if kind == "grid" and spec.get("classes") == 1000:
            assert len(result["classes"]) == 10 and result["classes"][-1]["name"] == "class 999"
    hierarchical = name not in ("deep", "sagan", "dcgan")
    assert look("chunks", folder, tmp_path / "c.png") == (0 if hierarchical else 2)
    if not hierarchical:
        runs.assert_one_error(capsys.readouterr(), "does not split z into chunks")


@pytest.mark.full
def test_class_changes_in_models_without_a_shared_embedding(tmp_path, capsys):
    folder = saved_model(
        tmp_path / "m", "--config.model.name=biggan_deep", "--config.model.g_attention=()"
    )
    assert look("interpolate", folder, tmp_path / "i.png", "--what=class", "--bn-mode=batch") == 0
    assert "to" in shown(capsys)["rows"][0]


BAD = [
    ("grid", ["--classes=10"], "class 10 does not exist.*0 to 9"),
    ("grid", ["--classes=nine"], "no class is named 'nine'"),
    ("grid", ["--count=0"], "--count is 0"),
    ("grid", ["--dpi=0"], "--dpi is 0; it must be from 36 to 2400"),
    ("grid", ["--dpi=1e6"], "--dpi is 1000000; it must be"),
    ("spectra", ["--dpi=0"], "--dpi is 0; it must be from 36 to 2400"),
    ("grid", ["--width=wide"], "--width 'wide' is no width: write pixels such as 390px"),
    ("grid", ["--width=2in", "--dpi=40"], "--width 2in is 80 pixels at 40 dots.*from 120"),
    ("grid", ["--width=-3"], "--width.*no width|--width"),
    ("grid", ["--width=120", "--count=40"], "--width leaves . pixels for each of 40 images"),
    ("grid", ["--step=3"], "no checkpoint 3 in"),
    ("grid", ["--ema=decay_0.5"], "--ema decay_0.5:.*has no such average"),
    ("grid", ["--truncation=-1"], "truncation is -1"),
    ("truncation", ["--thresholds=0.5,x"], "'0.5,x' is no list of thresholds"),
    ("truncation", ["--thresholds=-1"], "thresholds"),
    ("interpolate", ["--points=1"], "--points is 1; it must be from 2"),
    ("interpolate", ["--what=class", "--classes=3"], "give two --classes or more"),
    ("interpolate", ["--what=color"], "--what 'color' is unknown"),
    ("chunks", ["--points=1"], "--points is 1"),
    ("directions", ["--directions=5"], "--directions is 5; the first layer of this model has 4"),
    ("directions", ["--points=4"], "--points is 4; it must be an odd number"),
    ("progress", ["--step=2"], "has 1 step to show and progress needs two"),
    ("progress", ["--most=1"], "--most is 1"),
    ("neighbours", ["--nearest=0"], "--nearest is 0"),
    ("neighbours", ["--data=digit"], "--data"),
    ("bn", ["--count=0"], "--count is 0"),
    *(
        (kind, ["--classes=5,10"], "class 10 does not exist: this model has classes 0 to 9")
        for kind in ("truncation", "interpolate", "attention", "neighbours", "chunks")
    ),
    *(
        (kind, ["--classes=eigth"], "--classes 'eigth': no class is named 'eigth'")
        for kind in ("directions", "progress", "bn")
    ),
    ("grids", [], r"unknown kind 'grids' \(did you mean 'grid'\?\)"),
]


@pytest.mark.parametrize(("kind", "options", "words"), BAD)
def test_bad_options(trained, tmp_path, capsys, kind, options, words):
    assert (
        cli.main(["look", kind, f"--from={trained}", f"--out={tmp_path / 'x.png'}", *options]) == 2
    )
    runs.assert_one_error(capsys.readouterr(), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["grid", "progress", "attention", "spectra", "held-out", "bn"])
def test_bad_targets(trained, tmp_path, capsys, kind):
    (tmp_path / "file").write_text("kept")
    for out, words in (
        (tmp_path, "is a folder: name a file in it, such as"),
        (tmp_path / "x.tiff", "the name must end in .png"),
        (tmp_path / "file" / "x.png", "cannot be written"),
    ):
        assert cli.main(["look", kind, f"--from={trained}", f"--out={out}"]) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


def test_models_that_lack_something(tmp_path, capsys):
    folder = saved_model(tmp_path / "m", classes=1)
    for kind, options, words in (
        ("progress", [], "is a model directory and holds one state"),
        ("neighbours", [], "the config names no data.source: give them with --data SPEC"),
        ("interpolate", ["--what=both"], "this model has one class"),
        ("grid", ["--ema=decay_0.9"], "has no such average"),
    ):
        assert look(kind, folder, tmp_path / "x.png", *options) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    raw = saved_model(tmp_path / "raw", classes=1, weights="g")
    assert look("grid", raw, tmp_path / "x.png", "--ema=decay_0.9") == 2
    runs.assert_one_error(capsys.readouterr(), "holds raw weights alone.*: leave --ema out")
    assert not (tmp_path / "x.png").exists()


def test_rows_spread_over_classes(trained):
    g = load.load_generator(trained)
    assert Rows().latents(g, 3)[1].tolist() == [0, 4, 9]
    assert Rows(classes="5,2").latents(g, 3)[1].tolist() == [5, 2]
    assert Rows(classes="5,2", count=3).latents(g, 6)[1].tolist() == [5, 2, 5]


def test_the_gallery_shows_every_kind():
    """Each kind has a command, each picture of the page is made by one, and all are there."""
    spec = importlib.util.spec_from_file_location("gallery", runs.ROOT / "docs/gallery.py")
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    page = gallery.PAGE.read_text()
    looks = [words for words in gallery.commands(page) if words[0] == "look"]
    assert {words[1] for words in looks} == set(KINDS_OF_LOOK)
    made = {words[words.index("--out") + 1] for words in looks}
    shown = {f"docs/{path}" for path in re.findall(r"\]\((gallery/[^)]+)\)", page)}
    assert made == shown
    sizes = [(runs.ROOT / path).stat().st_size for path in made]
    assert all(sizes) and sum(sizes) < 2_000_000


def test_a_picture_that_takes_long_says_so(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timer.function(*timer.args))
    assert look("held-out", trained, tmp_path / "x.png") == 2  # after the first line
    first, last = capsys.readouterr().err.splitlines()
    assert first == "reading what the picture needs, compiling and drawing ..."
    assert last.startswith("biggan: ")
