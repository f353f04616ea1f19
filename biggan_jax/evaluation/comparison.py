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
      'equal', KIDs within two standard errors of their difference being equal.

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
        if abs(difference) <= 2 * math.hypot(*errors):
            better = "equal"
        table[name] = {"a": left[name], "b": right[name], "better": better}
    lines = [f"a: {a}", f"b: {b}", f"{'score':<16}{'a':>12}{'b':>12}  better"]
    for name, row in table.items():
        lines.append(f"{name:<16}{row['a']:>12.5g}{row['b']:>12.5g}  {row['better']}")
    result = {"scores": table, "fingerprint": first["protocol"].get("fingerprint")}
    return result, "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json_file.read(path)
        numbers = all(v is None or isinstance(v, int | float) for v in content["scores"].values())
        if numbers and isinstance(content["protocol"], dict):
            return content
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError):
        pass
    raise UserError(
        f"{path} is no result of an evaluation: give a .json of `biggan evaluate --from DIR`"
    )
