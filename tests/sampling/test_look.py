"""`biggan look attention` and `bn`: figures of G and D, and the matrix of batch-norm modes."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, models
from biggan_jax.errors import UserError
from biggan_jax.pictures import attention_figure, grids
from biggan_jax.pictures.size import SCREEN
from biggan_jax.sampling import load
from biggan_jax.sampling.look import attention as look
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import networks
from biggan_jax.storage.weights import save_weights
from tests import runs
from tests.models.test_biggan_ablations import random_variables


def one_hot_maps(keys, count):
    """Maps [Q, K] that put everything on one key each."""
    return np.eye(count, dtype=np.float32)[np.asarray(keys)]


@pytest.fixture(scope="module")
def with_d_attention(trained, tmp_path_factory):
    """A model directory whose D attends at 8 pixels, with gamma 0.25."""
    folder = tmp_path_factory.mktemp("look") / "model"
    config = runs.tiny_config("--config.model.d_attention=(8,)", "--config.model.num_classes=10")
    _, d = models.build(config.model)
    images, labels = jnp.zeros((1, 16, 16, 1)), jnp.zeros((1,), jnp.int32)
    variables = random_variables(d, images, labels)
    variables = {name: variables[name] for name in ("params", "spectral")}
    variables["params"]["attention_8"]["gamma"] = jnp.asarray(0.25)
    save_weights(folder, "d", variables)
    g = load.load_generator(trained)
    save_weights(folder, "g_ema", g._variables)
    (folder / "config.json").write_text(json.dumps({"model": config.model.to_dict()}))
    return folder


def test_distance_of_maps():
    maps = one_hot_maps([0, 1, 1], 4)
    assert attention_figure.mean_distance(maps) == pytest.approx(2 / 3)
    assert attention_figure.mean_distance(maps[1:]) == 0
    assert attention_figure.mean_distance(maps[:1]) == 0
    half = np.array([[1, 0], [0.5, 0.5]])
    assert attention_figure.mean_distance(half) == pytest.approx(0.5)


def test_chosen_queries_differ_most():
    maps = np.full((256, 64), 1 / 64, np.float32)  # 16 x 16 queries that attend evenly
    maps[[3, 200, 140]] = one_hot_maps([5, 6, 7], 64)
    maps[60] = maps[3]  # different from the others, but not from the first
    maps[201] = 0.9 * one_hot_maps([9], 64) + 0.1 / 64  # different as well, but its dot overlaps
    chosen = attention_figure.choose_queries(maps, 4)
    assert set(chosen[:3]) == {3, 200, 140} and 201 not in chosen
    assert len(set(attention_figure.choose_queries(maps, 7))) == 7
    # Where no place is left for a dot, overlapping ones are still different points.
    assert sorted(attention_figure.choose_queries(np.ones((4, 1)), 4)) == [0, 1, 2, 3]


def test_first_query_is_the_least_uniform():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(16), 64)
    maps[37] = one_hot_maps(4, 16)
    assert attention_figure.choose_queries(maps, 3)[0] == 37


@pytest.mark.parametrize("channels", [1, 3])
def test_figure(channels):
    """Dots lie on their query, every map has its dot's colour and is brightest at its key."""
    images = np.full((2, 16, 16, channels), -1, np.float32)
    maps = np.stack([one_hot_maps(np.arange(64) % 16, 16)] * 2)  # 8 x 8 queries, 4 x 4 keys
    queries = [[10, 53], [19, 44]]
    picture = attention_figure.draw(images, queries, maps, ["first", "b"])
    pixels = np.asarray(picture).astype(int)
    cell, edge = 160, attention_figure.BORDER
    pitch = cell + 2 * edge + attention_figure.GAP
    left = picture.width - attention_figure.MARGIN - 3 * pitch  # of the image's panel
    for row, points in enumerate(queries):
        y = attention_figure.MARGIN + row * pitch
        image = pixels[y + edge : y + edge + cell, left + edge :][:, :cell]
        for column, query in enumerate(points):
            color = attention_figure.COLORS[column]
            r, c = (int((v + 0.5) * 20) for v in divmod(query, 8))
            assert tuple(image[r, c]) == color
            x = left + (column + 1) * pitch + attention_figure.GAP
            assert (pixels[y, x : x + cell] == color).all()  # the border
            heat = pixels[y + edge : y + edge + cell, x + edge : x + edge + cell]
            assert tuple(heat[r, c]) == color
            key_r, key_c = (int((v + 0.5) * 40) for v in divmod(query % 16, 4))
            assert heat[key_r, key_c].sum() > 600
            assert heat[(key_r + 80) % cell, (key_c + 80) % cell].sum() < 30  # no weight there
    assert (pixels[:, :left] < 128).any()  # the labels


