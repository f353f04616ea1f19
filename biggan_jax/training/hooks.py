"""What happens every so many steps of a run: monitors, saving, sample grids, scores.

To add one, write a function that returns an `Every` and name it in `build`.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence

import jax

from biggan_jax.evaluation import evaluate
from biggan_jax.parallel import processes, sharding
from biggan_jax.storage import best
from biggan_jax.training import diversity, monitor_images, monitors, origin, sample_grid, signals
from biggan_jax.training.setup import Run
from biggan_jax.training.state import GANState


@dataclasses.dataclass(frozen=True)
class Every:
    """An action of every `steps` steps.

    Attributes:
      steps: generator updates between two of them; None never.
      action: `action(done, state)`, called by all processes of a run, with the number of finished
        steps and their state, which it must not keep: the next step takes its buffers.
      last_step: of the run, where the action is taken too; None takes no notice of the end.
      reads_metrics: whether the metrics of this very step are read first, which ends a run whose
        metrics are not finite.
      is_finished: `is_finished(done)`: whether what the action leaves of a step is there. A run
        that was killed between a save and the end of the action takes it again when it resumes.
    """

    steps: int | None
    action: Callable[[int, GANState], None]
    last_step: int | None = None
    reads_metrics: bool = True
    is_finished: Callable[[int], bool] = lambda done: True

    def is_due(self, done: int) -> bool:
        """Whether the action is taken after so many finished steps."""
        return done == self.last_step or (self.steps is not None and done % self.steps == 0)


def build(run: Run) -> Sequence[Every]:
    """The hooks of a run, in their order: a state is saved before anything slow is done with it.

    What is measured of it comes first, so that a checkpoint never lacks the line of its own step.
    """
    return (*monitor(run), *guard(run), save(run), sample(run), *score(run))


def catch_up(hooks: Sequence[Every], start: int, state: GANState) -> None:
    """Takes the actions of the restored step that a kill cut short.

    Args:
      hooks: from `build`.
      start: finished steps of the restored state; nothing was due at 0.
      state: the restored state.
    """
    for hook in hooks:
        if start > 0 and hook.is_due(start) and not processes.from_main(hook.is_finished(start)):
            hook.action(start, state)


def monitor(run: Run) -> Sequence[Every]:
    """What `training.monitors` sees of a state, to metrics.jsonl. Nothing where it is unset."""
    if run.config.monitor_every_steps is None:
        return ()
    images = monitor_images.read(run.source, run.config, run.train_step.mesh)
    measure = monitors.Monitors(run.train_step, images)

    def action(done: int, state: GANState) -> None:
        values = measure(state)
        run.writer.write(done, done * run.images_per_step, values)
        if run.guard is not None:
            run.guard.take(done, signals.of_monitors(values))

    return (Every(run.config.monitor_every_steps, action),)


def guard(run: Run) -> Sequence[Every]:
    """Judges the run, which it may end or send back. Nothing where it is off."""
    if run.guard is None:
        return ()
    section = run.config.guard
    measure = diversity.Diversity(run.train_step, run.config, run.batches)

    def look(done: int, state: GANState) -> None:
        run.guard.take(done, measure(state))

    def judge(done: int, state: GANState) -> None:
        run.guard.judge(done)

    # What is judged are the metrics that were read: no step waits for its own.
    return (
        Every(section.diversity_every_steps, look),
        Every(section.every_steps, judge, reads_metrics=False),
    )


def save(run: Run) -> Every:
    """A checkpoint."""
    return Every(run.config.checkpoint_every_steps, run.save)


def sample(run: Run) -> Every:
    """A grid of samples of the averaged weights, for the same latents each time."""
    draw = sample_grid.sampler(run.train_step, run.config)

    def action(done: int, state: GANState) -> None:
        sample_grid.save(draw(state.ema.variables), done, run.workdir, run.writer, run.config)

    return Every(
        run.config.sample_every_steps,
        action,
        last_step=run.config.num_steps,
        is_finished=lambda done: sample_grid.path(run.workdir, done).exists(),
    )


def score(run: Run) -> Sequence[Every]:
    """Scores of the averaged weights; the best state is copied aside. Nothing where it is unset."""
    if run.config.eval_every_steps is None:
        return ()
    measure = _scorer(run)

    def action(done: int, state: GANState) -> None:
        run.save(done, state)  # before the minutes that scoring may take
        run.checkpoints.wait()  # all of it: whoever is killed meanwhile has this step
        result = measure(state.ema.variables, done)
        # What is best first: the line of the scores says that nothing is left to do.
        best.keep(
            run.workdir,
            done,
            state,
            run.config.to_dict(),
            result["scores"],
            protocol=result["protocol"],
        )
        run.log.scores(done, result["scores"])
        if run.guard is not None:
            run.guard.take(done, signals.of_scores(result["scores"]))

    def is_finished(done: int) -> bool:
        if done == origin.step_of(run.workdir):
            return True  # its metrics are those of the run that it was forked from
        return _written_scores(run, done) is not None

    if run.guard is not None and run.start > 0:
        # The checkpoint was saved before its own scores were known.
        written = processes.from_main(_written_scores(run, run.start))
        run.guard.take(run.start, signals.of_scores(written or {}))
    return (Every(run.config.eval_every_steps, action, is_finished=is_finished),)


def _written_scores(run: Run, done: int) -> dict[str, float] | None:
    """The scores of a step in metrics.jsonl; None where there are none."""
    path = run.workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for record in map(json.loads, lines):
        scores = {k: v for k, v in record.items() if k.startswith("eval/") and v is not None}
        if record["step"] == done and scores:
            return {name.removeprefix("eval/"): value for name, value in scores.items()}
    return None


def _scorer(run: Run) -> Callable[[dict, int], dict]:
    """`evaluate.during_training`, the same result on all processes of a run."""
    measure = evaluate.during_training(run.config, run.source, run.meta["data_digest"], run.workdir)
    # Of weights that lie on many processes each takes the whole.
    whole = processes.compile_together(
        jax.jit(lambda tree: tree, out_shardings=sharding.replicated(run.train_step.mesh))
    )

    def result(variables: dict, done: int) -> dict:
        return processes.from_main(measure(whole(variables), done))

    return result
