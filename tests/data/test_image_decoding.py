"""Every kind of image file becomes the same upright square of bytes."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, features

from biggan_jax.data import left_out
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


def png(width, depth, kind, rows, transparent=None):
    """A PNG written by hand: Pillow writes no grey of 2 bits with a transparent value."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    alpha = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + alpha + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("depth", "values"), [(16, (0, 257, 258, 65535)), (2, (0, 1, 2, 3))])
def test_a_transparent_grey_value_is_white(depth, values, channels):
    packed = sum(v << depth * (3 - i) for i, v in enumerate(values)).to_bytes(depth // 2, "big")
    for transparent in values:
        got = decode_image(png(4, depth, 0, [packed] * 4, transparent), 4, channels)[0]
        want = [255 if v == transparent else round(v * 255 / (2**depth - 1)) for v in values]
        np.testing.assert_array_equal(got, np.repeat(np.array(want)[:, None], channels, 1))


def test_a_transparent_colour_of_sixteen_bits_is_white():
    row = struct.pack(">6H", 257, 514, 771, 40000, 50000, 60000)
    data = png(2, 16, 2, [row] * 2)
    at = data.index(b"IDAT") - 4
    alpha = b"tRNS" + struct.pack(">3H", 40000, 50000, 60000)
    alpha = struct.pack(">I", 6) + alpha + struct.pack(">I", zlib.crc32(alpha))
    got = decode_image(data[:at] + alpha + data[at:], 2, 3)
    assert got[0].tolist() == [[1, 2, 3], [255, 255, 255]]


def test_lab_and_cmyk_at_one_channel_are_the_luma_of_their_colours():
    for mode, kind in (("LAB", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG")):
        image = Image.merge(mode, [Image.fromarray(GRADIENT)] * len(mode))
        colours = decode_image(encode(image, kind), 8, 3).astype(np.float64)
        luma = colours @ [0.299, 0.587, 0.114]
        got = decode_image(encode(image, kind), 8, 1)[..., 0]
        assert np.abs(got - luma).max() <= 1


def test_every_suffix_that_is_listed_can_be_decoded_and_no_document_is():
    found = left_out.suffixes()
    assert {".jfif", ".jpe", ".jpg", ".png", ".webp", ".tiff", ".ppm", ".tga", ".ico"} <= found
    assert not found & {".pdf", ".eps", ".ps", ".mpg", ".h5", ".hdf", ".txt", ".npz", ".wmf"}
    if features.check("avif"):
        assert ".avif" in found
        near = decode_image(encode(rgb().resize((32, 32)), "AVIF", quality=100), 8, 3)
        assert np.abs(near.astype(int) - np.asarray(rgb())).mean() < 16


def described():
    whole, jpeg = encode(rgb()), encode(rgb().resize((64, 64)), "JPEG")
    webp, bmp = encode(rgb(), "WEBP", lossless=True), encode(rgb(), "BMP")
    yield b"", "the file is empty"
    yield bytes(100), "only zeros in its first 100 bytes"
    yield b"\n<!DOCTYPE html><html><body>404", "an HTML page, as a failed download leaves it"
    yield b"hello, this is no picture", "a text that starts with 'hello, this is no pictur'"
    yield b"<svg xmlns='x'/>", "an SVG drawing"
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"
    yield b"PK\x03\x04" + bytes(range(99)), "a zip archive"
    yield b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pip install pillow-heif"
    yield b"\x01\x02\xfe\xff" * 99, "an unknown format, its first bytes are 01 02 fe ff 01"
    yield whole[:-30], f"a PNG, truncated at byte {len(whole) - 30} of at least {len(whole)}"
    yield webp[:-9], f"a WebP, truncated at byte {len(webp) - 9} of {len(webp)}"
    yield bmp[:-9], f"a BMP, truncated at byte {len(bmp) - 9} of {len(bmp)}"
    yield jpeg[:300], "a JPEG, truncated at byte 300 (it has no end marker)"
    yield b"GIF89a" + b"\xff" * 3, "a GIF: "
    yield encode(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF"), "save it with 8 or 16 bits"


@pytest.mark.parametrize(("data", "words"), described())
def test_what_is_no_image_is_described(data, words):
    with pytest.raises(BadImage) as caught:
        decode_image(data, 8, 3)
    assert words in str(caught.value) and " at 0x" not in str(caught.value)


def test_the_largest_image_is_a_setting(monkeypatch):
    data, jpeg = encode(rgb()), encode(rgb().resize((512, 512)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # refused beyond twice as many
    with pytest.raises(BadImage, match="64 pixels are more than the limit of 40") as caught:
        decode_image(data, 8, 3)
    assert caught.value.pixels == 64
    with pytest.raises(BadImage, match="64 pixels are more than the limit of 63"):
        decode_image(data, 8, 3, max_pixels=63)
    np.testing.assert_array_equal(decode_image(data, 8, 3, max_pixels=64), np.asarray(rgb()))
    # A JPEG is read at 1/8 of its size: 64 x 64 pixels are left.
    assert decode_image(jpeg, 8, 3, reduced=True, max_pixels=4096).shape == (8, 8, 3)
    with pytest.raises(BadImage, match="4,096 pixels are more than the limit of 4,095"):
        decode_image(jpeg, 8, 3, reduced=True, max_pixels=4095)


def test_no_warning_of_pillow_reaches_a_person():
    code = (
        "import sys; from PIL import Image; from biggan_jax.data.images import decode_image\n"
        "Image.MAX_IMAGE_PIXELS = 40  # from there to twice as many it warns\n"
        "decode_image(sys.stdin.buffer.read(), 8, 3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=encode(rgb()), capture_output=True, check=True
    )
    assert done.stderr == b""
