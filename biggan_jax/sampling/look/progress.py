"""`biggan look progress`: the same latents and classes as training goes on, still or moving."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from biggan_jax.errors import UserError, counts
from biggan_jax.pictures import formats, grids, sheet
from biggan_jax.pictures.size import Size
from biggan_jax.sampling import run_grid
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import paths
from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.directory import open_directory

COLUMNS, MOST_ROWS = 8, 12  # of a still picture
MOST_FRAMES = 240
FRAME_MS, END_MS = 250, 1500


def draw(
    directory: str | Path, out: Path, *, rows: Rows, size: Size, most: int | None = None
) -> dict:
    """Draws a row for each step of a run; a `.gif` or `.webp` shows one after the other.

    Unless other samples are asked for they are those of the run's own grids (`samples/`), which
    also show steps whose checkpoints are gone.

    Args:
      directory: a workdir.
      out: a file of `pictures.formats.FORMATS` or `ANIMATIONS`.
      rows: which samples, a column each; 8 by default. Its step is the last one that is shown.
      size: of the picture.
      most: steps that are shown, spread over all that there are; 12 by default of a still picture.

    Returns:
      {steps: [{step, from: checkpoint or grid}], classes: [{class, name}] of the columns,
      animation}.

    Raises:
      UserError: the directory is no run, or has fewer than two steps to show.
    """
    moves = formats.is_animation(out)
    most = (MOST_FRAMES if moves else MOST_ROWS) if most is None else most
    if not 2 <= most <= MOST_FRAMES:
        raise UserError(f"--most is {most}; it must be from 2 to {MOST_FRAMES}")
    number = rows.number(COLUMNS)
    folder, config = open_directory(directory)
    if not (folder / "checkpoints").is_dir():
        raise UserError(
            f"{directory} is a model directory and holds one state, which shows no progress: give "
            "the workdir of a run"
        )
    last = rows.load(folder)  # says what is wrong with the samples that are asked for
    kept = [s for s in Checkpoints(folder / "checkpoints").all_steps() if s <= last.step]
    cells = _cells(rows, config, number)
    drawn = [] if cells is None else [s for s in run_grid.steps(folder) if s <= last.step]
    steps = _spread(sorted({*kept, *drawn}), most)
    if cells is None:
        z, labels = dataclasses.replace(rows, count=number).latents(last, number)
    else:
        z, labels = run_grid.draw(config)[cells], run_grid.rows(config)[cells // run_grid.GRID]
    made = {}
    for step in steps:
        if step in kept:
            made[step] = grids.to_uint8(_at(rows, folder, step, last)(z, labels))
        elif (images := run_grid.read(folder, step, config)) is not None:
            made[step] = images[cells]
    _write(made, rows_lib.named(labels, last), directory, out, size)
    return {
        "step": last.step,
        "steps": [{"step": s, "from": "checkpoint" if s in kept else "grid"} for s in made],
        "classes": rows_lib.classes_of(labels, last),
        "animation": moves,
    }


def _write(made: dict[int, np.ndarray], names, directory, out: Path, size: Size) -> None:
    """Writes the images of each step, still or moving."""
    if len(made) < 2:
        raise UserError(
            f"{directory} has {counts(len(made), 'step', 'steps')} to show and progress needs "
            "two: train by `biggan train --config.checkpoint_every_steps=100 "
            "--config.keep_checkpoints=20`"
        )
    shown, headings = list(made.values()), [f"step {step:,}" for step in made]
    if formats.is_animation(out):
        _write_moving(shown, headings, names, out, size)
    else:
        rows_lib.write_sheet(sheet.Sheet(shown, headings, columns=names), out, size)


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    steps = [row["step"] for row in result["steps"]]
    from_grids = sum(row["from"] == "grid" for row in result["steps"])
    more = f", {counts(from_grids, 'one', 'of them')} from samples/" if from_grids else ""
    return f"steps {', '.join(f'{s:,}' for s in steps)}{more}"


def _cells(rows: Rows, config: ConfigDict, number: int) -> np.ndarray | None:
    """Which images of the run's grids are shown; None where other samples are asked for."""
    usual = Rows(step=rows.step, count=rows.count)
    height = len(run_grid.rows(config))
    if rows != usual or number > height * run_grid.GRID:
        return None
    columns = -(-number // height)
    across = min(number, height)
    down = np.linspace(0, height - 1, across).round().astype(int)
    return np.add.outer(np.arange(columns), down * run_grid.GRID).ravel()[:number]


def _at(rows: Rows, folder: Path, step: int, last):
    """The generator of one step."""
    return last if step == last.step else dataclasses.replace(rows, step=step).load(folder)


def _spread(steps: list[int], most: int) -> list[int]:
    """At most `most` steps, the first and the last among them."""
    if len(steps) <= most:
        return steps
    return [steps[i] for i in np.linspace(0, len(steps) - 1, most).round().astype(int)]


def _write_moving(shown, headings: list[str], names, out: Path, size: Size) -> None:
    """Every frame has the samples of one step, under their names."""
    number = len(shown[0])
    columns = min(number, 4)
    captions = None if names is None else rows_lib.cut(names, columns)
    frames = []
    for images, heading in zip(shown, headings, strict=True):
        cells = rows_lib.cut(images, columns)
        frames.append(sheet.draw(sheet.Sheet(cells, captions=captions, title=heading), size))
    durations = [FRAME_MS] * (len(frames) - 1) + [END_MS]
    paths.write_bytes(out, formats.animate(frames, out, durations))
