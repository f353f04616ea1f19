"""The grids of samples that a run leaves in samples/: latents, classes and files."""

import re
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from biggan_jax.models import latents
from biggan_jax.pictures import grids
from biggan_jax.sampling.classes import spread

GRID = 10  # rows and columns
_FILE = re.compile(r"step_([0-9]{8,})\.png")


def path(workdir: Path, done: int) -> Path:
    """Where the samples of a step are."""
    return workdir / "samples" / f"step_{done:08d}.png"


def steps(workdir: Path) -> list[int]:
    """The steps with a grid, ascending."""
    folder = workdir / "samples"
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(found[1]) for name in names if (found := _FILE.fullmatch(name)))


def rows(config: ConfigDict) -> np.ndarray:
    """The class of every row of a grid, int32: spread over all where they are more."""
    num_classes = config.model.num_classes
    return spread(num_classes, GRID) if num_classes > 1 else np.zeros(GRID, np.int32)


def draw(config: ConfigDict) -> np.ndarray:
    """The latents of a grid, row by row, [rows * GRID, dim_z]."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
    shape = (len(rows(config)) * GRID, config.model.dim_z)
    return np.asarray(latents.sample(key, shape, distribution=config.model.z_distribution))


def read(workdir: Path, done: int, config: ConfigDict) -> np.ndarray | None:
    """The images of a grid.

    Args:
      workdir: of the run, local or in a bucket.
      done: the step.
      config: of the run.

    Returns:
      uint8 [rows * GRID, H, W, C]; None where the file is no such grid.
    """
    side, channels, count = config.model.resolution, config.model.channels, len(rows(config))
    factor = max(1, -(-grids.MIN_SIDE // side))
    pitch = side * factor + grids.PADDING
    try:
        with path(workdir, done).open("rb") as file, Image.open(file) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError):
        return None
    left = pixels.shape[1] - GRID * pitch - grids.PADDING  # names stand there
    if left < 0 or pixels.shape[0] != count * pitch + grids.PADDING:
        return None
    starts = grids.PADDING + np.arange(max(count, GRID)) * pitch
    inside = np.arange(side) * factor
    down = (starts[:count, None] + inside).ravel()
    across = left + (starts[:GRID, None] + inside).ravel()
    cells = pixels[np.ix_(down, across)].reshape(count, side, GRID, side, channels)
    return cells.swapaxes(1, 2).reshape(count * GRID, side, side, channels)
