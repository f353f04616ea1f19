"""From a config and a workdir to one `Run`: everything that the loop needs, opened and checked."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import __version__, data, models
from biggan_jax import config as config_lib
from biggan_jax.config import effect
from biggan_jax.data import buckets
from biggan_jax.parallel import devices, ending, processes, sharding
from biggan_jax.parallel.signals import StopRequest
from biggan_jax.storage import checkpoint, guard_log, lock, paths, writers
from biggan_jax.training import build as build_lib
from biggan_jax.training import fork as fork_lib
from biggan_jax.training import guard as guard_lib
from biggan_jax.training import held_out_images, jitted, rollback, run_data, sample_grid
from biggan_jax.training import origin as origin_lib
from biggan_jax.training import step as step_lib
from biggan_jax.training import workdir as workdir_lib
from biggan_jax.training.guard import Guard
from biggan_jax.training.progress import TrainLog
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

STOPPING = "interrupted: this step is finished and saved; Ctrl-C again ends at once"
SAME_COMMAND = "start all processes with the same command and version"


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
      owned: the lock of the workdir.
      report: about the data.
      guard: which judges the run; None where it is off.
      program: the jitted step alone, which runs of other seeds share.
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
    writer: writers.Writers
    log: TrainLog
    meta: dict[str, Any]
    owned: lock.Lock
    report: data.DataReport
    guard: Guard | None
    program: Callable

    @property
    def images_per_step(self) -> int:
        """Real images that one step consumes."""
        return self.config.batch_size * self.config.num_d_steps

    @property
    def parts(self) -> tuple:
        """What is open, in its order."""
        return self.checkpoints, self.writer, self.batches, self.log

    def save(self, done: int, state: GANState, *, planned: bool = True) -> None:
        """Saves a state unless it is saved already; its buffers may be donated afterwards.

        A step that is not `planned`, at which a signal stopped the run, is none that the guard goes
        back to: a run that was never stopped would not have it.
        """
        self.owned.check()
        self.writer.flush()  # a resumed run writes no line before its checkpoint
        meta = self.meta
        if self.guard is not None:
            if planned:
                self.guard.saved(done)
            self.checkpoints.pinned = self.guard.healthy
            meta = meta | {"guard": self.guard.to_json()}
        self.checkpoints.save(done, state, meta)

    def __enter__(self) -> StopRequest:
        main = processes.is_main()
        joined = jax.distributed.is_initialized()
        agreed = multihost_utils.reached_preemption_sync_point if joined else None
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest(agreed, STOPPING if main else None))
            stack.enter_context(ending.first(self._what_is_saved))
            # Checkpoints too: an error must not cut the save of an earlier step short.
            for part in self.parts:
                stack.enter_context(contextlib.closing(part))
            self.log.begin()
            self._open = stack.pop_all()
        return stop

    def _what_is_saved(self) -> str | None:
        if not processes.is_main():
            return None
        step = self.checkpoints.latest_step()
        saved = "nothing" if step is None else f"step {step}"
        return f"{saved} is saved in {self.workdir}; the same command continues"

    def __exit__(self, *error) -> None:
        self._open.__exit__(*error)


def check(config: ConfigDict, workdir: str | Path, fork: str | None = None) -> Path:
    """Checks what can be known before a workdir is locked and its data are opened.

    Args:
      config: a full config.
      workdir: of the run.
      fork: see `prepare`.

    Returns:
      The workdir as an absolute path.

    Raises:
      UserError: for settings that do not fit each other or the devices, or an unusable workdir.
    """
    workdir = paths.absolute(workdir)
    buckets.reach(workdir, write=True)
    _check_same_command(config, fork)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_even(mesh)
    config_lib.validate(config, mesh.size)
    models.check_resolution(config.model)
    writers.check(config)
    processes.together(lambda: workdir_lib.check_place(workdir) if processes.is_main() else None)
    return workdir


def prepare(
    config: ConfigDict,
    workdir: Path,
    owned: lock.Lock,
    *,
    allow_change: bool = False,
    fork: str | None = None,
    again: bool = False,
    like: Run | None = None,
    speaks: bool = True,
) -> Run:
    """Opens data and workdir, resumes or initialises, and returns the `Run`.

    Args:
      config: a full config; `model.num_classes` is filled from the data when unset.
      workdir: of the run, as `check` returned it.
      owned: the lock of the workdir.
      allow_change: continue a run under other rules; `config.resume.CHANGEABLE` names them.
      fork: DIR@STEP of the run whose state a fresh run starts with.
      again: after a rollback in this process: what was said of data and devices is not repeated.
      like: a run of the same settings but the seed, whose data and programs this one takes; what
        was said of them is not repeated.
      speaks: whether the run tells of its steps.

    Raises:
      UserError: for settings or data that do not fit, or a workdir of another run.
      OSError: the workdir cannot be written.
    """
    main = processes.is_main()
    mesh = sharding.make_mesh(config.mesh)
    checkpoints = checkpoint.Checkpoints(
        workdir / "checkpoints", keep_latest=config.keep_checkpoints
    )
    origin = origin_lib.find(fork, config, workdir, checkpoints)
    if like is None:
        source, report = run_data.open_source(config, workdir)
        train_step = build_lib.train_step(config, mesh)
    else:
        source, report, train_step = like.source, like.report, like.train_step
    forked = origin is not None
    changes = workdir_lib.check(config, workdir, checkpoints, allow_change, forked)
    if not again and like is None:
        _tell(config, mesh, report)
    meta = {"config": config.to_dict(), "version": __version__}
    meta |= {"data_digest": report.digest, "data_stamp": source.stamp()}
    own = (config, workdir, checkpoints, train_step, source)
    if forked:
        state, start, kept = fork_lib.start(origin, *own, meta)
    events = rollback.settle(workdir, checkpoints)
    attempt = guard_log.attempt(events)
    if attempt:
        train_step = build_lib.train_step(rollback.rules(config, attempt), mesh)
    if like is None or train_step is not like.train_step:
        program = processes.compile_together(step_lib.jit_train_step(train_step))
    else:
        program = like.program
    if speaks and not forked and checkpoints.latest_step() is None and config.init_from is None:
        program = jitted.compiled_ahead(program, train_step, config)  # nothing is refused any more
    if not forked:
        state, start, kept = workdir_lib.resume_or_init(*own)
    if attempt:
        rollback.tell(config, attempt)
        state = state.replace(key=rollback.run_key(config, attempt, mesh))
    workdir_lib.write(config, workdir, start, changes)
    seed = rollback.data_seed(config, attempt)
    batches = run_data.batches(config, workdir, source, seed, start)
    if main and (start == 0 or forked):
        sample_grid.save_real(source, batches.batch_at(0), workdir, config)
    events = guard_log.up_to(events, start)
    if main:
        guard_log.write(workdir, events)
    guard = guard_lib.build(config, workdir, events, kept, checkpoints, start)
    writer, log = _logs(config, workdir, checkpoints, start, guard, speaks)
    step = held_out_images.adjusting(program, train_step, config, workdir, source, start)
    return Run(
        config, workdir, train_step, step, state, start, source, batches, checkpoints, writer, log,
        meta, owned, report, guard, program,
    )  # fmt: skip


def _logs(
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    start: int,
    guard: Guard | None,
    speaks: bool,
) -> tuple[writers.Writers, TrainLog]:
    """What is kept and said of every step, without the lines of those that are done again."""
    main = processes.is_main()
    named = writers.of(config)
    open_writers = lambda: writers.Writers(workdir, named, config=config, active=main)
    writer = processes.together(open_writers)
    writer.cut_after(start)
    log = TrainLog(
        writer,
        start=start,
        total=config.num_steps,
        log_every_steps=config.log_every_steps,
        images_per_step=config.batch_size * config.num_d_steps,
        active=main and speaks,
        remedy=lambda: workdir_lib.remedy(config, workdir, checkpoints),
        observe=guard.observe if guard else None,
    )
    return writer, log


def _tell(config: ConfigDict, mesh: Mesh, report: data.DataReport) -> None:
    """Says what a run is about to train on, and with which settings to no effect (process 0)."""
    devices.tell(list(mesh.devices.flat), always=True)
    if not processes.is_main():
        return
    for finding in effect.without(config):
        print(f"note: {effect.line(finding)}", file=sys.stderr)
    for line in report.lines():
        print(line, file=sys.stderr)
    if config.num_steps < config.ema.start_step:
        print(
            f"the average stays a copy of the raw weights: num_steps is {config.num_steps}, below "
            f"ema.start_step, {config.ema.start_step}",
            file=sys.stderr,
        )


def next_batch(run: Run) -> dict[str, jax.Array]:
    """The next batch of the stream, on the devices; an unconditional model has one label."""
    batch = run_data.of_model(next(run.batches), run.config)
    return sharding.global_batch(batch, run.train_step.mesh, axis=1)


def report_bad_records(run: Run) -> None:
    """Says how many damaged records were replaced, over all processes."""
    bad_records = sum(processes.gather(run.source.bad_records))
    if bad_records and processes.is_main():
        print(f"data: {bad_records} bad records were replaced", file=sys.stderr)


def _check_same_command(config: ConfigDict, fork: str | None) -> None:
    """Raises UserError unless all processes of a run were started with the same command."""
    others = {"biggan_jax's version": __version__, "jax's version": jax.__version__}
    others["--fork"] = fork
    fields = {f"config.{key}": value for key, value in config_lib.flatten(config).items()}
    processes.check_same("the processes' command", fields | others, SAME_COMMAND)
