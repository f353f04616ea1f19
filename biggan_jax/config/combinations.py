"""Every combination of `key=a,b,c` lists of overrides."""

import itertools
import re
from collections.abc import Sequence

from biggan_jax.errors import UserError


def parse(axes: Sequence[str]) -> list[dict[str, str]]:
    """All combinations, the last axis varying fastest.

    Args:
      axes: `key=a,b,c` each; commas inside parentheses or brackets belong to a value, as in
        `remat=(64,128),(128,)`.

    Returns:
      [{key: value}, ...]; [{}] without axes.

    Raises:
      UserError: for an axis without a key or without values, or a key given twice.
    """
    values: dict[str, list[str]] = {}
    for axis in axes:
        key, _, text = axis.partition("=")
        key = key.removeprefix("--").removeprefix("config.")
        found = [v.strip() for v in re.split(r",(?![^()\[\]]*[)\]])", text)]
        if not key or not all(found):
            raise UserError(f"--sweep {axis!r}: write it as --sweep KEY=A,B,C")
        twice = [value for value in found if found.count(value) > 1]
        if twice:
            raise UserError(f"--sweep {axis!r} has {twice[0]} twice: leave one out")
        if key in values:
            raise UserError(f"--sweep {key} is given twice: put all its values into one")
        values[key] = found
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
