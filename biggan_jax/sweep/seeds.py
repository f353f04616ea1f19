"""A config trained with several seeds by one program, and what they reached, mean and deviation.

The folder holds a workdir `seed_N` for each of them, like that of a run of its own, `seeds.json`
and `seeds.csv`.
"""

import contextlib
import copy
import fnmatch
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from biggan_jax.config import augmentation
from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.parallel import devices, ending, memory, processes, sharding
from biggan_jax.parallel.signals import StopRequest
from biggan_jax.storage import checkpoint, lock, orbax_noise, paths
from biggan_jax.sweep import runs, seed_results
from biggan_jax.training import build, hooks, run_data, seed_forms, seeds, setup, workdir
from biggan_jax.training.seeds import Member

STOPPING = setup.STOPPING.replace("this step is", "this step of all seeds is")
OWN = ("seed_*", seed_results.JSON, seed_results.CSV, "cache", "report")


@orbax_noise.logging_untouched()
def train(
    config: ConfigDict,
    folder: str | Path,
    count: int,
    *,
    form: str | None = None,
    allow_change: bool = False,
) -> dict[str, Any]:
    """Trains a config with `config.seed` and the seeds behind it; continues what is there.

    Args:
      config: a full config; where it asks for no scores, every run is scored at its last step.
      folder: of the workdirs `seed_N`.
      count: of the seeds.
      form: one of `seed_forms.FORMS`; that of `seed_forms.form_of` if absent.
      allow_change: as `training.loop.train` takes it.

    Returns:
      {step, finished, exit_code, seeds [{seed, workdir, state, error, step, images_seen, metrics}],
      scores {name: {mean, deviation, count}}, metrics}: step is that of the run that is furthest
      behind, exit_code 1 where a run has failed, which the others do not notice.

    Raises:
      UserError: for a number of seeds, settings, data or folders that do not fit.
      OSError: the disk is full or read-only; earlier checkpoints are intact.
    """
    folder = paths.absolute(folder)
    form = _check(config, folder, count, form)
    configs = _configs(config, count)
    own = [runs.member(folder, c.seed) for c in configs]
    for member, place in zip(configs, own, strict=True):
        setup.check(member, place)
    _check_room(config, own, configs, form, allow_change)
    with contextlib.ExitStack() as stack:
        members: list[Member] = []
        for member, place in zip(configs, own, strict=True):
            owned = stack.enter_context(lock.held(place))
            one = _open(member, place, owned, members, allow_change)
            members.append(stack.enter_context(one))
        _add_hooks(members)
        stack.enter_context(ending.first(lambda: _what_is_saved(folder)))
        stop = stack.enter_context(StopRequest(None, STOPPING))
        seeds.train(members, form, stop)
    errors = {member.run.config.seed: member.error for member in members}
    found = seed_results.collect(folder, configs, errors)
    seed_results.write(folder, found)
    done = min(member.done for member in members)
    failed = any(errors.values())
    stopped = next((member.exit_code for member in members if member.exit_code), 0)
    setup.report_bad_records(members[0].run)
    return {
        "step": done,
        "finished": not failed and not stopped,
        "exit_code": stopped or int(failed),
    } | found


def _check(config: ConfigDict, folder: Path, count: int, form: str | None) -> str:
    """The form; UserError for what can be refused before anything is opened."""
    runs.check_seeds(count, config.seed)
    if jax.process_count() > 1:
        raise UserError(
            f"--seeds {count}: all seeds train in one process, and this run has "
            f"{jax.process_count()}: leave --seeds out, or start one process"
        )
    if config.guard.action == "rollback":
        raise UserError(
            f"--seeds {count}: no run goes back alone, and guard.action is rollback: set "
            "--config.guard.action=stop, warn or off"
        )
    mesh = sharding.make_mesh(config.mesh)
    a = config.augment
    controlled = augmentation.is_controlled(a.policy, a.probability, a.target)
    own_steps = controlled and a.heuristic == augmentation.HELD_OUT
    if own_steps and form == seed_forms.VMAP:
        raise UserError(
            "--seeds-form vmap takes steps of one kind, and with augment.heuristic=held_out every "
            "run adjusts its own: give --seeds-form turns, or --config.augment.heuristic=signs"
        )
    form = form or (seed_forms.TURNS if own_steps else seed_forms.form_of(mesh))
    if form == seed_forms.VMAP and mesh.size > 1:
        raise UserError(
            f"--seeds-form vmap takes one device, and the mesh has {mesh.size}: set "
            "--config.mesh=1, or leave --seeds-form out"
        )
    _check_folder(folder, count)
    return form


