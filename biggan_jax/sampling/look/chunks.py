"""`biggan look chunks`: what each chunk of a hierarchical z changes."""

from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.pictures.sheet import Sheet
from biggan_jax.pictures.size import Size
from biggan_jax.pictures.text import COLON
from biggan_jax.sampling import latents
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows

POINTS = 7


def draw(directory: str | Path, out: Path, *, rows: Rows, size: Size, points: int = POINTS) -> dict:
    """Draws a row for each chunk: that chunk goes to the one of another z, all others stay.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples, one by default; each has a row for every chunk, and starts it.
      size: of the picture.
      points: images of a row.

    Returns:
      {step, samples: [{class, name}], chunks: [{chunk, resolution, length, change}]}: the chunk
      enters the block that ends at this resolution, and changes a pixel by this much on average (of
      256 levels) at the end of its row.

    Raises:
      UserError: the model splits no z, a class does not exist, or the directory is unusable.

    References:
      Brock et al. 2019, section 3 and figure 15a.
    """
    if not 2 <= points <= 64:
        raise UserError(f"--points is {points}; it must be from 2 to 64")
    generator = rows.load(directory)
    resolutions = chunk_resolutions(generator)
    z, labels = rows.latents(generator, 1)
    other = generator.sample_z(
        rows.seed, len(z), rows.truncation, rows.truncation_kind, first=len(z)
    )
    length = generator.dim_z // len(resolutions)
    walked, shares = [], np.linspace(0, 1, points)
    for start, end in zip(z, other, strict=True):
        for chunk in range(len(resolutions)):
            part = slice(chunk * length, (chunk + 1) * length)
            path = np.tile(start, (points, 1))
            path[:, part] = latents.great_circle(start[part], end[part], shares)
            walked.append(path)
    images = generator(np.concatenate(walked), np.repeat(labels, points * len(resolutions)))
    shown = images.reshape(len(walked), points, *images.shape[1:])
    names = rows_lib.named(labels, generator)
    of_all = rows_lib.alone(names[0], int(labels[0])) if names and len(z) == 1 else None
    page = Sheet(shown, _labels(names, labels, resolutions), title=of_all)
    rows_lib.write_sheet(page, out, size)
    changes = np.abs(shown[:, -1] - shown[:, 0]).mean(axis=(1, 2, 3)) * 127.5
    changes = changes.reshape(len(z), -1).mean(axis=0)
    return {
        "step": generator.step,
        "samples": rows_lib.classes_of(labels, generator),
        "chunks": [
            {"chunk": i, "resolution": r, "length": length, "change": float(change)}
            for i, (r, change) in enumerate(zip(resolutions, changes, strict=True))
        ],
    }


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    return "\n".join(
        f"chunk {c['chunk']} ({c['length']} numbers, {_where(c['chunk'], c['resolution'])}): "
        f"changes a pixel by {c['change']:.1f} of 256 levels"
        for c in result["chunks"]
    )


def chunk_resolutions(generator) -> list[int]:
    """The resolution at which each chunk of z enters; UserError where z is not split."""
    module = generator.applied[0]
    if not getattr(module, "hierarchical_z", False):
        name = generator.config.model.name
        raise UserError(
            f"this model ({name}) does not split z into chunks, so there are none to look at: "
            "train one that does (model.name biggan with model.hierarchical_z=True), or look at "
            "its directions"
        )
    blocks = sorted(module.attention_widths())  # the resolutions at which the blocks end
    return [blocks[0] // 2, *blocks]


def _where(chunk: int, resolution: int) -> str:
    return f"first layer, {resolution} px" if chunk == 0 else f"block to {resolution} px"


def _labels(names: list[str] | None, ids: np.ndarray, resolutions: list[int]) -> list[str]:
    """Labels of rows; the name of the sample stands before them where there are several.

    Of one sample it is the title.
    """
    where = [_where(i, r) for i, r in enumerate(resolutions)]
    if len(ids) == 1 or names is None:
        return where * len(ids)
    named = zip(names, ids.tolist(), strict=True)
    return [rows_lib.joined(name, COLON, at, (i, None)) for name, i in named for at in where]
