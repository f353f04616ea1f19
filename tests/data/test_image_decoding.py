"""Every kind of image file becomes the same upright square of bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from biggan_jax.data.images import BadImage, decode_image

GRADIENT = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb():
    return Image.fromarray(np.stack([GRADIENT, GRADIENT[::-1], GRADIENT.T], axis=-1))


def test_rgb_is_returned_as_it_is():
    np.testing.assert_array_equal(decode_image(encode(rgb()), 8, 3), np.asarray(rgb()))


def test_grey_fills_three_channels_and_colour_becomes_luma():
    grey = Image.fromarray(GRADIENT)
    got = decode_image(encode(grey), 8, 3)
    np.testing.assert_array_equal(got, np.repeat(GRADIENT[..., None], 3, axis=-1))
    luma = decode_image(encode(rgb()), 8, 1)
    np.testing.assert_array_equal(luma[..., 0], np.asarray(rgb().convert("L")))


def test_palette():
    palette = rgb().quantize(16)
    got = decode_image(encode(palette), 8, 3)
    np.testing.assert_array_equal(got, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode):
    colour = np.full((8, 8), 40, np.uint8)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, 4:], alpha[0] = 0, 102
    bands = [colour] * (3 if mode == "RGBA" else 1) + [alpha]
    image = Image.merge(mode, [Image.fromarray(band) for band in bands])
    got = decode_image(encode(image), 8, 3)
    assert np.all(got[1:, :4] == 40)
    assert np.all(got[1:, 4:] == 255)
    assert np.all(np.abs(got[0].astype(int) - (0.4 * 40 + 0.6 * 255)) <= 1)


def test_transparent_palette_entry_is_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 90, 80, 70])
    palette.putpixel((3, 2), 1)
    got = decode_image(encode(palette, transparency=0), 8, 3)
    assert got[2, 3].tolist() == [90, 80, 70]
    assert got[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        got = decode_image(encode(Image.fromarray(values), kind), 8, 1)[..., 0]
        np.testing.assert_array_equal(got, np.round(values / 257))


def test_cmyk():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    got = decode_image(encode(cmyk, "TIFF"), 8, 3)
    assert np.all(got == [255, 0, 0])
    assert decode_image(encode(cmyk, "JPEG"), 8, 3).shape == (8, 8, 3)


def test_one_bit():
    image = Image.fromarray(GRADIENT > 90)
    np.testing.assert_array_equal(decode_image(encode(image), 8, 1)[..., 0], (GRADIENT > 90) * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = rgb()
    # The transpositions that turn a stored image upright, from the EXIF standard.
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for operation in undo.get(orientation, []):
        stored = stored.transpose(operation)
    got = decode_image(encode(stored, exif=exif), 8, 3)
    np.testing.assert_array_equal(got, np.asarray(upright))


@pytest.mark.parametrize("size", [(20, 8), (8, 20), (9, 8)])
def test_the_centre_square_is_kept(size):
    width, height = size
    whole = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top = (width - 8) // 2, (height - 8) // 2
    got = decode_image(encode(Image.fromarray(whole)), 8, 3)
    np.testing.assert_array_equal(got, whole[top : top + 8, left : left + 8])


def test_shrinking_averages_areas():
    whole = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    got = decode_image(encode(Image.fromarray(whole)), 2, 3)
    means = whole[:, 3:11].reshape(2, 4, 2, 4, 3).mean(axis=(1, 3))
    assert np.all(np.abs(got - means) < 1)  # Pillow rounds after each axis


def test_enlarging_interpolates():
    got = decode_image(encode(rgb()), 24, 3)
    want = rgb().resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(got, np.asarray(want))


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), (c, c, c)) for c in (10, 200)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.all(decode_image(data, 8, 3) == 10)


def damaged_images():
    whole = encode(rgb())
    yield "empty", b""
    yield "text", b"this is no image\n" * 50
    yield "half a png", whole[: len(whole) // 2]
    yield "broken png chunk", whole[:40] + bytes(20) + whole[60:]
    jpeg = encode(rgb().resize((64, 64)), "JPEG")
    yield "half a jpeg", jpeg[: len(jpeg) // 2]
    yield "float pixels", encode(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF")


@pytest.mark.parametrize(("name", "data"), damaged_images())
def test_damaged_bytes_are_a_bad_image(name, data):
    with pytest.raises(BadImage) as caught:
        decode_image(data, 8, 3)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_decompression_bomb_is_a_bad_image(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # refused beyond twice as many
    with pytest.raises(BadImage):
        decode_image(encode(rgb()), 8, 3)
