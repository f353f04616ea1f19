"""`biggan look spectra`: what the monitors of a run have written, as the paper's figure 3."""

import math
import re
import sys
from pathlib import Path

from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.pictures import formats, spectra
from biggan_jax.pictures.size import SCREEN, Size
from biggan_jax.storage import json_lines, paths
from biggan_jax.storage.directory import open_directory

_NAME = re.compile(r"monitor/([gd])/([a-z_]+\d?)/(.+)")
DEFAULT = "raw_sigma0"  # the paper's figure 3 is of the weights before spectral normalisation
_MOST = 1e300  # of a number that is drawn
Curves = dict[str, dict[str, tuple[list[int], list[float]]]]


def draw(directory: str | Path, out: Path, *, value: str = DEFAULT, size: Size = SCREEN) -> dict:
    """Draws one value of every layer over training; needs no data and no weights.

    Args:
      directory: a workdir.
      out: `F.png` or another of `pictures.formats`.
      value: a name of the monitors that layers have, such as raw_sigma0, sigma0 or ratio.
      size: of the picture.

    Returns:
      {value, steps: [first, last], layers: {player: count}}.

    Raises:
      UserError: the run has no monitors, or none of this name.
    """
    curves = read(directory, value)
    picture = spectra.over_training(curves, value, size)
    paths.write_bytes(out, formats.encode(picture, out, size.dpi))
    steps = [step for layers in curves.values() for at, _ in layers.values() for step in at]
    return {
        "value": value,
        "steps": [min(steps), max(steps)],
        "layers": {player: len(layers) for player, layers in curves.items()},
    }


def read(directory: str | Path, value: str = DEFAULT) -> Curves:
    """Reads one value of every layer from metrics.jsonl.

    Args:
      directory: a workdir.
      value: as of `draw`.

    Returns:
      {'g' or 'd': {layer: (steps, values)}}, layers in the order in which they were written; NaN
      where a value was not finite. A torn last line is left out.

    Raises:
      UserError: as of `draw`.
    """
    path = open_directory(directory)[0] / "metrics.jsonl"
    curves: Curves = {"g": {}, "d": {}}
    known = set()
    for line in lines_of(path):
        for name, number in line.items():
            found = _NAME.fullmatch(name)
            if found is None:
                continue
            player, kind, layer = found.groups()
            known.add(kind)
            if kind == value:
                steps, values = curves[player].setdefault(layer, ([], []))
                steps.append(line["step"])
                values.append(math.nan if number is None else number)
    if not known:
        raise UserError(
            f"{directory} has no monitors in its metrics.jsonl: train, or go on with a run, by "
            "`biggan train --config CONFIG --workdir DIR --config.monitor_every_steps=100`"
        )
    drawn = {player: layers for player, layers in curves.items() if layers}
    if not drawn:
        raise UserError(
            f"--value {value!r}: the monitors have {', '.join(sorted(known))}"
            f"{did_you_mean(value, known)}"
        )
    return drawn


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    first, last = result["steps"]
    return f"{result['value']} of steps {first:,} to {last:,}"


def lines_of(path: Path) -> list[dict]:
    """The numbers of every line of a metrics.jsonl that has a step; says which are damaged."""
    lines = json_lines.read(path)
    if lines.damaged:
        told = json_lines.told(path, lines.damaged, "cannot be read: left out")
        print(f"warning: {told}", file=sys.stderr)
    return [numbers for numbers in map(_numbers, lines.records) if numbers]


def _numbers(line: dict) -> dict:
    whole = type(line.get("step")) is int
    return {k: v for k, v in line.items() if _is_number(v)} if whole else {}


def _is_number(value) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < _MOST
