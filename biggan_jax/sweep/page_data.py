"""The runs that a folder holds, as the page of a sweep needs them."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.evaluation import run_files, run_history, run_verdict
from biggan_jax.evaluation.run_files import Curve, Notes
from biggan_jax.evaluation.run_history import History
from biggan_jax.storage import json_file, paths
from biggan_jax.sweep import results, spread

# Settings that runs may have otherwise without being other runs, or that follow from others.
NOT_SHOWN = ("seed", "class_names", "data.class_counts", "init_from", "keep_checkpoints", "report")
NOT_SHOWN += ("writers", "tensorboard", "mesh", "data.on_bad_record", "data.max_pixels")
NOT_SHOWN += ("data.stage", "data.stage_gb")
OTHERS = ("cache", "report", "results.json", "results.csv", "seeds.json", "seeds.csv")
_SEED = re.compile(r"seed_(\d+)")


@dataclasses.dataclass
class Entry:
    """One run of a sweep, or several seeds of it.

    Attributes:
      name: of its folder.
      members: {seed, or None of a single run: its history}.
      reached: {member: `results.last_metrics`}.
      states: {member: `run_verdict.Verdict`}.
      error: why it failed, in one line; None where it did not.
    """

    name: str
    members: dict[int | None, History]
    reached: dict[int | None, dict[str, Any]] = dataclasses.field(default_factory=dict)
    states: dict[int | None, run_verdict.Verdict] = dataclasses.field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        for seed, run in self.members.items():
            self.reached[seed] = results.last_metrics(run.directory)
            self.states[seed] = run_verdict.of(run)
        told = {seed: v for seed, v in self.states.items() if v.state in ("failed", "collapsed")}
        if told and self.error is None:
            seed, verdict = next(iter(told.items()))
            self.error = ("" if seed is None else f"seed {seed}: ") + verdict.sentence

    @property
    def config(self) -> Mapping[str, Any]:
        """{setting with dots: value} of its first member; {} where there is none."""
        return next((run.config for run in self.members.values()), {})

    @property
    def state(self) -> str:
        """That of its members where they agree, else failed or the first that is not finished."""
        states = [verdict.state for verdict in self.states.values()]
        if self.error is not None or not states:
            return "failed"
        return next((state for state in states if state != "finished"), "finished")

    @property
    def step(self) -> int:
        """Finished steps of the member that is furthest behind."""
        return min((verdict.step for verdict in self.states.values()), default=0)

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """{metric: {mean, deviation, count}} of what its members reached, without failed ones."""
        bad = ("failed", "collapsed")
        kept = [seed for seed, verdict in self.states.items() if verdict.state not in bad]
        return spread.over([self.reached[seed]["metrics"] for seed in kept])

    def curve(self, name: str) -> Curve | None:
        """A metric over training: the mean of its members at the steps that all of them have."""
        found = [run.metrics[name] for run in self.members.values() if name in run.metrics]
        if not found:
            return None
        steps = functools.reduce(np.intersect1d, [curve.steps for curve in found])
        values = [curve.values[np.searchsorted(curve.steps, steps)] for curve in found]
        return Curve(steps, np.mean(values, axis=0))


@dataclasses.dataclass
class Sweep:
    """What a folder holds.

    Attributes:
      directory: the folder.
      entries: its runs, those with the best score first.
      keys: the settings in which they differ.
      is_group: whether they are the seeds of one config.
      notes: what could not be read, and what is no run.
    """

    directory: Path
    entries: list[Entry]
    keys: list[str]
    is_group: bool
    notes: Notes


def read(directory: str | Path) -> Sweep:
    """Reads the runs of a folder; what is no run is noted.

    Args:
      directory: of `launch/sweep.py --out`, of `biggan train --seeds`, or any folder of workdirs.

    Raises:
      UserError: there is no such folder, it is the workdir of one run, or it holds no run.
    """
    directory = paths.workdir_path(directory)
    buckets.reach(directory, write=False)
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise UserError(f"--sweep {directory} {what}: give the folder of a sweep's workdirs")
    notes = Notes()
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    entries = [entry for path in folders if (entry := _entry(path, notes)) is not None]
    if not entries and is_run(directory):
        raise UserError(
            f"--sweep {directory} is the workdir of one run: use `biggan report --from {directory}`"
        )
    entries += _failed(directory, entries, notes)
    if not entries:
        held = f", only {some(path.name for path in folders)}" if folders else ""
        raise UserError(
            f"--sweep {directory} holds no run{held}: give a folder in which "
            "`launch/sweep.py` or `biggan train --seeds` has trained"
        )
    is_group = all(_SEED.fullmatch(entry.name) for entry in entries)
    foreign = [p.name for p in folders if p.name not in {e.name for e in entries} | set(OTHERS)]
    if foreign:
        notes.add(f"left out, no runs: {some(foreign, 9)}")
    return Sweep(directory, entries, differing(entries), is_group, notes)


def differing(entries: list[Entry]) -> list[str]:
    """The settings in which runs differ, but for those that make no other run of it."""
    configs = [entry.config for entry in entries if entry.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    varying = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    named = [key for key in varying if key not in NOT_SHOWN]
    return named or [key for key in varying if key == "seed"]


def is_run(path: Path) -> bool:
    """Whether a folder is a workdir, as far as its names tell."""
    if any((path / name).exists() for name in run_history.LEFT):
        return True
    config = path / "config.json"
    return config.exists() and (path / "weights").is_dir() is False


def _entry(path: Path, notes: Notes) -> Entry | None:
    """The run, or the seeds, of a folder; None where it holds neither."""
    if is_run(path):
        run = _history(path, notes)
        return None if run is None else Entry(path.name, {None: run})
    inside = ((_SEED.fullmatch(p.name), p) for p in sorted(path.iterdir()) if p.is_dir())
    found = {int(match[1]): p for match, p in inside if match and is_run(p)}
    members = {seed: _history(p, notes) for seed, p in sorted(found.items())}
    members = {seed: run for seed, run in members.items() if run is not None}
    return Entry(path.name, members) if members else None


def _history(path: Path, notes: Notes) -> History | None:
    try:
        run = run_history.read(path)
    except (UserError, OSError) as error:
        notes.add(f"{path.name} cannot be read: {run_files.reason(error)}")
        return None
    for line in run.notes.lines()[:3]:
        notes.add(f"{path.name}: {line}")
    return run


def _failed(directory: Path, entries: list[Entry], notes: Notes) -> list[Entry]:
    """Adds the last words of runs that failed; those that have left no workdir are returned."""
    path = directory / "results.json"
    text = run_files.text_of(path, path.name, notes)
    try:
        rows = [] if text is None else json_file.parse(text)
        errors = {row["name"]: row["error"] for row in rows if row["state"] == "failed"}
    except (ValueError, TypeError, KeyError):
        notes.add(f"{path.name} cannot be read: it is no list of results")
        return []
    known = {entry.name: entry for entry in entries}
    lost = []
    for name, error in errors.items():
        line = " ".join(str(error or "its command said nothing").split())[:400]
        if name not in known:
            lost.append(Entry(str(name)[:200], {}, error=line))
        elif known[name].state != "finished":
            known[name].error = line
    return lost
