"""One image file's bytes -> a square uint8 array."""

import functools
import io
import re
import warnings
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from biggan_jax.data.contents import describe
from biggan_jax.data.files import open_regular, read_regular
from biggan_jax.data.source import one_line

WHITE = (255, 255, 255, 255)
REDUCED_SIDES = 2  # a reduced image has at least twice the resolution, so that averaging remains


class BadImage(Exception):
    """These bytes are no readable image.

    Attributes:
      pixels: how many the image has, where that is too many to be meant.
    """

    pixels: int | None = None


def decode_image(
    data: bytes,
    resolution: int,
    channels: int,
    *,
    reduced: bool = False,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decodes, turns upright, crops and resizes one image.

    Transparency is composited on white; 16-bit grey is scaled to 8 bits; the EXIF orientation is
    applied; of an animation the first frame is taken; colour profiles are not applied.

    Args:
      data: the bytes of a file in a format that Pillow decodes.
      resolution: side of the result in pixels.
      channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
      reduced: decode a JPEG at 1/2, 1/4 or 1/8 of its size where both sides keep `REDUCED_SIDES`
        times the resolution: up to twice as fast, and pixels differ by 4 to 7 of 255 (root mean
        square over photographs).
      max_pixels: of the largest image that is decoded, after that reduction; Pillow's own limit
        (twice `Image.MAX_IMAGE_PIXELS`) if absent.

    Returns:
      uint8 [resolution, resolution, channels].

    Raises:
      BadImage: the bytes are damaged, no image, or an image too large to be meant.
    """
    _silence_pillow()
    try:
        with _open(data, resolution, reduced, max_pixels) as image:
            image.load()
            _scale_transparency(image, data)
            upright = ImageOps.exif_transpose(image)
            square = resize_square(_to_mode(upright, "RGB" if channels == 3 else "L"), resolution)
    except (MemoryError, BadImage):
        raise
    except Image.DecompressionBombError as error:
        raise _refused_by_pillow(error) from error
    # Pillow's decoders raise nearly every exception type on damaged bytes (OSError, SyntaxError,
    # ValueError, struct.error, zlib.error, EOFError, IndexError ...).
    except Exception as error:
        raise BadImage(describe(data, one_line(error))) from error
    return np.asarray(square).reshape(resolution, resolution, channels)


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
      size: width and height in pixels.
      mode: in Pillow's words.
      transparent: whether some of it may be.
    """

    size: tuple[int, int]
    mode: str
    transparent: bool


class Stored(Protocol):
    """A file inside another one; `stored` has those that there are."""

    def read(self, limit: int | None = None) -> bytes:
        """Its bytes, `limit` at most; BadImage or OSError where they cannot be had."""


def header(content: Path | bytes | Stored, max_pixels: int | None) -> Header:
    """Reads what an image file says of itself, without its pixels.

    Args:
      content: the file, its bytes, or what reads them.
      max_pixels: as of `decode_image`.

    Returns:
      Its header.

    Raises:
      BadImage: it is no image, or too large.
    """
    _silence_pillow()
    if not isinstance(content, Path | bytes):
        content = content.read()
    try:
        _allow(max_pixels)
        file = open_regular(content) if isinstance(content, Path) else io.BytesIO(content)
        with file, Image.open(file) as image:
            return Header(image.size, image.mode, image.has_transparency_data)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise _refused_by_pillow(error) from error
    except Exception as error:
        if getattr(error, "errno", None) is not None:
            raise BadImage(error.strerror) from error
        data = read_regular(content) if isinstance(content, Path) else content
        raise BadImage(describe(data, one_line(error))) from error


def _open(data: bytes, resolution: int, reduced: bool, max_pixels: int | None) -> Image.Image:
    """The image before its pixels are read, at its reduced size where that is asked for."""
    _allow(max_pixels)
    if reduced and data.startswith(b"\xff\xd8\xff"):
        # Not through Image.open, which refuses by the whole size what is read at an eighth of it.
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        image.draft(image.mode, (REDUCED_SIDES * resolution,) * 2)
    else:
        image = Image.open(io.BytesIO(data))
    limit, pixels = _limit(max_pixels), image.width * image.height
    if limit is not None and pixels > limit:
        image.close()
        raise _too_large(pixels, limit)
    return image


@functools.cache
def _silence_pillow() -> None:
    """Keeps Pillow's raw warnings from a person; at the first image, not when this is imported."""
    # Large images are read, or refused in words of our own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    # Of damaged metadata, where the image can be read all the same.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _allow(max_pixels: int | None) -> None:
    """Raises Pillow's limit, which it has for all threads together; ours is checked beside it."""
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))


def _limit(max_pixels: int | None) -> int | None:
    if max_pixels is not None:
        return max_pixels
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _refused_by_pillow(error: Image.DecompressionBombError) -> BadImage:
    number = re.search(r"\d+", str(error))
    return _too_large(int(number[0]) if number else 0, _limit(None))


def _too_large(pixels: int, limit: int | None) -> BadImage:
    error = BadImage(f"{pixels:,} pixels are more than the limit of {limit:,}")
    error.pixels = pixels
    return error


def resize_square(image: Image.Image, resolution: int) -> Image.Image:
    """Crops the centred square and resizes it.

    Args:
      image: any size, mode L or RGB.
      resolution: side of the result in pixels.

    Returns:
      An image of resolution x resolution: box-averaged when shrinking, bicubic when enlarging.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == resolution:
        return image.crop(box)
    kernel = Image.Resampling.BOX if side > resolution else Image.Resampling.BICUBIC
    return image.resize((resolution, resolution), kernel, box=box)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converts any Pillow mode to 8-bit L or RGB."""
    if image.mode == "F":
        raise BadImage("32-bit float pixels have no fixed range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), colours)
    if image.mode not in ("1", "L", "P", "RGB", "RGBA", "YCbCr"):
        # Pillow has no way from LAB to grey, and from CMYK one with other weights.
        image = image.convert("RGB")
    return image.convert(mode)


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Gives a PNG's transparent colour the range of the 8-bit pixels that Pillow makes of it."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None:
        return
    depth = data[24]  # of the header, which is the first chunk
    if image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = transparent * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling, so white stays but grey is lost.
    values = np.asarray(image).astype(np.int64)
    # Mode I (32 bits) is what older Pillow makes of 16-bit files; more than 16 bits is no image.
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(f"grey values from {values.min()} to {values.max()} exceed 16 bits")
    eight = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        eight[values == transparent] = 255  # composited on white
    return Image.fromarray(eight)