def test_generator(trained, tmp_path, capsys):
    out = tmp_path / "new" / "a.png"
    argv = ["look", "attention", "--from", trained, "--out", out, "--count", "3", "--seed", "5"]
    assert cli.main([str(a) for a in argv]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("attention_8 (of attention_8): gamma ")
    assert len(said) == 5 and said[-1] == str(out)
    assert cli.main([str(a) for a in [*argv, "--json"]]) == 0
    result = json.loads(capsys.readouterr().out)
    g = load.load_generator(trained)
    assert result["gamma"] == g.gammas["attention_8"] != 0
    assert result["layer"] == "attention_8" and result["layers"] == ["attention_8"]
    assert [row["class"] for row in result["rows"]] == [0, 4, 9]
    labels = np.array([0, 4, 9], np.int32)
    maps = g.attention(g.sample_z(5, 3), labels)["attention_8"]
    for row, beta in zip(result["rows"], maps, strict=True):
        queries = [r // 2 * 8 + c // 2 for r, c in row["points"]]
        assert queries == attention_figure.choose_queries(beta, 5)
        assert row["distance"] == pytest.approx(attention_figure.mean_distance(beta[queries]))
    with Image.open(out) as picture:
        assert picture.height == 2 * 12 + 3 * 172 + 2 * 10


def test_points_by_hand(trained, tmp_path):
    result = look.draw(
        trained,
        tmp_path / "a.png",
        rows=Rows(classes="3,7", count=3),
        size=SCREEN,
        points="0,0; 15,15;6,9",
    )
    assert [row["class"] for row in result["rows"]] == [3, 7, 3]
    for row in result["rows"]:
        assert row["points"] == [[1, 1], [15, 15], [7, 9]]  # middles of the 8 x 8 query pixels


def test_discriminator_on_files(with_d_attention, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 16, 16), np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in zip(("b.png", "a.png"), pixels, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    large = tmp_path / "c.jpg"
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(large)
    read = look.read_images([folder, large], 16, 1)
    assert read.shape == (3, 16, 16, 1) and read.dtype == np.uint8
    np.testing.assert_array_equal(read[:2, :, :, 0], pixels[::-1])  # in the order of their names
    result = look.draw(
        with_d_attention,
        tmp_path / "d.png",
        rows=Rows(),
        size=SCREEN,
        discriminator=True,
        images=[folder, large],
    )
    assert result["gamma"] == 0.25 and result["layers"] == ["attention_8"]
    assert len(result["rows"]) == 3 and all("class" not in row for row in result["rows"])
    d = load.load_discriminator(with_d_attention)
    floats = pixels[::-1, :, :, None].astype(np.float32) / 127.5 - 1
    beta = d.attention(floats, np.array([0, 7]))["attention_8"]
    assert beta.shape == (2, 64, 16)
    np.testing.assert_allclose(beta.sum(-1), 1, atol=1e-5)
    queries = attention_figure.choose_queries(beta[0], 5)
    want = attention_figure.mean_distance(beta[0][queries])
    assert result["rows"][0]["distance"] == pytest.approx(want, abs=1e-5)


@pytest.mark.full
def test_discriminator_on_samples(with_d_attention, tmp_path):
    rows = Rows(classes="2,5", bn_mode="batch", truncation=0.5)
    result = look.draw(
        with_d_attention, tmp_path / "d.png", discriminator=True, rows=rows, size=SCREEN
    )
    assert [row["class"] for row in result["rows"]] == [2, 5]


def test_attention_of_many_images_is_that_of_each(with_d_attention):
    d = load.load_discriminator(with_d_attention)
    images = np.random.default_rng(0).uniform(-1, 1, (11, 16, 16, 1)).astype(np.float32)
    labels = np.arange(11) % 10
    maps = d.attention(images, labels)["attention_8"]
    alone = d.attention(images[9:10], labels[:1])["attention_8"]
    np.testing.assert_allclose(maps[9], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "attention_9"], "attention_9.*has attention_8.*model.g_attention"),
        (["--points", "3,16"], "--points 3,16 lies outside.*0 to 15"),
        (["--points", "-1,3"], "--points.*outside|--points"),
        (["--points=3;4"], "--points '3;4': write row,column pairs"),
        (["--points", "3,x"], "--points '3,x'"),
        (["--points", ";".join(["1,1"] * 8)], "8 points; give at most 7"),
        (["--points", "1,1", "--num-points", "1"], "--num-points.*--points.*one of the two"),
        (["--num-points", "8"], "--num-points is 8; it must be from 1 to 7"),
        (["--num-points", "0"], "--num-points is 0"),
        (["--count", "0"], "--count is 0"),
        (["--classes", "10"], "class 10 does not exist"),
        (["--images", "x.png"], "add --discriminator"),
        (["--discriminator"], "discriminator has no attention.*--config.model.d_attention"),
        (["--out", "x.gif"], "--out x.gif: the name must end in .png"),
    ],
)
def test_bad_options(trained, tmp_path, capsys, options, words):
    argv = ["look", "attention", f"--from={trained}", f"--out={tmp_path / 'x.png'}", *options]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), words)
    assert not list(tmp_path.iterdir())


