"""Grids and PNG files."""

import os

import numpy as np
import pytest
from PIL import Image

from biggan_jax.pictures import grids
from biggan_jax.storage import paths


def ramp(n, size=(16, 16), channels=3):
    """Image i is filled with the value 10 * i."""
    values = (10 * np.arange(n, dtype=np.uint8))[:, None, None, None]
    return np.broadcast_to(values, (n, *size, channels)).copy()


def test_to_uint8_is_the_inverse_of_the_loader():
    levels = np.arange(256, dtype=np.uint8)
    floats = levels.astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(grids.to_uint8(floats), levels)
    assert grids.to_uint8(levels) is levels


def test_to_uint8_rounds_and_clips():
    x = np.array([-3.0, -1.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 3.0, np.inf, -np.inf, np.nan])
    want = [0, 0, 1, 0, 255, 255, 255, 0, 0]
    got = grids.to_uint8(x.astype(np.float32))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_layout(channels):
    images = ramp(5, channels=channels)
    images[4, 0, :] = 255  # the orientation of an image: its first row is at the top
    picture = grids.grid(images, 3, padding=2)
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert picture.size == (3 * 50 + 2, 2 * 50 + 2)  # 16 px enlarged 3 times, (width, height)
    pixels = np.asarray(picture).reshape(102, 152, channels)
    for i in range(5):
        y, x = 2 + i // 3 * 50, 2 + i % 3 * 50
        cell = pixels[y : y + 48, x : x + 48]
        np.testing.assert_array_equal(cell, images[i].repeat(3, 0).repeat(3, 1))
    assert (pixels[52:, 102:] == grids.BACKGROUND).all()  # the place of the missing sixth
    for line in (pixels[:2], pixels[50:52], pixels[100:], pixels[:, :2], pixels[:, 50:52]):
        assert (line == grids.BACKGROUND).all()


SIZES = [((8, 8), (48, 48)), ((28, 28), (56, 56)), ((8, 16), (48, 96)), ((64, 64), (64, 64))]


@pytest.mark.parametrize(("size", "cell"), SIZES)
def test_small_images_are_enlarged(size, cell):
    picture = grids.grid(ramp(1, size), 1, padding=0)
    assert picture.size == cell[::-1]


def test_min_side_and_padding():
    assert grids.grid(ramp(4), 2, min_side=1, padding=5).size == (5 + 2 * 21, 5 + 2 * 21)


def test_float_images_are_converted():
    white = np.ones((1, 64, 64, 1), np.float32)
    assert (np.asarray(grids.grid(white, 1, padding=0)) == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_row_labels(channels):
    images = ramp(6, channels=channels)
    plain = grids.grid(images, 2)
    labels = ["cat", "a rather long class name", ""]
    picture = grids.grid(images, 2, row_labels=labels)
    left = picture.width - plain.width
    assert picture.height == plain.height and left > 100
    pixels = np.asarray(picture).reshape(picture.height, picture.width, channels)
    want = np.asarray(plain).reshape(plain.height, plain.width, channels)
    np.testing.assert_array_equal(pixels[:, left:], want)
    inked = (pixels[:, :left] < 128).any(axis=-1)
    rows = [inked[2 + 50 * i : 50 + 50 * i] for i in range(3)]
    assert rows[0].any() and rows[1].any() and not rows[2].any()
    assert inked.sum() == sum(row.sum() for row in rows)  # no label leaves its row
    assert not inked[:, :3].any() and not inked[:, -3:].any()  # nor is cut off at a side
    for row in rows[:2]:
        middle = np.flatnonzero(row.any(axis=1)).mean()
        assert abs(middle - 23.5) < 5


def test_wrong_shapes_name_the_numbers():
    with pytest.raises(ValueError, match="2 row labels for 3 rows"):
        grids.grid(ramp(6), 2, row_labels=["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4, 2\)"):
        grids.grid(np.zeros((2, 4, 4, 2), np.uint8), 1)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 3\)"):
        grids.grid(np.zeros((4, 4, 3), np.uint8), 1)


def test_png(tmp_path):
    path = tmp_path / "samples" / "a.png"
    paths.write_bytes(path, grids.png(grids.grid(ramp(4), 2)))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(grids.grid(ramp(4), 2)))
    assert os.listdir(path.parent) == ["a.png"]


def test_failed_save_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    paths.write_bytes(path, grids.png(grids.grid(ramp(4), 2)))
    before = path.read_bytes()

    def torn(self, file, format):
        file.write(b"\x89PNG")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(OSError, match="No space left"):
        paths.write_bytes(path, grids.png(grids.grid(ramp(1), 1)))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.png"]
