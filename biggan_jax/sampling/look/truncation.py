"""`biggan look truncation`: fidelity against variety, one z along the thresholds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.models import latents
from biggan_jax.pictures.sheet import Sheet
from biggan_jax.pictures.size import Size
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import truncation_statistics as statistics

THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
ROWS = 6
TITLE = "truncation threshold"


def draw(
    directory: str | Path,
    out: Path,
    *,
    rows: Rows,
    size: Size,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict:
    """Draws a row for each z: under every threshold, and without one at the right end.

    What lies within the threshold stays as it is; what lies outside is redrawn, and the redrawn
    value is a continuous function of the threshold. Standing statistics are taken anew for each
    threshold, as the paper does; the statistics of an import of pretrained-biggan are its own.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples, a row each; 6 by default. Their own truncation is not looked at.
      size: of the picture.
      thresholds: above 0.

    Returns:
      {step, thresholds: ascending, null for none, classes: [{class, name}] of the rows}.

    Raises:
      UserError: latents that cannot be truncated, a class that does not exist, or an unusable
        directory.

    References:
      Brock et al. 2019, section 3.1 and figure 2a.
    """
    generator = dataclasses.replace(rows, truncation=None).load(directory)
    for threshold in thresholds:
        latents.check_truncation(threshold, generator.config.model.z_distribution)
    levels = [*sorted(set(thresholds)), None]
    # Statistics that depend on the threshold.
    several = rows.bn_mode == "standing" or statistics.has_rows(directory)
    columns, labels = [], np.zeros(0, np.int32)
    zs = []
    for level in levels:
        here = dataclasses.replace(rows, truncation=level, step=rows.step)
        z, labels = here.latents(generator, ROWS)
        zs.append(z)
        if several:
            columns.append(here.load(directory)(z, labels))
    if not several:  # one call: programs of one size
        images = generator(np.concatenate(zs), np.tile(labels, len(levels)))
        columns = rows_lib.cut(images, len(labels))
    shown = np.stack(columns, axis=1)
    headings = [*(f"{t:g}" for t in levels[:-1]), "none"]
    page = Sheet(shown, rows_lib.named(labels, generator), columns=headings, title=TITLE)
    rows_lib.write_sheet(page, out, size)
    classes = rows_lib.classes_of(labels, generator)
    return {"step": generator.step, "thresholds": levels, "classes": classes}


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    levels = ", ".join(f"{t:g}" for t in result["thresholds"][:-1])
    return f"one z a row, truncated at {levels} and not at all"
