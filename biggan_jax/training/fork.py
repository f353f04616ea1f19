"""Forks: a new run that starts with the whole state of another one, under other settings.

What the state would have become under the old settings is the other run itself, so the two differ
by what was changed and by nothing else: the data of step k are a function of the seed and of k.
"""

import copy
import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax import data
from biggan_jax.config import resume
from biggan_jax.config.resume import Change
from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import checkpoint, events, guard_log, paths
from biggan_jax.storage.digest import named_leaves
from biggan_jax.training import build as build_lib
from biggan_jax.training import origin as origin_lib
from biggan_jax.training import state as state_lib
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

METRICS = "fork_metrics.jsonl"  # the origin's metrics.jsonl as it was at the fork
# Another number of any of them is another shape.
_SIZES = ("model.num_classes", "model.resolution", "model.channels")


def start(
    origin: origin_lib.Origin,
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    train_step: TrainStep,
    source: data.Source,
    meta: dict[str, Any],
) -> tuple[GANState, int, dict[str, Any]]:
    """Makes a workdir that goes on from a state of another run; all processes call it.

    The checkpoint is its last file: until it is whole, the same command starts from the beginning.

    Args:
      origin: from `origin.find`.
      config: of the new run, filled in from its data.
      workdir: of the new run.
      checkpoints: of the new run.
      train_step: the bound step of the new run.
      source: its data.
      meta: what lies beside the arrays of its checkpoints.

    Returns:
      (state, finished steps, meta of its checkpoint).

    Raises:
      UserError: a setting that a fork may not change, or a checkpoint that cannot be read.
      OSError: the workdir cannot be written.
    """
    _check_networks(origin, config, train_step)
    target = state_lib.abstract(train_step.init, train_step.mesh)
    state, saved, step = _restored(origin, target)
    origin_lib.check_length(origin.text, step, config)
    settings = config_lib.from_saved(saved.get("config", origin.config.to_dict()))
    trained_on = saved["data_digest"]
    other_data = trained_on not in (source.digest(), source.earlier_digest())
    with origin_lib.named(origin.text):
        changes = resume.check_fork(settings, config, other_data=other_data)
    state = state_lib.continued(state, step, settings, config, train_step.mesh)
    if processes.is_main():
        _write_files(origin, workdir, step, changes, config)
        # Its rollbacks too: their draw, and what they changed.
        guard_log.write(workdir, saved.get("guard", {}).get("events", []))
    # What another version or part of the program has put beside the arrays goes on with them.
    meta = saved | _guarded(saved, step, changes) | meta
    checkpoints.save(step, state, meta)
    checkpoints.wait()
    if processes.is_main():
        said = "; ".join(f"{change}{state_lib.remark(change)}" for change in changes)
        print(
            f"forked {origin.directory} at step {step}: {said or 'no setting is changed'}",
            file=sys.stderr,
        )
        if other_data:
            print(
                f"data: the fork goes on with other data than it was trained on so far (digest "
                f"{trained_on[:12]}, now {source.digest()[:12]})",
                file=sys.stderr,
            )
    return state, step, meta


def _guarded(saved: dict[str, Any], step: int, changes: list[Change]) -> dict[str, Any]:
    """What the guard of a fork knows: the rollbacks that led to its state, which it can go back to.

    Its signals go on only where they mean the same.
    """
    if "guard" not in saved:
        return {}
    kept = saved["guard"] | {"healthy": [step]}
    same = ("seed", "optimizer.*", "ema.*", "guard.*")
    if any(not any(fnmatch.fnmatchcase(c.key, p) for p in same) for c in changes):
        kept |= {"series": {}, "state": "healthy"}
    return {"guard": kept}


