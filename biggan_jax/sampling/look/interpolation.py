"""`biggan look interpolate`: from one latent, one class or both to another, still or moving."""

from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError, counts
from biggan_jax.pictures import formats, sheet
from biggan_jax.pictures.size import Size
from biggan_jax.pictures.text import ARROW
from biggan_jax.sampling import forward, latents
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import paths

WHATS = ("z", "class", "both")
ROWS, POINTS, FRAMES = 6, 8, 24
MOST = 512  # images of a row
FRAME_MS, END_MS = 80, 480  # of a moving picture; the ends stay longer


def draw(
    directory: str | Path,
    out: Path,
    *,
    rows: Rows,
    size: Size,
    what: str = "z",
    points: int | None = None,
) -> dict:
    """Draws a path for each row; a `.gif` or `.webp` goes along all of them and back.

    A path of z is a great circle, so that its norm stays typical; one of classes mixes what the
    lookup tables of two classes give.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS` or `ANIMATIONS`.
      rows: which samples, a path each. With 'z' a row has one class, otherwise row i goes from the
        i-th of the classes to the next one.
      size: of the picture.
      what: 'z', 'class' or 'both'.
      points: images of a path; 8 by default, 24 of a moving picture.

    Returns:
      {step, what, points, rows: [{class, name, to: {class, name}}], animation}.

    Raises:
      UserError: classes that do not exist or are one only, too few points, or an unusable
        directory.

    References:
      Brock et al. 2019, figures 8 and 9.
    """
    moves = formats.is_animation(out)
    points = (FRAMES if moves else POINTS) if points is None else points
    if not 2 <= points <= MOST:
        raise UserError(f"--points is {points}; it must be from 2 to {MOST}")
    generator = rows.load(directory)
    if what != "z" and generator.num_classes == 1:
        raise UserError(
            f"--what {what}: this model has one class, and there is none to go to: write --what z"
        )
    starts, ends = _classes(rows, generator, what)
    number = len(starts)
    z = _latents(rows, generator, number, what, points)
    labels, others = np.repeat(starts, points), np.repeat(ends, points)
    weights = np.tile(np.linspace(0, 1, points, dtype=np.float32), number)
    one = what == "z"
    images = generator(z, labels) if one else _between(generator, z, labels, others, weights)
    shown = rows_lib.cut(images, points)
    names = _names(starts, ends, generator, what)
    write = _write_moving if moves else _write_still
    write(shown, names, out, size)
    found = rows_lib.classes_of(starts, generator)
    if what != "z":
        for row, other in zip(found, ends, strict=True):
            row["to"] = rows_lib.class_of(other, generator)
    shape = {"what": what, "points": points, "animation": moves}
    return {"step": generator.step, **shape, "rows": found}


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    images = counts(result["points"], "image", "images")
    return f"{result['what']} in {images} a path" + " and back" * result["animation"]


def _classes(rows: Rows, generator, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Class ids of the two ends of every row."""
    if what == "z":
        number = rows.number(len(rows.ids(generator, ROWS)) if rows.classes else ROWS)
        ids = np.resize(rows.ids(generator, number), number)
        return ids, ids
    ids = rows.ids(generator, rows.number(ROWS) + 1)
    if len(ids) < 2:
        raise UserError(f"--what {what} goes from one class to another: give two --classes or more")
    number = rows.number(max(1, len(ids) - 1))
    return np.resize(ids, number), np.resize(np.roll(ids, -1), number)


def _latents(rows: Rows, generator, number: int, what: str, points: int) -> np.ndarray:
    """z of all images, [number * points, dim_z]."""
    if what == "class":
        return np.repeat(rows.draw(generator, number), points, axis=0)
    pairs = rows.draw(generator, 2 * number).reshape(number, 2, -1)
    return np.concatenate([latents.great_circle(a, b, np.linspace(0, 1, points)) for a, b in pairs])


def _between(generator, z, labels, others, weights) -> np.ndarray:
    """`LoadedGenerator.between` a batch at a time, so that one program serves any number."""
    rng, size = np.random.default_rng(0), forward.rounded(forward.BATCH_SIZE)
    # Batch statistics are those of a batch of all classes.
    order = rng.permutation(len(z)) if generator.bn_mode == "batch" else np.arange(len(z))
    images = [None] * len(z)
    for start in range(0, len(z), size):
        index = order[start : start + size]
        missing = size - len(index)
        fill = rng.integers(0, generator.num_classes, missing, np.int32)
        made, _ = generator.between(
            np.concatenate([z[index], generator.sample_z(start, missing)]),
            np.concatenate([labels[index], fill]),
            np.concatenate([others[index], fill]),
            np.concatenate([weights[index], np.zeros(missing, np.float32)]),
        )
        for i, image in zip(index, made, strict=False):
            images[i] = image
    return np.stack(images)


def _names(starts: np.ndarray, ends: np.ndarray, generator, what: str) -> list[str] | None:
    """Names of rows for a sheet."""
    found = rows_lib.named(starts, generator)
    if what == "z" or found is None:
        return found
    to = rows_lib.named(ends, generator)
    ids = zip(starts.tolist(), ends.tolist(), strict=True)
    return [rows_lib.joined(a, ARROW, b, i) for a, b, i in zip(found, to, ids, strict=True)]


def _write_still(shown, names: list[str] | None, out: Path, size: Size) -> None:
    rows_lib.write_sheet(sheet.Sheet(shown, names), out, size)


def _write_moving(shown, names: list[str] | None, out: Path, size: Size) -> None:
    """Every frame has all rows side by side, under their names."""
    columns = min(len(shown), 3)
    count = len(shown[0])
    captions = None if names is None else rows_lib.cut(names, columns)
    frames = []
    for i in range(count):
        cells = rows_lib.cut([row[i] for row in shown], columns)
        frames.append(sheet.draw(sheet.Sheet(cells, captions=captions), size))
    there_and_back = [*range(count), *range(count - 2, 0, -1)]
    durations = [END_MS if i in (0, count - 1) else FRAME_MS for i in there_and_back]
    moving = formats.animate([frames[i] for i in there_and_back], out, durations)
    paths.write_bytes(out, moving)
