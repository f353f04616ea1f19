"""The history of a run, from the files of its workdir alone: no data, no weights, no device."""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any

from biggan_jax.config import flatten
from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.evaluation import run_events, run_files, run_sessions
from biggan_jax.evaluation.run_events import Event, changes_of
from biggan_jax.evaluation.run_files import Metrics, Notes
from biggan_jax.evaluation.run_sessions import Session
from biggan_jax.storage import best, lock, paths
from biggan_jax.storage.directory import open_directory, read_config
from biggan_jax.storage.weights import has_weights

LEFT = ("metrics.jsonl", "guard.jsonl", run_sessions.FILE)  # by a run alone
ALSO = ("checkpoints", "samples")  # beside a config.json
ATTEMPTS = 20  # abandoned ones that are read
_SAMPLES = re.compile(r"step_(\d+)\.png")
# Of the monitors only what a section draws: a large network has a thousand values a line.
_MONITORS = re.compile(
    r"monitor/(?:[gd]/(?:raw_)?sigma0/.+|[gd]/gamma/.+|g/gain_(?:min|max)/.+|d/[a-z_]+)"
)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What a rollback abandoned: its metrics and the last of its samples (step, path)."""

    number: int
    metrics: Metrics
    samples: tuple[int, Any] | None


@dataclasses.dataclass(frozen=True)
class Fork:
    """Where a run comes from: directory, step, {setting: (old, new)} and its parent's curves."""

    source: str
    step: int
    changes: dict[str, tuple[Any, Any]]
    metrics: Metrics


@dataclasses.dataclass
class History:
    """A run.

    Attributes:
      directory: its workdir.
      config: {setting with dots: value}; {} where it cannot be read.
      metrics: of the history that led to the present state.
      last: 'step' and 'images_seen' of the last metrics.
      events: of the guard.
      attempts: that rollbacks abandoned.
      fork: where the run comes from; None where it is no fork.
      samples: [(step, path of the picture)].
      real: path of the picture of real images, or None.
      checkpoints: their steps, ascending.
      meta: what lies beside the arrays of the newest checkpoint.
      best: of `best/score.json`.
      changes: [(step, {setting: (old, new)})] of config_history.jsonl.
      followed: [(step, fingerprint of the protocol, scores)] of `biggan evaluate --follow`.
      evaluation: the last result of `biggan evaluate` without a curve or a matrix.
      sessions: every `biggan train`.
      in_use: whether a run is training there now, as far as can be seen.
      labels: number of training images of each class, where a count was kept.
      notes: what could not be read.
    """

    directory: Any
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Metrics = dataclasses.field(default_factory=dict)
    last: dict[str, int] = dataclasses.field(default_factory=dict)
    events: list[Event] = dataclasses.field(default_factory=list)
    attempts: list[Attempt] = dataclasses.field(default_factory=list)
    fork: Fork | None = None
    samples: list[tuple[int, Any]] = dataclasses.field(default_factory=list)
    real: Any = None
    checkpoints: list[int] = dataclasses.field(default_factory=list)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    changes: list[tuple[int, dict]] = dataclasses.field(default_factory=list)
    followed: list[tuple[int, str, dict]] = dataclasses.field(default_factory=list)
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    sessions: list[Session] = dataclasses.field(default_factory=list)
    in_use: bool = False
    labels: list[int] = dataclasses.field(default_factory=list)
    notes: Notes = dataclasses.field(default_factory=Notes)


def read(directory: str | Path) -> History:
    """Reads the history of a run; what cannot be read is noted.

    Args:
      directory: a workdir.

    Raises:
      UserError: it is no workdir.
    """
    directory = _checked(directory)
    run = History(directory)
    notes = run.notes
    run.config = flatten(run_files.document(directory / "config.json", "config.json", notes))
    if not run.config:
        notes.add("without a config.json the page names no settings and no number of steps")
    run.metrics, run.last = run_files.metrics(
        directory / "metrics.jsonl", "metrics.jsonl", notes, is_drawn
    )
    run.events = run_events.read(directory, notes)
    run.attempts = _attempts(directory, notes)
    run.fork = _fork(directory, notes)
    run.samples = _samples(directory / "samples", "samples", notes)
    real = directory / "samples" / "real.png"
    run.real = real if real.is_file() else None
    run.checkpoints = _checkpoints(directory, notes)
    if run.checkpoints:
        name = f"checkpoints/{run.checkpoints[-1]}/meta/metadata"
        meta = run_files.document(directory / name, name, notes).get("meta")
        run.meta = meta if isinstance(meta, dict) else {}
    if run.config:
        _compare(directory, notes)
    name = f"best/{best.SCORE}"
    run.best = run_files.document(directory / name, name, notes)
    run.changes = _resumed(directory, run.fork, notes)
    run.followed = _followed(directory, notes)
    name = "report/evaluation.json"
    run.evaluation = run_files.document(directory / name, name, notes)
    run.sessions = run_sessions.read(directory, notes)
    with contextlib.suppress(OSError):
        run.in_use = lock.is_held(directory)
    run.labels = _labels(directory, run.meta)
    return run


def _compare(directory: Any, notes: Notes) -> None:
    """Notes where config.json is not what the weights were saved with, or does not fit together."""
    try:
        beside = read_config(directory)[2]
        remark = None if beside is None else beside.remark
    except (UserError, OSError) as error:
        remark = str(error)
    if remark is not None:
        notes.add(remark.partition("; put a copy")[0].removeprefix(f"{directory}/"))


