"""Going back: a run that collapsed continues from its last healthy checkpoint, under other rules.

A rollback is one line of guard.jsonl: once that is written, it has happened. What follows from it
is done by `settle`, in the same process or in one that is started after a kill, before a run goes
on; so a run that was killed in the middle ends as one that was not.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.config import flatten
from biggan_jax.errors import counts
from biggan_jax.parallel import processes
from biggan_jax.storage import checkpoint, guard_log, integrity, json_lines, paths
from biggan_jax.storage.guard_log import Event
from biggan_jax.training import state as state_lib

ABANDONED = "abandoned"  # folder of what was trained and given up: a folder an attempt
TWO_TIME_SCALES = 4.0  # between the players' learning rates in SAGAN and BigGAN
_SAMPLES = re.compile(r"step_0*(\d+)\.png")


class RollBack(Exception):
    """The run is to go on from an earlier step.

    Attributes:
      event: for guard.jsonl.
    """

    def __init__(self, event: Event):
        super().__init__(event["text"])
        self.event = event


def settle(workdir: Path, checkpoints: checkpoint.Checkpoints) -> list[Event]:
    """Reads what happened to a run, and carries a rollback out that was written down.

    All processes of a run call it.

    Args:
      workdir: of the run.
      checkpoints: of the run; those that a rollback gave up are set aside, as `N.discarded`.

    Returns:
      The events of its guard. A damaged guard.jsonl is written anew from what the checkpoints hold
      of it.

    Raises:
      OSError: something could not be written.
    """
    read = lambda: _intact_events(workdir, checkpoints) if processes.is_main() else None
    events = processes.from_main(processes.together(read))
    back = [event for event in events if event["state"] == guard_log.ROLLED_BACK]
    if not back:
        return events
    abandoned, to_step = back[-1]["attempt"], back[-1]["to_step"]
    move = lambda: _move(workdir, abandoned, to_step) if processes.is_main() else None
    processes.together(move)
    later = [step for step in checkpoints.all_steps() if step > to_step]
    goes_on = any(attempt_of(checkpoints, step) == guard_log.attempt(events) for step in later)
    if later and not processes.from_main(goes_on):
        checkpoints.discard_after(to_step)
    return events


def attempt_of(checkpoints: checkpoint.Checkpoints, step: int) -> int | None:
    """The attempt that saved a checkpoint; None where its record is damaged."""
    events = _events_of(checkpoints, step)
    return None if events is None else guard_log.attempt(events)


def rules(config: ConfigDict, attempt: int) -> ConfigDict:
    """The config that an attempt trains with.

    Args:
      config: of the run.
      attempt: rollbacks so far; each multiplies the learning rates by the factor, or only that of
        the faster player where it is more than `TWO_TIME_SCALES` times the other's; the first adds
        R1 where `guard.on_rollback` says so.

    Returns:
      The config itself for attempt 0, else a changed copy.
    """
    if attempt == 0:
        return config
    changed, on = config.copy_and_resolve_references(), config.guard.on_rollback
    rates = changed.optimizer
    for _ in range(attempt):
        fastest = max(rates.g_lr, rates.d_lr)
        for key in ("g_lr", "d_lr"):
            # Slowed down as well, a player that is not to blame would only fall behind.
            if rates[key] * TWO_TIME_SCALES >= fastest:
                rates[key] *= on.lr_factor
    if on.r1 is not None:
        changed.regularizer.r1 = max(on.r1, config.regularizer.r1)
    return changed


def changes(config: ConfigDict, attempt: int) -> dict[str, list[Any]]:
    """What an attempt trains with otherwise than the one before, {setting: [old, new]}."""
    old, new = (flatten(rules(config, k)) for k in (attempt - 1, attempt))
    return {key: [old[key], new[key]] for key in new if old[key] != new[key]}


def tell(config: ConfigDict, attempt: int) -> None:
    """Says what an attempt trains with (process 0)."""
    if not processes.is_main():
        return
    old, new = flatten(config), flatten(rules(config, attempt))
    changed = [f"{key} {new[key]:.4g} for {old[key]:.4g}" for key in new if new[key] != old[key]]
    times = counts(attempt, "rollback", "rollbacks")
    print(f"guard: after {times}: {', '.join(changed) or 'another draw'}", file=sys.stderr)


def run_key(config: ConfigDict, attempt: int, mesh: Mesh) -> jax.Array:
    """The key of a run's latents and labels: another draw for every attempt, where that is set."""
    key = state_lib.run_key(config.seed, mesh)
    return jax.random.fold_in(key, attempt) if _draws_anew(config, attempt) else key


def data_seed(config: ConfigDict, attempt: int) -> int:
    """The seed of the data order: another for every attempt, where that is set."""
    if not _draws_anew(config, attempt):
        return config.seed
    return int(np.random.SeedSequence((config.seed, attempt)).generate_state(1)[0])


def _draws_anew(config: ConfigDict, attempt: int) -> bool:
    return attempt > 0 and config.guard.on_rollback.new_draw


def _events_of(checkpoints: checkpoint.Checkpoints, step: int) -> list[Event] | None:
    try:
        record = integrity.read_record(checkpoints.directory / str(step))
    except integrity.CorruptError:
        return None
    return record["meta"].get("guard", {}).get("events", [])


def _intact_events(workdir: Path, checkpoints: checkpoint.Checkpoints) -> list[Event]:
    """The events of guard.jsonl; where they are damaged, those of the newest checkpoint."""
    events, damaged = guard_log.read(workdir)
    found = (_events_of(checkpoints, step) for step in reversed(checkpoints.all_steps()))
    known = next((kept for kept in found if kept is not None), [])
    if damaged is None and events[: len(known)] == known:
        return events
    if events[: len(known)] != known:
        events = known
    path = paths.workdir_path(workdir) / guard_log.FILE
    where = "lacks events" if damaged is None else f"is damaged at line {damaged}"
    print(f"warning: {path} {where}: written anew from what the checkpoints hold", file=sys.stderr)
    guard_log.write(workdir, events)
    return events


def _move(workdir: Path, attempt: int, to_step: int) -> None:
    """Moves samples and metrics of a given up attempt into a folder of their own."""
    folder = workdir / ABANDONED / str(attempt)
    kept = folder / "metrics.jsonl"  # written last: it says that all is moved
    if kept.exists():
        return
    samples = workdir / "samples"
    for path in sorted(samples.glob("step_*.png")) if samples.exists() else ():
        match = _SAMPLES.fullmatch(path.name)
        if match and int(match[1]) > to_step:
            paths.write_bytes(folder / "samples" / path.name, path.read_bytes())
            path.unlink()
    metrics = workdir / "metrics.jsonl"
    lines = json_lines.read(metrics)
    later = [
        text
        for text, record in zip(lines.texts, lines.records, strict=True)
        if isinstance(record.get("step"), int) and record["step"] > to_step
    ]
    paths.write_bytes(kept, b"".join(text + b"\n" for text in later))
