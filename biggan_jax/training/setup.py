"""From a config and a workdir to one `Run`: everything that the loop needs, opened and checked."""

import collections
import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import __version__, data, models
from biggan_jax import config as config_lib
from biggan_jax.config.resume import Change
from biggan_jax.errors import UserError
from biggan_jax.parallel import processes, sharding
from biggan_jax.parallel.signals import StopRequest
from biggan_jax.storage import checkpoint, label_counts, paths, writers
from biggan_jax.storage.directory import open_directory
from biggan_jax.training import build as build_lib
from biggan_jax.training import finetune, optimizers, sample_grid
from biggan_jax.training import state as state_lib
from biggan_jax.training import step as step_lib
from biggan_jax.training.progress import TrainLog
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

SAME_COMMAND = "start all processes with the same command and version"
SHARED = "give all processes the same shared folder as --workdir"
HISTORY = "config_history.jsonl"
LOWER_LR = 2e-4  # at most, in the advice after a NaN: the larger rate of BigGAN and SAGAN


@dataclasses.dataclass
class Run:
    """A run that is ready for its next step.

    As a context it gives the `StopRequest` that ends the loop early, and closes what is open.

    Attributes:
      config: full, with `model.num_classes` and `init_from` filled in.
      workdir: an absolute path.
      train_step: the bound step.
      step: the same jitted: `state, metrics = step(state, batch)`.
      state: of the restored step, or a fresh one; the first step takes its buffers.
      start: finished steps of that state.
      source, batches: the data, and its stream from there on.
      checkpoints, writer, log: where the run is kept and told of.
      meta: what lies beside the arrays of a checkpoint.
    """

    config: ConfigDict
    workdir: Path
    train_step: TrainStep
    step: Callable[[GANState, Any], tuple[GANState, dict]]
    state: GANState
    start: int
    source: data.Source
    batches: data.Batches
    checkpoints: checkpoint.Checkpoints
    writer: writers.MetricWriter
    log: TrainLog
    meta: dict[str, Any]

    @property
    def images_per_step(self) -> int:
        """Real images that one step consumes."""
        return self.config.batch_size * self.config.num_d_steps

    def save(self, done: int, state: GANState) -> None:
        """Saves a state unless it is saved already; its buffers may be donated afterwards."""
        self.writer.flush()  # a resumed run writes no line before its checkpoint
        self.checkpoints.save(done, state, self.meta)

    def __enter__(self) -> StopRequest:
        joined = jax.distributed.is_initialized()
        agreed = multihost_utils.reached_preemption_sync_point if joined else None
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest(agreed))
            # Checkpoints too: an error must not cut the save of an earlier step short.
            for part in (self.checkpoints, self.writer, self.batches, self.log):
                stack.enter_context(contextlib.closing(part))
            self._open = stack.pop_all()
        return stop

    def __exit__(self, *error) -> None:
        self._open.__exit__(*error)


