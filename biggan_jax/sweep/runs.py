"""Sweeps: the same config with different overrides, one workdir each.

Nothing here starts a JAX backend: the accelerators belong to the runs.
"""

import dataclasses
import hashlib
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.config import combinations, config_file
from biggan_jax.config import overrides as overrides_lib
from biggan_jax.errors import UserError
from biggan_jax.storage import json_file

LONGEST_NAME = 120  # characters
END = 2**32  # of the seeds


@dataclasses.dataclass
class Run:
    """One point of a sweep.

    Attributes:
      name: of its folder: its overrides, in any order of the sweep's keys the same.
      workdir: of `biggan train`.
      overrides: {key: value as given}, without those that all runs share.
      arguments: all overrides, as arguments of a command line.
      config: what they make of the config file.
      seeds: how many are trained together, from that of the config on, each in a workdir of its own
        inside `workdir`; None for a single run.
      state: waiting, finished, failed, stopped (its command saved and can continue) or unfinished.
      exit_code: of its command, if it ran; negative for a signal.
      error: the last line that a failed command printed.
    """

    name: str
    workdir: epath.Path
    overrides: dict[str, str]
    arguments: list[str]
    config: ConfigDict
    seeds: int | None = None
    state: str = "waiting"
    exit_code: int | None = None
    error: str | None = None

    @property
    def workdirs(self) -> dict[int, Path]:
        """{seed: the workdir of its run}."""
        first = self.config.seed
        if self.seeds is None:
            return {first: self.workdir}
        return {seed: member(self.workdir, seed) for seed in range(first, first + self.seeds)}


def read_points(path: str | Path) -> list[dict[str, str]]:
    """The points of a file: a line each, `KEY=VALUE KEY=VALUE ...`, quoted as in a shell.

    Args:
      path: a text file; `#` starts a comment.

    Returns:
      [{key: value as written}, ...], at least one.

    Raises:
      UserError: the file is missing, empty or malformed.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"--points {path} cannot be read: {e}") from e
    points = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as e:
            raise UserError(f"--points {path}, line {number}: {e}") from e
        point: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            key = key.removeprefix("--").removeprefix("config.")
            if not key or not equals or key in point:
                why = "is given twice" if key in point else "is not KEY=VALUE"
                raise UserError(f"--points {path}, line {number}: {word!r} {why}")
            point[key] = value
        if point:
            points.append(point)
    if not points:
        raise UserError(
            f"--points {path} has no points: write KEY=VALUE ... on a line for each run"
        )
    return points


def make_runs(
    config: str,
    shared: Sequence[str],
    out: epath.PathLike,
    *,
    sweep: Sequence[str] = (),
    points: str | Path | None = None,
    seeds: int | None = None,
) -> list[Run]:
    """The runs of a sweep: every line of `points` with every combination of `sweep`.

    Args:
      config: a config file.
      shared: overrides of all runs, such as `--config.num_steps=1000`.
      out: folder of their workdirs.
      sweep: `key=a,b,c` each; see `combinations.parse`.
      points: see `read_points`.
      seeds: of every run, for `biggan train --seeds`.

    Returns:
      The runs, none of them started; points in the order of their lines, the last axis of `sweep`
      varying fastest.

    Raises:
      UserError: a setting is unknown, of the wrong type, given twice or out of its domain, or two
        runs are the same.
    """
    if not sweep and points is None:
        raise UserError("nothing to sweep: give --sweep KEY=A,B,C or --points FILE")
    out = epath.Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: choose another folder")
    common = {overrides_lib.key_of(text) for text in shared}
    runs: list[Run] = []
    seen: dict[str, str] = {}  # what a config says -> name of its run
    for listed in [{}] if points is None else read_points(points):
        for axes in combinations.parse(sweep):
            both = sorted(listed.keys() & axes.keys()) or sorted((listed | axes).keys() & common)
            if both:
                raise UserError(
                    f"{both[0]} is given twice: only one of --sweep, --points and --config.* may "
                    "set it"
                )
            run = _make_run(config, shared, out, listed | axes, seeds)
            says = repr(sorted(config_lib.flatten(run.config).items()))
            if says in seen:
                raise UserError(f"{seen[says]!r} and {run.name!r} are the same run: leave out one")
            seen[says] = run.name
            runs.append(run)
    return runs


def member(folder: Path, seed: int) -> Path:
    """The workdir of one of several seeds; a path of the folder's own kind."""
    return folder / f"seed_{seed}"


