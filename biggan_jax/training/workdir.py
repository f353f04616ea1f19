"""The workdir of a run: checked, continued, and written to."""

import fnmatch
import itertools
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax import data
from biggan_jax.config import resume
from biggan_jax.config.resume import Change
from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import checkpoint, hub, json_file, paths, steps
from biggan_jax.storage.directory import read_config
from biggan_jax.training import finetune, fork, origin, run_data
from biggan_jax.training import state as state_lib
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

SHARED = "give all processes the same shared folder as --workdir"
HISTORY = resume.HISTORY
LOWER_LR = 2e-4  # at most, in the advice after a NaN: the larger rate of BigGAN and SAGAN

# What a run, a scheduler or a supervisor puts there, and what may lie beside it.
OWN = ("config.json", "checkpoints", "metrics.jsonl", "samples", "report", "guard.jsonl", "lock")
OWN += ("abandoned", "cache", "best*", "evaluations*", "events.out.tfevents*", HISTORY)
OWN += (origin.RECORD, fork.METRICS)
BESIDE = (".*", "log", "logs", "pid", "code", "lost+found")
BESIDE += tuple(f"*.{end}" for end in ("log", "out", "err", "txt", "md", "py", "sh", "pid"))


def check_place(workdir: Path) -> None:
    """Raises UserError where a new run would scatter its files among those of something else."""
    try:
        names = sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []
    except NotADirectoryError:
        raise UserError(f"--workdir {workdir} is a file: give a folder") from None
    if "checkpoints" in names:
        return
    elsewhere = f"--workdir={shlex.quote(str(workdir / 'run'))}"
    if "config.json" in names and ("weights" in names or hub.WEIGHTS in names):
        raise UserError(
            f"{workdir} is a model directory, whose config a run would overwrite: choose another "
            f"--workdir, such as `{elsewhere}`, and start from these weights by "
            f"`--config.init_from={shlex.quote(str(workdir))}`"
        )
    if "config.json" in names and _is_config(workdir / "config.json"):
        return
    known = (*(name for name in OWN if name != "config.json"), *BESIDE)
    foreign = [n for n in names if not any(fnmatch.fnmatchcase(n, pattern) for pattern in known)]
    if foreign:
        raise UserError(
            f"--workdir {workdir} holds other things ({some(foreign)}): choose a new or an empty "
            f"folder, such as `{elsewhere}`"
        )


def _is_config(path: Path) -> bool:
    """Whether a config.json is one of ours."""
    try:
        return isinstance(json_file.read(path)["model"], dict)
    except (ValueError, TypeError, KeyError):
        return False


def check(
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    allow_change: bool,
    forked: bool = False,
) -> list[Change]:
    """Raises UserError unless `workdir` is fresh or holds a run that `config` continues."""
    newest = {"the newest checkpoint": checkpoints.latest_step()}
    processes.check_same(f"--workdir {workdir}", newest, SHARED)
    changes = []
    if checkpoints.latest_step() is not None:
        _, saved, beside = read_config(workdir)
        if config.init_from is None:
            config.init_from = saved.init_from  # where it came from need not be said again
        try:
            changes = config_lib.check_resume(saved, config, allow_change=allow_change)
        except UserError as error:
            if beside is not None and beside.remark and _continues(beside.config, config):
                raise UserError(beside.remark) from error  # it is the file that is wrong
            raise UserError(f"{workdir / 'config.json'}: {error}") from error
        # Written there by a run that was killed before it saved, by hand, or by a bad disk.
        unsaved = resume.rules_changed(beside.config, saved) if beside and not changes else []
        for change in unsaved if processes.is_main() else ():
            step = checkpoints.latest_step()
            print(f"by config.json, from step {step} on: {change}", file=sys.stderr)
    elif config.init_from is not None and not forked:  # a fork is that of its origin
        _check_start(config.init_from, workdir)
    finetune.check(config)
    return changes


def _check_start(init_from: str, workdir: Path) -> None:
    """Raises UserError unless a fresh run can start from a directory: before anything is said."""
    directory, step = steps.split(init_from)
    if paths.same(directory, workdir):
        raise UserError(f"--config.init_from is the workdir {workdir}: choose another --workdir")
    try:
        steps.find(directory, step)
    except UserError as error:
        raise UserError(f"--config.init_from={init_from}: {error}") from error


def _continues(saved: ConfigDict, config: ConfigDict) -> bool:
    try:
        return not config_lib.check_resume(saved, config)
    except UserError:
        return False


def resume_or_init(
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    train_step: TrainStep,
    source: data.Source,
) -> tuple[GANState, int, dict[str, Any]]:
    """(state, finished steps, its meta): the newest intact checkpoint, or a fresh state.

    Only a fresh state starts with the weights of `config.init_from`.
    """
    mesh = train_step.mesh
    if checkpoints.latest_step() is None:
        if config.init_from is not None:
            return finetune.create(config, train_step), 0, {}
        return state_lib.create(train_step.init, config.seed, mesh), 0, {}
    target = state_lib.abstract(train_step.init, mesh)
    state, meta, start = checkpoints.restore(target, optional=state_lib.is_optional)
    run_data.check_resumed(meta, source)
    if start > config.num_steps:
        raise UserError(
            f"{workdir} has finished {start} steps already, and num_steps is {config.num_steps}: "
            f"set --config.num_steps to more than {start} to go on, or choose another --workdir"
        )
    # Corrupt newer checkpoints are set aside only once it is sure that this run goes on.
    checkpoints.discard_after(start)
    if processes.is_main():
        print(f"resuming {workdir} after step {start} of {config.num_steps}", file=sys.stderr)
    state = state_lib.continued(state, start, meta.get("config", {}), config, mesh)
    return state, start, meta


def write(config: ConfigDict, workdir: Path, start: int, changes: list[Change]) -> None:
    """Writes config.json, what changed in it, and the sample folder (process 0)."""
    path, history = workdir / "config.json", workdir / HISTORY
    if processes.is_main():
        (workdir / "samples").mkdir(parents=True, exist_ok=True)
        if changes:
            for change in changes:
                remark = state_lib.remark(change)
                print(f"from step {start} on: {change}{remark}", file=sys.stderr)
            paths.append_text(history, resume.history_line(start, changes))
        paths.write_bytes(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())
    processes.check_shared(path, SHARED)


def remedy(config: ConfigDict, workdir: Path, checkpoints: checkpoint.Checkpoints) -> str:
    """What to put behind the same command after a NaN, which a mere repetition would meet again."""
    rates = {key: config.optimizer[key] for key in ("g_lr", "d_lr")}
    lower = " ".join(
        f"--config.optimizer.{key}={min(rate / 10, LOWER_LR):.3g}" for key, rate in rates.items()
    )
    seed = f"--config.seed={(config.seed + 1) % 2**32}"
    step = checkpoints.latest_step()
    if step is None:
        return f"repeat the command with `{lower}` for lower learning rates, or with `{seed}`"
    copies = (workdir.with_name(f"{workdir.name}-{i}") for i in itertools.count(2))
    fresh = next(path for path in copies if not path.exists())
    return (
        f"repeat the command with `--allow-change {lower}` to go on from step {step} with lower "
        f"learning rates, or with `--allow-change {seed}`; where that step has diverged already, "
        f"start anew with `--workdir={shlex.quote(str(fresh))} {lower}`"
    )
