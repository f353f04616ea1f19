"""Pictures: grids of images with row labels, and what a PNG file of one holds."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from biggan_jax.pictures import text

BACKGROUND = 236  # a light grey: black and white images both stand out from it
INK = 32
MIN_SIDE, PADDING = 48, 2  # px
TITLE = 20  # px of the letters of headings
LABEL_MARGIN = 6  # px on both sides of a row label
LEAST_LABEL, LABEL_SHARE = 160, 0.4  # px that a label may take, or this share of the images' width


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Converts images for files and the screen.

    Args:
      images: uint8, returned as it is, or floating in [-1, 1]; values outside are clipped, NaN
        gives 0.

    Returns:
      uint8 of the same shape: -1 is 0 and 1 is 255, rounded to the nearest.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    scaled = (images.astype(np.float32) + 1.0) * 127.5
    return np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), 0, 255).astype(np.uint8)


def grid(
    images: np.ndarray,
    columns: int,
    *,
    row_labels: Sequence[str] | None = None,
    row_fallbacks: Sequence[str] | None = None,
    min_side: int = MIN_SIDE,
    padding: int = PADDING,
) -> Image.Image:
    """Lays images out row by row.

    Args:
      images: [N, H, W, C], uint8 or floating in [-1, 1]; C is 1 (grey) or 3. An interpolation is a
        grid with one path a row.
      columns: images in a row; the last row may be shorter.
      row_labels: one text a row, such as class names, written at its left; long ones are shortened.
      row_fallbacks: what stands there where no font at hand has the script of a label, such as ids.
      min_side: images with a shorter side (px) are enlarged by the least whole factor that makes
        it at least this long; every pixel stays a sharp square.
      padding: px between and around the images.

    Returns:
      The picture, in mode 'L' or 'RGB'.

    Raises:
      ValueError: the images are not [N, H, W, 1 or 3], or the labels do not match the rows.
    """
    images = to_uint8(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"images have shape {images.shape}: give [N, H, W, C], N >= 1, C 1 or 3")
    rows = -(-len(images) // columns)
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(
            f"{len(row_labels)} row labels for {rows} rows ({len(images)} images in {columns} "
            "columns): give one label a row"
        )
    factor = max(1, -(-min_side // min(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    _, height, width, channels = images.shape
    pitch_y, pitch_x = height + padding, width + padding
    canvas = np.full(
        (rows * pitch_y + padding, columns * pitch_x + padding, channels), BACKGROUND, np.uint8
    )
    for i, image in enumerate(images):
        y, x = padding + i // columns * pitch_y, padding + i % columns * pitch_x
        canvas[y : y + height, x : x + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    if row_labels is None:
        return picture
    labels = row_labels, row_fallbacks
    return _with_labels(picture, *labels, first=padding + height / 2, pitch=pitch_y)


def table(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    gap: int = 12,
) -> Image.Image:
    """Lays pictures of one size out under headings, such as grids of the same samples.

    Args:
      rows: pictures of each row, all of one size.
      row_labels: one text a row, at its left.
      column_labels: one text a column, above it.
      gap: px between and around the pictures.

    Returns:
      The picture, in mode 'RGB'.
    """
    font = ImageFont.load_default(size=TITLE)
    width, height = rows[0][0].size
    left = round(max(font.getlength(label) for label in row_labels)) + 2 * gap
    top = TITLE + 2 * gap
    pitch_x, pitch_y = width + gap, height + gap
    size = (left + len(column_labels) * pitch_x, top + len(rows) * pitch_y)
    canvas = Image.new("RGB", size, (255,) * 3)
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(column_labels):
        place = (left + column * pitch_x + width / 2, top / 2)
        draw.text(place, label, fill=(INK,) * 3, font=font, anchor="mm")
    for row, (pictures, label) in enumerate(zip(rows, row_labels, strict=True)):
        place = (left - gap, top + row * pitch_y + height / 2)
        draw.text(place, label, fill=(INK,) * 3, font=font, anchor="rm")
        for column, picture in enumerate(pictures):
            canvas.paste(picture, (left + column * pitch_x, top + row * pitch_y))
    return canvas


def column(pictures: Sequence[Image.Image], titles: Sequence[str], *, gap: int = 12) -> Image.Image:
    """Lays pictures of one size out one below another, each under its title.

    Args:
      pictures: all of one size.
      titles: one text a picture.
      gap: px between and around the pictures.

    Returns:
      The picture, in mode 'RGB'.
    """
    font = ImageFont.load_default(size=TITLE)
    width, height = pictures[0].size
    pitch = TITLE + 2 * gap + height
    canvas = Image.new("RGB", (width + 2 * gap, len(pictures) * pitch + gap), (255,) * 3)
    draw = ImageDraw.Draw(canvas)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        place = (gap, i * pitch + gap + TITLE / 2)
        draw.text(place, title, fill=(INK,) * 3, font=font, anchor="lm")
        canvas.paste(picture, (gap, i * pitch + TITLE + 2 * gap))
    return canvas


def png(image: Image.Image) -> bytes:
    """Gives the contents of a PNG file.

    Args:
      image: the picture.

    Returns:
      What `storage.paths.write_bytes` writes, for instance.
    """
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _with_labels(
    picture: Image.Image,
    labels: Sequence[str],
    fallbacks: Sequence[str] | None,
    *,
    first: float,
    pitch: int,
) -> Image.Image:
    """Adds a column at the left, label i centred at `first + i * pitch` px from the top."""
    size = min(20, max(11, pitch // 4))
    room = max(LEAST_LABEL, LABEL_SHARE * picture.width)
    labels, font = text.fitted(labels, size, room, fallbacks)
    left = round(max(font.getlength(label) for label in labels)) + 2 * LABEL_MARGIN
    background, ink = ((v if picture.mode == "L" else (v,) * 3) for v in (BACKGROUND, INK))
    wide = Image.new(picture.mode, (left + picture.width, picture.height), background)
    wide.paste(picture, (left, 0))
    draw = ImageDraw.Draw(wide)
    for i, label in enumerate(labels):
        place = (left - LABEL_MARGIN, first + i * pitch)
        draw.text(place, label, fill=ink, font=font, anchor="rm")
    return wide