def prepare(config: ConfigDict, workdir: str | Path, *, allow_change: bool = False) -> Run:
    """Checks a config, opens data and workdir, resumes or initialises, and returns the `Run`.

    Args:
      config: a full config; `model.num_classes` is filled from the data when unset.
      workdir: of the run.
      allow_change: continue a run under other rules; `config.resume.CHANGEABLE` names them.

    Raises:
      UserError: for settings or data that do not fit, or a workdir of another run.
      OSError: the workdir cannot be written.
    """
    workdir = paths.absolute(workdir)
    paths.reach(workdir, write=True)
    main = processes.is_main()
    _check_same_command(config)
    mesh = sharding.make_mesh(config.mesh)
    _check_mesh(mesh)
    config_lib.validate(config, mesh.size)
    source, report = _open_data(config, workdir)
    train_step = build_lib.train_step(config, mesh)
    checkpoints = checkpoint.Checkpoints(
        workdir / "checkpoints", keep_latest=config.keep_checkpoints
    )
    changes = _check_workdir(config, workdir, checkpoints, allow_change)
    for line in report.lines() if main else ():
        print(line, file=sys.stderr)
    state, start = _resume_or_init(config, workdir, checkpoints, train_step, report.digest)
    if any(change.key == "seed" for change in changes):
        state = state.replace(key=state_lib.run_key(config.seed, mesh))
    _prepare_workdir(config, workdir, start, changes)
    writer = writers.MetricWriter(workdir, tensorboard=config.tensorboard, active=main)
    writer.cut_after(start)
    batches = data.Batches(
        source,
        seed=config.seed,
        batch_size=config.batch_size,
        num_d_steps=config.num_d_steps,
        flip=config.data.flip,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if main and start == 0:
        sample_grid.save_real(source, batches.batch_at(0), workdir)
    log = TrainLog(
        writer,
        start=start,
        total=config.num_steps,
        log_every_steps=config.log_every_steps,
        images_per_step=config.batch_size * config.num_d_steps,
        active=main,
        remedy=lambda: _remedy(config, workdir, checkpoints),
    )
    meta = {"config": config.to_dict(), "data_digest": report.digest, "version": __version__}
    step = processes.compile_together(step_lib.jit_train_step(train_step))
    return Run(
        config, workdir, train_step, step, state, start, source, batches, checkpoints, writer, log,
        meta,
    )  # fmt: skip


def next_batch(run: Run) -> dict[str, jax.Array]:
    """The next batch of the stream, on the devices; an unconditional model has one label."""
    batch = next(run.batches)
    if run.config.model.num_classes == 1:
        batch["label"] = np.zeros_like(batch["label"])
    return sharding.global_batch(batch, run.train_step.mesh, axis=1)


def report_bad_records(run: Run) -> None:
    """Says how many damaged records were replaced, over all processes."""
    bad_records = sum(processes.gather(run.source.bad_records))
    if bad_records and processes.is_main():
        print(f"data: {bad_records} bad records were replaced", file=sys.stderr)


def _check_same_command(config: ConfigDict) -> None:
    """Raises UserError unless all processes of a run were started with the same command."""
    versions = {"biggan_jax's version": __version__, "jax's version": jax.__version__}
    fields = {f"config.{key}": value for key, value in config_lib.flatten(config).items()}
    processes.check_same("the processes' command", fields | versions, SAME_COMMAND)


def _check_mesh(mesh: Mesh) -> None:
    """Raises UserError unless every process holds as many devices of the mesh."""
    own = collections.Counter(device.process_index for device in mesh.devices.flat)
    counts = [own[i] for i in range(jax.process_count())]
    if len(set(counts)) > 1:
        raise UserError(
            f"the {mesh.size} devices of the mesh are {counts[0]} of process 0 and "
            f"{next(n for n in counts if n != counts[0])} of another: set --config.mesh=(-1,1) to "
            "take all devices, and give every process as many"
        )


def _open_data(config: ConfigDict, workdir: Path) -> tuple[data.Source, data.DataReport]:
    """Opens the data, fills `model.num_classes`, and checks it against the data."""
    models.check_resolution(config.model)
    source = data.open_source(
        config.data.source,
        resolution=config.model.resolution,
        channels=config.model.channels,
        on_bad_record=config.data.on_bad_record,
    )
    cache = paths.cache_folder(workdir)
    report = label_counts.cached_report(source, cache, write=processes.is_main())
    seen = {"digest": report.digest[:12], "number of images": report.examples}
    processes.check_same(f"data.source {config.data.source}", seen, "give all the same data")
    asked = config.model.num_classes
    if asked is None:
        config.model.num_classes = source.num_classes
    elif asked not in (1, source.num_classes):
        raise UserError(
            f"model.num_classes is {asked}, but {config.data.source} has {source.num_classes} "
            f"classes (labels {report.label_min} to {report.label_max}): set "
            f"--config.model.num_classes={source.num_classes} (or 1 for an unconditional model)"
        )
    return source, report


def _check_workdir(
    config: ConfigDict, workdir: Path, checkpoints: checkpoint.Checkpoints, allow_change: bool
) -> list[Change]:
    """Raises UserError unless `workdir` is fresh or holds a run that `config` continues."""
    newest = {"the newest checkpoint": checkpoints.latest_step()}
    processes.check_same(f"--workdir {workdir}", newest, SHARED)
    changes = []
    if checkpoints.latest_step() is not None:
        saved = open_directory(workdir)[1]
        if config.init_from is None:
            config.init_from = saved.init_from  # where it came from need not be said again
        changes = config_lib.check_resume(saved, config, allow_change=allow_change)
    elif config.init_from is not None and paths.same(config.init_from, workdir):
        raise UserError(f"--config.init_from is the workdir {workdir}: choose another --workdir")
    finetune.check(config)
    return changes


def _resume_or_init(
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    train_step: TrainStep,
    digest: str,
) -> tuple[GANState, int]:
    """(state, finished steps): the newest intact checkpoint, or a fresh state.

    Only a fresh state starts with the weights of `config.init_from`.
    """
    mesh = train_step.mesh
    if checkpoints.latest_step() is None:
        if config.init_from is not None:
            return finetune.create(config, train_step), 0
        return state_lib.create(train_step.init, config.seed, mesh), 0
    target = state_lib.abstract(train_step.init, mesh)
    state, meta, start = checkpoints.restore(target, optional=optimizers.is_first_moment)
    if meta["data_digest"] != digest:
        raise UserError(
            f"this workdir was trained on other data (digest {meta['data_digest'][:12]}, now "
            f"{digest[:12]}): restore --config.data.source or choose another --workdir"
        )
    # Corrupt newer checkpoints are set aside only once it is sure that this run goes on.
    checkpoints.discard_after(start)
    if processes.is_main():
        print(f"resuming {workdir} after step {start} of {config.num_steps}", file=sys.stderr)
    return state, start


def _prepare_workdir(config: ConfigDict, workdir: Path, start: int, changes: list[Change]) -> None:
    """Writes config.json, what changed in it, and the sample folder (process 0)."""
    path, history = workdir / "config.json", workdir / HISTORY
    if processes.is_main():
        (workdir / "samples").mkdir(parents=True, exist_ok=True)
        if changes:
            settings = {change.key: {"old": change.old, "new": change.new} for change in changes}
            for change in changes:
                remark = optimizers.remark(change)
                print(f"from step {start} on: {change}{remark}", file=sys.stderr)
            paths.append_text(history, json.dumps({"step": start, "changes": settings}) + "\n")
        paths.write_bytes(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())
    processes.check_shared(path, SHARED)


def _remedy(config: ConfigDict, workdir: Path, checkpoints: checkpoint.Checkpoints) -> str:
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
