"""The stored table that a suite of timings is held against, one for each machine."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from biggan_jax.errors import UserError
from biggan_jax.planning import machine
from biggan_jax.storage import json_file

STEP_BOUND = 1.1  # times the stored figure that is still no regression
COMPILE_BOUND = 1.5
COMPILE_SECONDS = 1.0  # a program that takes less longer is none either


def default_path(identity: dict[str, Any]) -> Path:
    """Where the table of this machine lies unless an option says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache).expanduser() / "biggan_jax" / "bench"
    return folder / f"{machine.key(identity)}.json"


def load(path: Path) -> dict[str, Any] | None:
    """A stored table; None where there is none.

    Raises:
      UserError: the file is none.
    """
    try:
        table = json_file.read(path)
        rows = table["shapes"]
        if not all(isinstance(row["seconds"], float) for row in rows.values()):
            raise KeyError
        float(table["reference_seconds"]), dict(table["machine"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is no table of bench --suite: remove it, it is made anew") from e
    return table


def save(path: Path, table: dict[str, Any]) -> None:
    """Writes a table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(table, indent=1) + "\n")
    partial.replace(path)


def differences(table: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Keys of the identity in which the machine of a table is another one."""
    return [key for key, value in identity.items() if table["machine"].get(key) != value]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One shape beside its stored figures; ratios are None where nothing is stored.

    Attributes:
      ratio, compile_ratio: measured by stored.
      slower, compiles_slower: whether they are over their bounds.
    """

    ratio: float | None
    compile_ratio: float | None
    slower: bool
    compiles_slower: bool


def judge(
    row: dict[str, Any], stored: dict[str, Any] | None, bound: float, slowdown: float
) -> Verdict:
    """Holds one shape against the table.

    Args:
      row: seconds and compile_seconds (or None) as measured.
      stored: the same of the table, or None.
      bound: see `STEP_BOUND`.
      slowdown: how much longer the machine takes now for a program that does not change; a machine
        that is faster now excuses nothing.

    Returns:
      The verdict.
    """
    if stored is None:
        return Verdict(None, None, False, False)
    allowance = max(1.0, slowdown)
    ratio = row["seconds"] / stored["seconds"]
    now, then = row["compile_seconds"], stored.get("compile_seconds")
    if not now or not then:
        return Verdict(ratio, None, ratio > bound * allowance, False)
    longer = now > COMPILE_BOUND * allowance * then and now > then + COMPILE_SECONDS
    return Verdict(ratio, now / then, ratio > bound * allowance, longer)
