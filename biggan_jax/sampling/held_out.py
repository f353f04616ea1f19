"""`biggan look held-out`: does D know its training images by heart? What the monitors wrote."""

import math
from collections.abc import Sequence
from pathlib import Path

from biggan_jax.errors import UserError
from biggan_jax.pictures import formats, held_out
from biggan_jax.pictures.size import SCREEN, Size
from biggan_jax.sampling import spectra
from biggan_jax.storage import paths
from biggan_jax.storage.directory import open_directory

NAMES = tuple(f"{what}_{side}" for what in held_out.PANELS for side in held_out.SIDES)
Curves = dict[str, tuple[list[int], list[float]]]


def draw(directories: Sequence[str | Path], out: Path, *, size: Size = SCREEN) -> dict:
    """Draws D's judgement of training and held-out images; needs no data and no weights.

    Args:
      directories: workdirs, each a colour of its own.
      out: `F.png` or another of `pictures.formats`.
      size: of the picture.

    Returns:
      {runs: [{from, steps: [first, last], last: {name: mean of the last measurements}}]}.

    Raises:
      UserError: a run has no held-out images, or no monitors.
    """
    found = {str(directory): read(directory) for directory in directories}
    labels = _labels(list(found))
    picture = held_out.over_training(dict(zip(labels, found.values(), strict=True)), size)
    paths.write_bytes(out, formats.encode(picture, out, size.dpi))
    runs = []
    for directory, curves in found.items():
        steps = curves[NAMES[0]][0]
        last = {name: float(held_out.running_mean(curves[name][1])[-1]) for name in NAMES}
        last = {name: value if math.isfinite(value) else None for name, value in last.items()}
        runs.append({"from": directory, "steps": [steps[0], steps[-1]], "last": last})
    return {"runs": runs}


def read(directory: str | Path) -> Curves:
    """Reads D's judgement from metrics.jsonl.

    Args:
      directory: a workdir.

    Returns:
      {name of `NAMES`: (steps, values)}; NaN where a value was not finite.

    Raises:
      UserError: as of `draw`.
    """
    path = open_directory(directory)[0] / "metrics.jsonl"
    curves: Curves = {name: ([], []) for name in NAMES}
    for line in spectra.lines_of(path):
        for name in NAMES:
            if (value := line.get(f"monitor/d/{name}", ...)) is not ...:
                curves[name][0].append(line["step"])
                curves[name][1].append(math.nan if value is None else value)
    if not all(steps for steps, _ in curves.values()):
        raise UserError(
            f"{directory} has no judgement of held-out images in its metrics.jsonl: train a new "
            "run by `biggan train --config CONFIG --workdir DIR --config.data.holdout=0.1 "
            "--config.monitor_every_steps=100`"
        )
    return curves


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    lines = []
    for run in result["runs"]:
        last = run["last"]
        shown = ", ".join(
            f"{what} {_shown(last[f'{what}_train'])} on training images, "
            f"{_shown(last[f'{what}_held_out'])} on held-out ones"
            for what in held_out.PANELS
        )
        lines.append(f"{run['from']}, step {run['steps'][1]:,}: {shown}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"


def _labels(directories: Sequence[str]) -> list[str]:
    """The folders' own names where these tell them apart."""
    names = [Path(directory).name for directory in directories]
    return names if len(set(names)) == len(names) else list(directories)
