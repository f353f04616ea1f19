"""`biggan look grid`: samples, a class a row."""

from pathlib import Path

import numpy as np

from biggan_jax.errors import counts
from biggan_jax.pictures.sheet import Sheet
from biggan_jax.pictures.size import Size
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows

CLASSES, COLUMNS = 10, 8  # of a picture when no numbers were asked for
LONE_ROWS = 6  # of a model with one class


def draw(directory: str | Path, out: Path, *, rows: Rows, size: Size, same_z: bool = False) -> dict:
    """Draws samples of some classes.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples; `count` of them of each class, 8 by default. 10 classes, spread over all,
        by default. A model with one class has `count` samples in all, 48 by default.
      size: of the picture.
      same_z: all images of a column have one z.

    Returns:
      {step, classes: [{class, name}], count}.

    Raises:
      UserError: for a class that does not exist, or an unusable directory.
    """
    alone = COLUMNS * LONE_ROWS
    generator = rows.load(directory)
    ids = rows.ids(generator, CLASSES)
    if generator.num_classes == 1:
        number = rows.number(alone)
        labels, columns = np.zeros(number, np.int32), min(number, COLUMNS)
    else:
        columns = rows.number(COLUMNS)
        labels = np.repeat(ids, columns)
    if same_z:
        z = np.tile(rows.draw(generator, columns), (-(-len(labels) // columns), 1))[: len(labels)]
    else:
        z = rows.draw(generator, len(labels))
    shown = rows_lib.cut(generator(z, labels), columns)
    rows_lib.write_sheet(Sheet(shown, rows_lib.named(ids, generator)), out, size)
    classes = rows_lib.classes_of(ids, generator)
    return {"step": generator.step, "classes": classes, "count": len(labels)}


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    of = counts(len(result["classes"]), "class", "classes") if result["classes"] else "one class"
    return f"{counts(result['count'], 'sample', 'samples')} of {of}"
