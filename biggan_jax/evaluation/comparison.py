"""Which of two evaluations is better, score by score; never across two protocols."""

import math
import sys
from pathlib import Path
from typing import Any

from biggan_jax.errors import UserError, some
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
      UserError: a file is no result, the protocols differ (the message names the fields), or no
        score is in both.
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
    if not table:
        raise UserError(
            f"{a} has {some(left, 9) or 'no scores'}, {b} {some(right, 9) or 'no scores'}, and "
            "none that can be ranked is in both: evaluate the two again"
        )
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
        whole = _is_result(content)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is no result of an evaluation: give a .json of `biggan evaluate --from DIR`, "
            "or of `biggan score REAL FAKE --out F.json`"
        )
    held = content.get("deviations", {})
    scores = [name for name in (*LOWER, *HIGHER) if content["scores"].get(name) is not None]
    missing = [name for name in scores if name not in held]
    if content["protocol"].get("seeds") is not None and missing:
        raise UserError(
            f"{path} is of several seeds and holds no deviation of {some(missing)}: evaluate it "
            "again"
        )
    return content


def _is_result(content: Any) -> bool:
    """Whether numbers and a protocol stand where a result has them; any of four errors if not."""
    numbers = all(value is None or _is_number(value) for value in content["scores"].values())
    deviations = content.get("deviations", {}).values()
    numbers &= all(_is_number(value) and value >= 0 for value in deviations)
    return numbers and isinstance(content["protocol"], dict)


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max
