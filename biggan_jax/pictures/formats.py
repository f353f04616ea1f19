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


def encode(image: Image.Image, out: str | os.PathLike) -> bytes:
    """Gives the contents of a picture's file.

    Args:
      image: the picture, in mode 'L' or 'RGB'.
      out: the file, whose suffix says the format: one of `FORMATS`.

    Returns:
      What `storage.paths.write_bytes` writes, for instance.

    Raises:
      UserError: the picture is larger than the format allows.
    """
    kind, settings, longest = FORMATS[PurePath(out).suffix.lower()]
    if max(image.size) > longest:
        raise UserError(
            f"{out}: the picture is {image.width} x {image.height} pixels, and {kind} holds "
            f"{longest:,} a side: write a .png, or ask for fewer samples"
        )
    file = io.BytesIO()
    image.save(file, format=kind, **settings)
    return file.getvalue()