def is_drawn(name: str) -> bool:
    """Whether a page shows a metric: of the monitors not all values."""
    return not name.startswith("monitor/") or _MONITORS.fullmatch(name) is not None


def _checked(directory: str | Path) -> Any:
    """The path of a workdir; UserError where it is none."""
    path = paths.workdir_path(directory)
    buckets.reach(path, write=False)
    with buckets.bucket_errors(path):
        names = LEFT + ALSO * (path / "config.json").exists()
        if path.is_dir() and any((path / name).exists() for name in names):
            return path
        if path.is_dir() and not (path / "config.json").exists():
            below = sorted(p.parent for p in path.glob("*/config.json"))
            if below:
                raise UserError(
                    f"{directory} is no workdir, but holds {some(p.name for p in below)}: give one "
                    f"of them, such as {below[0]}, or all of them: `biggan report --sweep "
                    f"{directory}`"
                )
    path, _ = open_directory(directory)  # says what else is wrong
    if not has_weights(path):
        return path  # a run that has not come to its first step
    above = path.parent if (path.parent / "metrics.jsonl").exists() else "and no other folder"
    raise UserError(
        f"{directory} is a model directory, which keeps no history: give the workdir of the run "
        f"that made it, {above}"
    )


def _attempts(directory: Any, notes: Notes) -> list[Attempt]:
    folder = directory / "abandoned"
    found = sorted((int(p.name), p) for p in _listed(folder, notes) if p.name.isdecimal())
    if len(found) > ATTEMPTS:
        notes.add(f"abandoned: of {len(found):,} attempts the last {ATTEMPTS} are shown")
    attempts = []
    for number, path in found[-ATTEMPTS:]:
        name = f"abandoned/{path.name}"
        metrics, _ = run_files.metrics(
            path / "metrics.jsonl", f"{name}/metrics.jsonl", notes, is_drawn
        )
        samples = _samples(path / "samples", f"{name}/samples", notes)
        attempts.append(Attempt(number, metrics, samples[-1] if samples else None))
    return attempts


def _fork(directory: Any, notes: Notes) -> Fork | None:
    if not (directory / "fork.json").exists():
        return None
    record = run_files.document(directory / "fork.json", "fork.json", notes)
    source, step = record.get("from"), record.get("step")
    if not isinstance(source, str) or not run_files.is_step(step):
        if record:
            notes.add("fork.json says no directory and step that this run comes from")
        return None
    name = "fork_metrics.jsonl"
    metrics, _ = run_files.metrics(directory / name, name, notes, is_drawn)
    if not metrics:
        notes.add(f"{name} holds no metrics: the curves of the run before the fork are not shown")
    return Fork(source, step, changes_of(record.get("changes")), metrics)


def _resumed(directory: Any, fork: Fork | None, notes: Notes) -> list[tuple[int, dict]]:
    """[(step, changes)] of the sessions that went on under other settings."""
    found, name = [], "config_history.jsonl"
    for number, line in run_files.objects(directory / name, name, notes):
        step, changes = line.get("step"), changes_of(line.get("changes"))
        if not changes or not run_files.is_step(step):
            notes.add(f"line {number}: it is no change; it is left out", name)
        elif fork is None or (step, changes) != (fork.step, fork.changes):  # told as the fork
            found.append((step, changes))
    return found


def _followed(directory: Any, notes: Notes) -> list[tuple[int, str, dict]]:
    """[(step, fingerprint of the protocol, {score: value})] of a follower, by their steps."""
    found, name = [], "evaluations.jsonl"
    for number, line in run_files.objects(directory / name, name, notes):
        step, scores, protocol = (line.get(key) for key in ("step", "scores", "protocol"))
        if isinstance(scores, dict) and isinstance(protocol, dict) and run_files.is_step(step):
            values = {key: run_files.as_number(value) for key, value in scores.items()}
            whole = {key: value for key, value in values.items() if value is not None}
            found.append((step, str(protocol.get("fingerprint"))[:40], whole))
        else:
            notes.add(f"line {number}: it is no evaluation; it is left out", name)
    return sorted(found, key=lambda one: one[0])


def _samples(folder: Any, name: str, notes: Notes) -> list[tuple[int, Any]]:
    found = [(_SAMPLES.fullmatch(path.name), path) for path in _listed(folder, notes)]
    return sorted((int(match[1]), path) for match, path in found if match and len(match[1]) < 17)


def _checkpoints(directory: Any, notes: Notes) -> list[int]:
    names = [path.name for path in _listed(directory / "checkpoints", notes)]
    return sorted(int(name) for name in names if name.isdecimal() and len(name) < 17)


def _listed(folder: Any, notes: Notes) -> list[Any]:
    """What a folder holds, in the order of the names; nothing where it is absent."""
    try:
        with buckets.bucket_errors(folder):
            return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        notes.add(f"{folder.name} cannot be listed: {run_files.reason(error)}")
        return []


def _labels(directory: Any, meta: dict[str, Any]) -> list[int]:
    """The counts that `storage.label_counts` keeps of data whose labels take long to read."""
    stamp = meta.get("data_stamp")
    if not isinstance(stamp, str) or not re.fullmatch("[0-9a-f]{32,}", stamp):
        return []
    path = paths.cache_folder(directory) / f"labels-{stamp[:32]}.json"
    counts = run_files.document(path, path.name, Notes()).get("histogram")  # a cache is no loss
    whole = isinstance(counts, list) and all(run_files.is_step(n) for n in counts)
    return counts if whole else []
