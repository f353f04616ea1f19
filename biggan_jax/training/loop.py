"""The training loop."""

import collections
import contextlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import __version__, data, models
from biggan_jax import config as config_lib
from biggan_jax.errors import UserError
from biggan_jax.evaluation import evaluate
from biggan_jax.parallel import processes, sharding
from biggan_jax.parallel.signals import StopRequest
from biggan_jax.storage import best, checkpoint, paths, writers
from biggan_jax.storage.directory import open_directory
from biggan_jax.training import build as build_lib
from biggan_jax.training import finetune, sample_grid, step
from biggan_jax.training import state as state_lib
from biggan_jax.training.progress import TrainLog

SAME_COMMAND = "start all processes with the same command and version"
SHARED = "give all processes the same shared folder as --workdir"


def train(config: ConfigDict, workdir: str | Path, *, allow_change: bool = False) -> dict:
    """Trains a GAN; continues the run that `workdir` holds, if any.

    Args:
      config: a full config; `model.num_classes` is filled from the data when unset.
      workdir: directory of config.json, checkpoints/, samples/, metrics.jsonl and event files.
      allow_change: continue a run under other rules; `config.resume.CHANGEABLE` names them.

    Returns:
      {step, images_seen, exit_code, metrics}: exit_code is 0 when all steps are done, 130 after
      Ctrl-C, 75 after SIGTERM; in each case the state is saved.

    Raises:
      UserError: for settings or data that do not fit, or a workdir of another run.
      NonFiniteError: a metric is not finite; the state of that step is not saved.
      OSError: the disk is full or read-only; earlier checkpoints are intact.
    """
    workdir = paths.absolute(workdir)
    paths.reach(workdir, write=True)
    main_process = processes.is_main()
    check_config(config)
    mesh = sharding.make_mesh(config.mesh)
    check_mesh(mesh)
    config_lib.validate(config, mesh.size)
    source, report = open_data(config, workdir)
    train_step = build_lib.train_step(config, mesh)

    checkpoints = checkpoint.Checkpoints(
        workdir / "checkpoints", keep_latest=config.keep_checkpoints
    )
    check_workdir(config, workdir, checkpoints, allow_change)
    for line in report.lines() if main_process else ():
        print(line, file=sys.stderr)
    state, start = resume_or_init(config, workdir, checkpoints, train_step, report.digest)
    prepare_workdir(config, workdir)
    writer = writers.MetricWriter(workdir, tensorboard=config.tensorboard, active=main_process)
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
    if main_process and start == 0:
        sample_grid.save_real(source, batches.batch_at(0), workdir)

    jitted = processes.compile_together(step.jit_train_step(train_step))
    sample = sample_grid.sampler(train_step, config)
    score = scorer(config, mesh, source, report.digest, workdir)
    images_per_step = config.batch_size * config.num_d_steps
    log = TrainLog(
        writer,
        start=start,
        total=config.num_steps,
        log_every_steps=config.log_every_steps,
        images_per_step=images_per_step,
        active=main_process,
    )
    meta = {"config": config.to_dict(), "data_digest": report.digest, "version": __version__}
    done, pending = start, None  # pending: (step, its metrics, still on the device)
    with (
        stop_request() as stop,
        contextlib.closing(checkpoints),  # an error must not cut the save of an earlier step short
        contextlib.closing(writer),
        contextlib.closing(batches),
        contextlib.closing(log),
    ):
        while done < config.num_steps and not stop.due(done):
            batch = sharding.global_batch(next_batch(batches, config), mesh, axis=1)
            state, metrics = jitted(state, batch)
            done += 1
            log.read(pending)  # of step k - 1, while the device works on step k
            pending = (done, metrics)
            save_now = done % config.checkpoint_every_steps == 0
            grid_now = done % config.sample_every_steps == 0 or done == config.num_steps
            eval_now = score is not None and done % config.eval_every_steps == 0
            if save_now or grid_now or eval_now:
                log.read(pending)  # no state is saved before its own metrics were seen to be finite
                pending = None
                with log.paused():
                    scores = score(state.ema.variables, done)["scores"] if eval_now else {}
                    if eval_now:
                        log.scores(done, scores)
                        best.keep(workdir, done, state, config.to_dict(), scores)
                    if save_now or eval_now:
                        writer.flush()  # a resumed run writes no line before its checkpoint
                        checkpoints.save(done, state, meta)
                    if grid_now:
                        sample_grid.save(sample(state.ema.variables), done, workdir, writer)
        log.read(pending)
        if done > start:
            checkpoints.save(done, state, meta)  # nothing to do where the cadence has just saved it
    bad_records = sum(processes.gather(source.bad_records))
    if bad_records and main_process:
        print(f"data: {bad_records} bad records were replaced", file=sys.stderr)
    return {
        "step": done,
        "images_seen": done * images_per_step,
        "exit_code": stop.exit_code if done < config.num_steps else 0,
        "metrics": log.last,
    }