def _check_networks(origin: origin_lib.Origin, config: ConfigDict, train_step: TrainStep) -> None:
    """Raises UserError for settings that make other networks, before anything is read."""
    with origin_lib.named(origin.text):
        changed = [c for c in resume.differing(origin.config, config) if c.key.startswith("model.")]
        guilty = [change for change in changed if change.key in _SIZES]
        if not guilty and changed:
            guilty = _reshaping(changed, origin, config, train_step)
        if guilty:
            place = f"{origin.directory}" + ("" if origin.step is None else f"@{origin.step}")
            raise UserError(
                f"a fork keeps the shapes of the state, which {resume.listed(guilty)} would "
                f"change: leave them as they are, or start from the weights alone by "
                f"`{origin_lib.weights_of(place)}` in place of --fork"
            )


def _reshaping(
    changed: list[Change], origin: origin_lib.Origin, config: ConfigDict, train_step: TrainStep
) -> list[Change]:
    """The changes of the model under which arrays have other shapes, none where all fit."""
    ours = _shapes(train_step)

    def fits(*kept: Change) -> bool:
        """Whether the state is the same without these changes."""
        theirs = copy.deepcopy(config)
        with theirs.unlocked():
            for change in kept:
                theirs.model[change.key.removeprefix("model.")] = change.old
        try:
            return _shapes(build_lib.train_step(theirs, train_step.mesh)) == ours
        except UserError:
            return False  # it needs another one of them

    if fits(*changed):
        return []
    return [change for change in changed if not fits(change)] or changed


def _shapes(train_step: TrainStep) -> dict[str, tuple]:
    leaves = named_leaves(state_lib.abstract(train_step.init))
    return {name: (x.shape, str(x.dtype)) for name, x in leaves.items()}


def _restored(origin: origin_lib.Origin, target: GANState) -> tuple[GANState, dict, int]:
    """(state, meta, step) of the origin, which may be training and removing what it has saved."""
    checkpoints = checkpoint.Checkpoints(origin.directory / "checkpoints")
    passed: dict[int, str] = {}
    while True:
        there = processes.from_main(checkpoints.all_steps())
        left = [s for s in reversed(there) if s not in passed and origin.step in (None, s)]
        if not left:
            raise UserError(f"--fork={origin.text}: {_nothing_left(origin, there, passed)}")
        step, said = left[0], []
        try:
            with origin_lib.named(origin.text):
                return checkpoints.restore(
                    target, step=step, on_warning=said.append, optional=state_lib.is_optional
                )
        except UserError:
            if step in processes.from_main(checkpoints.all_steps()):
                if not said:
                    raise
                passed[step] = said[0]
                if origin.step is None and processes.is_main():
                    print(f"warning: {said[0]}", file=sys.stderr)


def _nothing_left(origin: origin_lib.Origin, there: list[int], passed: dict[int, str]) -> str:
    others = some((s for s in reversed(there) if s not in passed), 12)
    if passed:
        damage = next(iter(passed.values()))
        return f"{damage}; put a copy of it back" + (f", or fork {others}" if others else "")
    if origin.step is None:
        return f"{origin.directory} has no checkpoint any more"
    return (
        f"checkpoint {origin.step} in {origin.directory} has gone, its run keeps the newest ones "
        f"alone: it has {others or 'none'}"
    )


def _write_files(
    origin: origin_lib.Origin, workdir: Path, step: int, changes: list[Change], config: ConfigDict
) -> None:
    """Writes all of a fork but its checkpoint, and removes what was there without one."""
    for name in ("metrics.jsonl", "guard.jsonl", resume.HISTORY):
        with buckets.bucket_errors(workdir):
            (workdir / name).unlink(missing_ok=True)
    events.cut_after(workdir, 0)
    metrics = origin.directory / "metrics.jsonl"
    with buckets.bucket_errors(metrics):
        lines = metrics.read_bytes() if metrics.exists() else b""
    lines = lines[: lines.rfind(b"\n") + 1]  # the last one may be in the making
    paths.write_bytes(workdir / METRICS, lines)
    if changes:
        paths.write_bytes(workdir / resume.HISTORY, resume.history_line(step, changes).encode())
    record = {
        "from": str(origin.directory),
        "step": step,
        "changes": {change.key: [change.old, change.new] for change in changes},
    }
    paths.write_bytes(workdir / origin_lib.RECORD, _json(record))
    paths.write_bytes(workdir / "config.json", _json(config.to_dict()))


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
