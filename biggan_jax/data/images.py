"""One image file's bytes -> a square uint8 array."""

import io

import numpy as np
from PIL import Image, ImageOps

from biggan_jax.data.source import one_line

WHITE = (255, 255, 255, 255)
REDUCED_SIDES = 2  # a reduced image has at least twice the resolution, so that averaging remains


class BadImage(Exception):
    """These bytes are no readable image."""


def decode_image(
    data: bytes, resolution: int, channels: int, *, reduced: bool = False
) -> np.ndarray:
    """Decodes, turns upright, crops and resizes one image.

    Transparency is composited on white; 16-bit grey is scaled to 8 bits; the EXIF orientation is
    applied; of an animation the first frame is taken; colour profiles are not applied.

    Args:
      data: the bytes of a PNG, JPEG, WebP, GIF, BMP, TIFF or PNM file.
      resolution: side of the result in pixels.
      channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
      reduced: decode a JPEG at 1/2, 1/4 or 1/8 of its size where both sides keep `REDUCED_SIDES`
        times the resolution: up to twice as fast, and pixels differ by 4 to 7 of 255 (root mean
        square over photographs).

    Returns:
      uint8 [resolution, resolution, channels].

    Raises:
      BadImage: the bytes are damaged, no image, or an image too large to be meant.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if reduced:
                # Of all formats JPEG alone has smaller sizes in itself; others ignore it.
                image.draft(image.mode, (REDUCED_SIDES * resolution,) * 2)
            image.load()
            upright = ImageOps.exif_transpose(image)
            square = resize_square(_to_mode(upright, "RGB" if channels == 3 else "L"), resolution)
    except MemoryError:
        raise
    # Pillow's decoders raise nearly every exception type on damaged bytes (OSError, SyntaxError,
    # ValueError, struct.error, zlib.error, EOFError, IndexError, DecompressionBombError ...).
    except Exception as error:
        raise BadImage(one_line(error)) from error
    return np.asarray(square).reshape(resolution, resolution, channels)


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
        raise BadImage("32-bit float pixels have no fixed range")
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), colours)
    return image.convert(mode)


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling, so white stays but grey is lost.
    values = np.asarray(image).astype(np.int64)
    # Mode I (32 bits) is what older Pillow makes of 16-bit files; more than 16 bits is no image.
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(f"grey values from {values.min()} to {values.max()} exceed 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