def _check_folder(folder: Path, count: int) -> None:
    """Raises UserError where the workdirs would lie among files of something else."""
    buckets.reach(folder, write=True)
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except NotADirectoryError:
        raise UserError(f"--workdir {folder} is a file: give a folder") from None
    elsewhere = f"--workdir={shlex.quote(str(folder / 'seeds'))}"
    if {"checkpoints", "config.json", "metrics.jsonl"} & set(names):
        raise UserError(
            f"--workdir {folder} holds one run, and --seeds {count} makes a workdir of each seed: "
            f"choose a new folder, such as `{elsewhere}`, or leave --seeds out"
        )
    known = (*OWN, *workdir.BESIDE)
    foreign = [n for n in names if not any(fnmatch.fnmatchcase(n, pattern) for pattern in known)]
    if foreign:
        raise UserError(
            f"--workdir {folder} holds other things ({some(foreign)}): choose a new or an empty "
            f"folder, such as `{elsewhere}`"
        )


def _configs(config: ConfigDict, count: int) -> list[ConfigDict]:
    """The config of every run."""
    found = [copy.deepcopy(config) for _ in range(count)]
    for i, own in enumerate(found):
        own.seed = config.seed + i
    return found


def _check_room(
    config: ConfigDict,
    own: Sequence[Path],
    configs: Sequence[ConfigDict],
    form: str,
    allow_change: bool,
) -> None:
    """Raises UserError where a workdir is that of another run, or the memory too small."""
    full = copy.deepcopy(config)
    run_data.fill_classes(full, run_data.opened(full))
    full.data.source = run_data.data.absolute(full.data.source)
    for member, place in zip(configs, own, strict=True):
        checkpoints = checkpoint.Checkpoints(place / "checkpoints")
        like = copy.deepcopy(full)
        like.seed = member.seed
        workdir.check(like, place, checkpoints, allow_change)
    count, free = len(own), memory.available()
    train_step = build.train_step(full, sharding.make_mesh(full.mesh))
    fits = count if free is None else seed_forms.fitting(train_step, full, form, count, free)
    if fits < count:
        remedy = f"give --seeds {fits} at most" if fits else "lower --config.model.ch"
        raise UserError(
            f"--seeds {count}: {fits} fit into the memory that is free, "
            f"{devices.amount(free)}: {remedy}"
        )


def _open(
    config: ConfigDict, place: Path, owned: lock.Lock, others: Sequence[Member], allow_change: bool
) -> Member:
    """A run that is ready for its next step, with the data and programs of the first one."""
    like = others[0].run if others else None
    if like is not None:
        seed, config = config.seed, copy.deepcopy(like.config)
        config.seed = seed
    run = setup.prepare(config, place, owned, allow_change=allow_change, like=like, speaks=False)
    state, run.state = run.state, None
    return Member(run, (), state, run.start)


def _add_hooks(members: Sequence[Member]) -> None:
    """Gives the runs their hooks; scores of the last step where the config asks for none."""
    added = members[0].run.config.eval_every_steps is None
    for member in members:
        _share_cache(members[0], member)
        config = member.run.config  # config.json stays as that of a run of its own
        config.eval_every_steps = config.num_steps if added else config.eval_every_steps
        try:
            member.hooks = hooks.build(member.run)
        except UserError as error:
            if not added:
                raise
            print(f"note: no scores at the end: {error}", file=sys.stderr)
            added, config.eval_every_steps = False, None
            member.hooks = hooks.build(member.run)


def _share_cache(first: Member, member: Member) -> None:
    """Gives a run what the first one has fitted and measured for its scores."""
    source, target = (paths.cache_folder(m.run.workdir) for m in (first, member))
    if member is first or not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir():
            shutil.copytree(path, place, dirs_exist_ok=True)
        elif not place.exists():
            shutil.copyfile(path, place)


def _what_is_saved(folder: Path) -> str | None:
    if not processes.is_main():
        return None
    return f"what was saved stays in {folder}; the same command continues"
