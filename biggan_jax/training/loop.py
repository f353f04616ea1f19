"""The training loop."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.storage import lock, orbax_noise
from biggan_jax.training import guard, hooks, run_report, setup
from biggan_jax.training.rollback import RollBack


@orbax_noise.logging_untouched()
def train(
    config: ConfigDict, workdir: str | Path, *, allow_change: bool = False, fork: str | None = None
) -> dict[str, Any]:
    """Trains a GAN; continues the run that `workdir` holds, if any.

    Args:
      config: a full config; `model.num_classes` is filled from the data when unset.
      workdir: directory of config.json, checkpoints/, samples/, metrics.jsonl and event files.
      allow_change: continue a run under other rules; `config.resume.CHANGEABLE` names them.
      fork: DIR@STEP whose whole state a fresh run starts with (`training/fork.py`).

    Returns:
      {step, images_seen, exit_code, metrics, guard {state, rollbacks}, report}: exit_code is 0
      when all steps are done, 130 after Ctrl-C, 75 after SIGTERM; in each case the state is saved.

    Raises:
      UserError: for settings or data that do not fit, a workdir of another run, or one in which
        another run is training.
      NonFiniteError: a metric is not finite; the state of that step is not saved.
      CollapsedError: the guard stops the run.
      OSError: the disk is full or read-only; earlier checkpoints are intact.
    """
    workdir = setup.check(config, workdir, fork)
    with lock.held(workdir) as owned:
        run = setup.prepare(config, workdir, owned, allow_change=allow_change, fork=fork)
        with run_report.written(run) as ending:
            while True:
                try:
                    ending.result = _train(run)
                    return ending.result
                except RollBack as back:
                    owned.check()  # another run may have taken over, whose files these are now
                    run.guard.record(back.event)
                ending.run = run = setup.prepare(config, workdir, owned, again=True)


def _train(run: setup.Run) -> dict:
    config = run.config
    due = hooks.build(run)
    state, done, pending = run.state, run.start, None
    with run as stop:
        hooks.catch_up(due, done, state)
        while done < config.num_steps and not stop.due(done):
            state, metrics = run.step(state, setup.next_batch(run))
            done += 1
            run.log.read(pending)  # of step k - 1, while the device works on step k
            pending = (done, metrics)  # still on the device
            now = [hook for hook in due if hook.is_due(done)]
            if any(hook.reads_metrics for hook in now):
                run.log.read(pending)  # no state is used before its metrics were seen to be finite
                pending = None
            with run.log.paused():
                for hook in now:
                    hook.action(done, state)
        run.log.read(pending)
        if done > run.start:  # nothing is done where a hook has just saved it
            run.save(done, state, planned=done == config.num_steps)
    setup.report_bad_records(run)
    return {
        "step": done,
        "images_seen": done * run.images_per_step,
        "exit_code": stop.exit_code if done < config.num_steps else 0,
        "metrics": run.log.last,
        "guard": guard.summary(run.guard),
    }
