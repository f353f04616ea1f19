"""Images that a user names, as a network sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data.images import BadImage, decode_image
from biggan_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_images(given: Sequence[Path], resolution: int, channels: int) -> np.ndarray:
    """PNG and JPEG files, and those of folders in the order of their names.

    Returns:
      uint8 [N, resolution, resolution, channels], cropped to the centred square.

    Raises:
      UserError: for a file that is no readable image, or no file at all.
    """
    files: list[Path] = []
    for path in map(Path, given):
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [p for p in found if not path.is_dir() or p.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"--images {given[0]}: there is no PNG or JPEG file in it")
    images = []
    for file in files:
        try:
            images.append(decode_image(file.read_bytes(), resolution, channels))
        except FileNotFoundError:
            raise UserError(f"--images {file}: no such file") from None
        except BadImage as e:
            raise UserError(f"--images {file} is no readable image: {e}") from e
    return np.stack(images)
