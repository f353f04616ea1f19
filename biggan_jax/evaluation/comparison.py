"""Which of two evaluations is better, score by score; never across two protocols."""

import math
from pathlib import Path
from typing import Any

from biggan_jax.errors import UserError
from biggan_jax.evaluation import protocol
from biggan_jax.storage import json_file

LOWER = ("fid", "intra_fid", "kid")
HIGHER = ("is_mean", "precision", "recall", "density", "coverage", "class_accuracy")


def compare(a: Path, b: Path) -> tuple[dict[str, Any], str]:
    """Ranks two results of `biggan evaluate`.

    Args:
      a: a JSON file, from `--json` or from the report folder.
      b: another.

    Returns:
      {scores {name: {a, b, better}}, fingerprint} and a table for a person. `better` is 'a', 'b' or
      'equal', KIDs within two standard errors of their difference being equal, and of results over
      several seeds scores that differ by no more than both deviations; these then stand in the rows
      as `a_deviation` and `b_deviation`.

    Raises:
      UserError: a file is no result, or the protocols differ; the message names the fields.
    """
    first, second = _read(a), _read(b)
    differing = protocol.differences(first["protocol"], second["protocol"])
    if differing:
        raise UserError(
            f"{a} and {b} have different protocols ({'; '.join(differing)}): evaluate both with "
            "the same settings before comparing them"
        )
    left, right = first["scores"], second["scores"]
    table = {}
    for name in (*LOWER, *HIGHER):
        if left.get(name) is None or right.get(name) is None:
            continue
        difference = left[name] - right[name]
        errors = [scores.get(f"{name}_standard_error") or 0.0 for scores in (left, right)]
        better = "a" if (difference < 0) == (name in LOWER) else "b"
        apart = [result.get("deviations", {}).get(name, 0.0) for result in (first, second)]
        if abs(difference) <= max(2 * math.hypot(*errors), *apart):
            better = "equal"
        table[name] = {"a": left[name], "b": right[name], "better": better}
        if "deviations" in first:
            table[name] |= {"a_deviation": apart[0], "b_deviation": apart[1]}
    lines = [f"a: {a}", f"b: {b}", *_lines(table)]
    result = {"scores": table, "fingerprint": first["protocol"].get("fingerprint")}
    return result, "\n".join(lines)


def _lines(table: dict[str, dict[str, Any]]) -> list[str]:
    """The table for a person."""
    cells = {
        name: [
            f"{row[side]:.5g}"
            + (f" +- {row[f'{side}_deviation']:.2g}" if f"{side}_deviation" in row else "")
            for side in ("a", "b")
        ]
        for name, row in table.items()
    }
    width = max([12, *(2 + len(cell) for pair in cells.values() for cell in pair)])
    out = [f"{'score':<16}{'a':>{width}}{'b':>{width}}  better"]
    for name, (left, right) in cells.items():
        out.append(f"{name:<16}{left:>{width}}{right:>{width}}  {table[name]['better']}")
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json_file.read(path)
        numbers = all(v is None or isinstance(v, int | float) for v in content["scores"].values())
        deviations = content.get("deviations", {}).values()
        numbers &= all(isinstance(v, int | float) and v >= 0 for v in deviations)
        if numbers and isinstance(content["protocol"], dict):
            return content
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError):
        pass
    raise UserError(
        f"{path} is no result of an evaluation: give a .json of `biggan evaluate --from DIR`"
    )
