"""Images that a user names, as a network sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data.files import read_regular
from biggan_jax.data.images import BadImage, decode_image
from biggan_jax.data.left_out import is_picture
from biggan_jax.errors import UserError


def read_images(given: Sequence[Path], resolution: int, channels: int) -> np.ndarray:
    """Files of pictures, and those of folders in the order of their names.

    Returns:
      uint8 [N, resolution, resolution, channels], cropped to the centred square.

    Raises:
      UserError: for a file that is no readable image, or no file at all.
    """
    files: list[Path] = []
    for path in map(Path, given):
        files += filter(is_picture, sorted(path.iterdir())) if path.is_dir() else [path]
    if not files:
        raise UserError(f"--images {given[0]}: there is no PNG or JPEG file or other picture")
    images = []
    for file in files:
        try:
            images.append(decode_image(read_regular(file), resolution, channels))
        except FileNotFoundError:
            raise UserError(f"--images {file}: no such file") from None
        except (BadImage, OSError) as e:
            why = getattr(e, "strerror", e)  # a pipe or a folder is none either
            raise UserError(f"--images {file} is no readable image: {why}") from e
    return np.stack(images)
