"""Files of pictures: which suffixes there are, and the contents of each."""

import io
import os
from collections.abc import Sequence
from pathlib import PurePath

from PIL import Image

from biggan_jax.errors import UserError

# Suffix in lower case -> Pillow's format, its settings, and the longest side that it can hold.
FORMATS = {
    ".png": ("PNG", {}, 2**31 - 1),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}, 65_535),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, 65_535),
    ".webp": ("WEBP", {"lossless": True}, 16_383),
}
# Suffix -> Pillow's format, its settings and the longest side, of pictures that move.
ANIMATIONS = {
    ".gif": ("GIF", {"optimize": False, "disposal": 1}, 65_535),
    ".webp": ("WEBP", {"quality": 90, "method": 4}, 16_383),
}


def suffix(
    out: str | os.PathLike, also: Sequence[str] = (), *, more: str = "", option: str = "--out"
) -> str:
    """The suffix of a file to be written, in lower case.

    Args:
      out: the file, as the user named it.
      also: other suffixes that are taken.
      more: what else is taken, for the message.
      option: which names the file, for the message.

    Raises:
      UserError: nothing is written under this suffix; the message lists those that are.
    """
    found = PurePath(out).suffix.lower()
    taken = [*FORMATS, *also]
    if found not in taken:
        raise UserError(
            f"{option} {out}: the name must end in {', '.join(taken[:-1])} or {taken[-1]}{more}"
        )
    return found


def encode(image: Image.Image, out: str | os.PathLike, dpi: int | None = None) -> bytes:
    """Gives the contents of a picture's file.

    Args:
      image: the picture, in mode 'L' or 'RGB'.
      out: the file, whose suffix says the format: one of `FORMATS`.
      dpi: dots per inch, for programs that print it; WebP does not keep them.

    Returns:
      What `storage.paths.write_bytes` writes, for instance.

    Raises:
      UserError: the picture is larger than the format allows.
    """
    kind, settings, longest = FORMATS[PurePath(out).suffix.lower()]
    _check_side(image, out, kind, longest)
    if dpi is not None and kind != "WEBP":
        settings = settings | {"dpi": (dpi, dpi)}
    file = io.BytesIO()
    image.save(file, format=kind, **settings)
    return file.getvalue()


def is_animation(out: str | os.PathLike) -> bool:
    """Whether a kind that can move does so in this file."""
    return PurePath(out).suffix.lower() in ANIMATIONS


def animate(frames: Sequence[Image.Image], out: str | os.PathLike, durations: list[int]) -> bytes:
    """Gives the contents of a file of a picture that moves, over and over.

    Args:
      frames: of one size, in mode 'RGB', two at least.
      out: the file, whose suffix says the format: one of `ANIMATIONS`.
      durations: of the frames, ms, multiples of 10.

    Raises:
      UserError: they are larger than the format allows.
    """
    kind, settings, longest = ANIMATIONS[PurePath(out).suffix.lower()]
    _check_side(frames[0], out, kind, longest)
    if kind == "GIF":  # 256 colours: one palette for all frames, so that nothing flickers
        frames = _with_one_palette(frames)
    file = io.BytesIO()
    first, *others = frames
    first.save(
        file, format=kind, save_all=True, append_images=others, loop=0, duration=durations,
        **settings,
    )  # fmt: skip
    return file.getvalue()


def _with_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    some = frames[:: max(1, len(frames) // 8)]
    strip = Image.new("RGB", (some[0].width, sum(frame.height for frame in some)))
    for i, frame in enumerate(some):
        strip.paste(frame, (0, i * frame.height))
    palette = strip.quantize(256, method=Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _check_side(image: Image.Image, out: str | os.PathLike, kind: str, longest: int) -> None:
    if max(image.size) > longest:
        raise UserError(
            f"{out}: the picture is {image.width} x {image.height} pixels, and {kind} holds "
            f"{longest:,} a side: write a .png, or ask for fewer samples"
        )