def check_config(config: ConfigDict) -> None:
    """Raises UserError unless all processes of a run were started with the same command."""
    versions = {"biggan_jax's version": __version__, "jax's version": jax.__version__}
    fields = {f"config.{key}": value for key, value in config_lib.flatten(config).items()}
    processes.check_same("the processes' command", fields | versions, SAME_COMMAND)


def check_mesh(mesh: Mesh) -> None:
    """Raises UserError unless every process holds as many devices of the mesh."""
    own = collections.Counter(device.process_index for device in mesh.devices.flat)
    counts = [own[i] for i in range(jax.process_count())]
    if len(set(counts)) > 1:
        raise UserError(
            f"the {mesh.size} devices of the mesh are {counts[0]} of process 0 and "
            f"{next(n for n in counts if n != counts[0])} of another: set --config.mesh=(-1,1) to "
            "take all devices, and give every process as many"
        )


def stop_request() -> StopRequest:
    """What ends the loop early; at the same step in all processes of a run."""
    joined = jax.distributed.is_initialized()
    return StopRequest(multihost_utils.reached_preemption_sync_point if joined else None)


def open_data(config: ConfigDict, workdir: Path) -> tuple[data.Source, data.DataReport]:
    """Opens the data, fills `model.num_classes`, and checks it against the data."""
    models.check_resolution(config.model)
    source = data.open_source(
        config.data.source,
        resolution=config.model.resolution,
        channels=config.model.channels,
        on_bad_record=config.data.on_bad_record,
    )
    report = data.data_report(source, paths.cache_folder(workdir), write=processes.is_main())
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


def check_workdir(
    config: ConfigDict, workdir: Path, checkpoints, allow_change: bool = False
) -> None:
    """Raises UserError unless `workdir` is fresh or holds a run that `config` continues."""
    newest = {"the newest checkpoint": checkpoints.latest_step()}
    processes.check_same(f"--workdir {workdir}", newest, SHARED)
    if checkpoints.latest_step() is not None:
        saved = open_directory(workdir)[1]
        if config.init_from is None:
            config.init_from = saved.init_from  # where it came from need not be said again
        config_lib.check_resume(saved, config, allow_change=allow_change)
    elif config.init_from is not None and paths.same(config.init_from, workdir):
        raise UserError(f"--config.init_from is the workdir {workdir}: choose another --workdir")
    finetune.check(config)


def resume_or_init(
    config: ConfigDict, workdir: Path, checkpoints, train_step: step.TrainStep, digest: str
):
    """(state, finished steps): the newest intact checkpoint, or a fresh state.

    Only a fresh state starts with the weights of `config.init_from`.
    """
    mesh = train_step.mesh
    if checkpoints.latest_step() is None:
        if config.init_from is not None:
            return finetune.create(config, train_step), 0
        return state_lib.create(train_step.init, config.seed, mesh), 0
    target = state_lib.abstract(train_step.init, mesh)
    state, meta, start = checkpoints.restore(target)
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


def prepare_workdir(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json and the sample folder (process 0)."""
    path = workdir / "config.json"
    if processes.is_main():
        (workdir / "samples").mkdir(parents=True, exist_ok=True)
        paths.write_bytes(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())
    processes.check_shared(path, SHARED)


def scorer(config: ConfigDict, mesh: Mesh, source: data.Source, digest: str, workdir: Path):
    """`evaluate.during_training`, the same result on all processes of a run."""
    with processes.main_first():  # it fills the cache
        score = evaluate.during_training(config, source, digest, workdir)
    if score is None:
        return None
    # Of weights that lie on many processes each takes the whole.
    whole = processes.compile_together(
        jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))
    )
    return lambda variables, done: processes.from_main(score(whole(variables), done))


def next_batch(batches: data.Batches, config: ConfigDict) -> dict[str, np.ndarray]:
    """This process's next slice of the stream; an unconditional model has one label."""
    batch = next(batches)
    if config.model.num_classes == 1:
        batch["label"] = np.zeros_like(batch["label"])
    return batch