def test_bad_images(with_d_attention, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.png").write_text("no image")
    for name, words in (
        ("none.png", "none.png: no such file"),
        ("empty", "empty: there is no PNG or JPEG file"),
        ("x.png", "x.png is no readable image"),
    ):
        with pytest.raises(UserError, match=words):
            look.read_images([tmp_path / name], 16, 1)


def test_a_generator_without_attention(trained, tmp_path):
    model = json.loads((trained / "config.json").read_text())["model"] | {"g_attention": []}
    (tmp_path / "config.json").write_text(json.dumps({"model": model}))
    weights = dict(load.load_generator(trained)._variables)
    for name in ("params", "spectral"):
        weights[name] = {k: v for k, v in weights[name].items() if k != "attention_8"}
    save_weights(tmp_path, "g_ema", weights)
    with pytest.raises(UserError, match="generator has no attention.*model.g_attention"):
        look.draw(tmp_path, tmp_path / "x.png", rows=Rows(), size=SCREEN)


def test_bn_matrix(trained, with_d_attention, tmp_path, capsys):
    out = tmp_path / "bn.png"
    argv = ["look", "bn", "--from", trained, "--out", out, "--classes", "1,4", "--per-class", "3"]
    argv += ["--truncation", "0.5", "--standing-batches", "2", "--standing-batch-size", "8"]
    assert cli.main([str(a) for a in [*argv, "--json"]]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["weights"] == ["EMA", "raw"]
    assert result["modes"] == ["running", "batch", "standing"]
    with Image.open(out) as picture:
        pixels = np.asarray(picture)
    labels = np.repeat(np.array([1, 4], np.int32), 3)
    panels = []
    for ema in (True, False):
        g = load.load_generator(trained, ema=ema)
        z = g.sample_z(0, 6, 0.5)
        for mode in result["modes"]:
            g.set_bn_mode(mode, 0.5, batches=2, batch_size=8)
            panels.append(np.asarray(grids.grid(g(z, labels), 3, row_labels=["1", "4"])))
    height, width = panels[0].shape
    for i, panel in enumerate(panels):
        row, column = divmod(i, 3)
        y = pixels.shape[0] - (2 - row) * (height + 12)
        x = pixels.shape[1] - (3 - column) * (width + 12)
        for channel in range(3):
            np.testing.assert_array_equal(pixels[y : y + height, x : x + width, channel], panel)
    assert len({panel.tobytes() for panel in panels}) == 6
    assert list(networks.generator_weights(with_d_attention)) == ["EMA"]