def check_seeds(count: int, first: int) -> None:
    """Raises UserError unless so many seeds follow each other from one on."""
    if count < 1:
        raise UserError(f"--seeds {count}: give the number of seeds, 1 or more")
    if first + count > END:
        raise UserError(
            f"--seeds {count}: the last seed would be {first + count - 1}, and {END - 1} is the "
            f"largest: give {END - first} at most, or set a lower --config.seed"
        )


def _make_run(
    config: str, shared: Sequence[str], out: epath.Path, point: dict[str, str], seeds: int | None
) -> Run:
    arguments = [*shared, *(f"--config.{key}={value}" for key, value in point.items())]
    loaded = config_file.load(config, arguments)
    # Fewer devices than these no run can have; each checks its own again.
    config_lib.validate(loaded, max(abs(math.prod(loaded.mesh)), 1))
    full = ",".join(f"{key}={point[key]}" for key in sorted(point))
    name = re.sub(r"[^\w.,=+-]+", "-", full, flags=re.ASCII)[:LONGEST_NAME]
    if name != full:  # other values may have become the same
        name += "-" + hashlib.sha256(full.encode()).hexdigest()[:8]
    place = out / name
    if seeds is None and any(place.glob("seed_*/config.json")):
        raise UserError(f"{place} holds several seeds: give --seeds K, or choose another --out")
    if seeds is not None:
        check_seeds(seeds, loaded.seed)
        if (place / "config.json").exists():
            raise UserError(f"{place} holds one run: leave --seeds out, or choose another --out")
    return Run(name, place, point, arguments, loaded, seeds)


def is_finished(run: Run) -> bool:
    """Whether the workdir, or that of every seed, holds this very run with all its steps."""
    flat = config_lib.flatten(run.config)
    return all(_holds(flat | {"seed": seed}, place) for seed, place in run.workdirs.items())


def _holds(new: dict[str, Any], workdir: Path) -> bool:
    """Whether a workdir holds a run of these settings with all its steps."""
    try:
        saved = json_file.read(workdir / "config.json")
        old = config_lib.flatten(config_lib.from_saved(saved))
        filled = ("model.num_classes", "init_from")  # by `train`, where they are unset
        config_lib.check_resume(old, new | {k: old[k] for k in filled if new[k] is None})
    except (OSError, ValueError):
        return False  # nothing there yet, or another run, which `train` will refuse
    # Three seconds that a sweep without workdirs need not wait.
    from biggan_jax.storage import checkpoint

    latest = checkpoint.Checkpoints(workdir / "checkpoints").latest_step()
    return latest is not None and latest >= new["num_steps"]


def collect(runs: Sequence[Run]) -> None:
    """Sets the `state` of runs that were started elsewhere: finished, unfinished or waiting.

    One that failed, as the results of before say, is still that, unless it is training again.
    """
    for run in runs:
        started = any((place / "config.json").exists() for place in run.workdirs.values())
        run.state = "finished" if is_finished(run) else "unfinished" if started else "waiting"
        before = _earlier(run)
        if run.state != "finished" and before.get("state") == "failed" and not _is_used(run):
            run.state, run.error = "failed", before.get("error")
            run.exit_code = before.get("exit_code")


def _is_used(run: Run) -> bool:
    from biggan_jax.storage import lock  # as `_holds`

    return any(lock.is_held(place) for place in run.workdirs.values())


def _earlier(run: Run) -> dict[str, Any]:
    """What results.json says of a run; {} where it says nothing."""
    try:
        rows = json_file.read(run.workdir.parent / "results.json")
        return next((row for row in rows if row["name"] == run.name), {})
    except (OSError, ValueError, TypeError, KeyError):
        return {}
