"""`biggan look bn`: the same samples with every kind of batch-norm statistics."""

import dataclasses
from pathlib import Path

import numpy as np

from biggan_jax.pictures import formats, grids
from biggan_jax.pictures.size import DPI, Size
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import networks, paths

CLASSES, COUNT = 5, 5  # of a panel when no numbers were asked for
NARROW = 0.6  # of what the panels would take side by side: below it they stand one below another


def draw(
    directory: str | Path, out: Path, *, rows: Rows, size: Size, standing: dict | None = None
) -> dict:
    """Draws the same samples in every batch-norm mode, averaged and raw weights.

    Args:
      directory: a workdir or a model directory (which may hold one of the weights alone).
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples; `count` of each class, 5 by default, of 5 classes spread over all. With
        weights of its own choice these alone are shown.
      size: of the picture.
      standing: other arguments of `set_bn_mode`; by default its latents are truncated as those of
        the samples.

    Returns:
      {step, modes, weights}.

    Raises:
      UserError: for a class that does not exist, or an unusable directory.

    References:
      Brock et al. 2019, section 3.1 (standing statistics).
    """
    count = rows.number(COUNT)
    like_samples = {"truncation": rows.truncation, "kind": rows.truncation_kind}
    weights = networks.generator_weights(directory, rows.step)
    if rows.ema is not True:
        weights = {rows.ema or "raw": rows.ema}
    panels: list[list] = [[] for _ in weights]
    step, names = rows.step, None
    for row, ema in zip(panels, weights.values(), strict=True):
        generator = dataclasses.replace(rows, step=step, ema=ema, bn_mode="running").load(directory)
        # The other weights are those of the very step, also where a run goes on meanwhile.
        step = step if generator.step is None else generator.step
        ids = rows.ids(generator, CLASSES)
        labels = np.repeat(ids, count)
        z = rows.draw(generator, len(labels))
        names = rows_lib.named(ids, generator) if row is panels[0] else names
        for mode in generator_lib.BN_MODES:
            generator.set_bn_mode(mode, **(like_samples | (standing or {})))
            row.append(grids.grid(generator(z, labels), count, row_labels=names))
    paths.write_bytes(out, formats.encode(_laid_out(panels, list(weights), size), out, size.dpi))
    return {
        "step": generator.step,
        "modes": list(generator_lib.BN_MODES),
        "weights": list(weights),
    }


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    return f"{' and '.join(result['weights'])} weights in the modes {', '.join(result['modes'])}"


def _laid_out(panels: list[list], weights: list[str], size: Size):
    """Panels side by side, or one below another in a narrow picture."""
    modes = list(generator_lib.BN_MODES)
    picture = grids.table(panels, weights, modes)
    if size.width is not None and size.width < NARROW * picture.width * size.dpi / DPI:
        below = [panel for row in panels for panel in row]
        labels = [f"{name} {mode}" for name in weights for mode in modes]
        picture = grids.column(below, labels)
    return size.fitted(picture)
