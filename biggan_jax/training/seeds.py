"""Runs that differ in their seeds alone, trained step by step by one program.

Every run keeps its own state, data order, latents, files and hooks, as if it were trained alone.
"""

import contextlib
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from biggan_jax.errors import spread
from biggan_jax.parallel.signals import StopRequest
from biggan_jax.training import hooks as hooks_lib
from biggan_jax.training import progress, run_data, run_report, seed_forms
from biggan_jax.training.guard import CollapsedError
from biggan_jax.training.progress import NonFiniteError
from biggan_jax.training.setup import Run
from biggan_jax.training.state import GANState

ENDINGS = (NonFiniteError, CollapsedError)  # of one run, which the others survive


@dataclasses.dataclass
class Member:
    """One run of several.

    Attributes:
      run: from `setup.prepare`.
      hooks: from `hooks.build`.
      state: of its last finished step; None while it is in training.
      done: finished steps.
      error: why it has ended before the others; None where it has not.
      exit_code: of the signal that has stopped it; 0 where none has.
    """

    run: Run
    hooks: Sequence[hooks_lib.Every]
    state: GANState | None
    done: int
    error: str | None = None
    exit_code: int = 0

    def __post_init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Member":
        with contextlib.ExitStack() as stack:
            self._ending = stack.enter_context(run_report.written(self.run))
            for part in self.run.parts:
                stack.enter_context(contextlib.closing(part))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._ending.result = {"step": self.done, "exit_code": self.exit_code}
        self._open.__exit__(*error)

    @contextlib.contextmanager
    def ends_alone(self) -> Iterator[None]:
        """A context in which a NaN, or what the guard stops, ends this run and not the others."""
        try:
            yield
        except ENDINGS as error:
            self.error, self.state = " ".join(str(error).split()), None
            print(f"{self.run.workdir}: {self.error}", file=sys.stderr)
            with contextlib.suppress(*ENDINGS):  # it comes back when the report is written
                self._open.__exit__(type(error), error, error.__traceback__)


def train(members: Sequence[Member], form: str, stop: StopRequest) -> None:
    """Trains runs to their last step; those that are behind come first.

    Args:
      members: open runs of the same settings but the seed; their `state`, `done` and `error` are
        kept up to date.
      form: one of `FORMS`.
      stop: ends the training early, with everything saved.
    """
    log = _Log(members)
    with contextlib.closing(log):
        for member in members:
            with member.ends_alone():
                hooks_lib.catch_up(member.hooks, member.done, member.state)
        while left := [m for m in members if m.error is None and m.done < log.total]:
            if stop.due(min(m.done for m in left)):
                for member in left:
                    member.exit_code = stop.exit_code
                break
            behind = min(m.done for m in left)
            until = min((m.done for m in left if m.done > behind), default=log.total)
            _advance([m for m in left if m.done == behind], form, until, stop, log)


def _advance(
    members: Sequence[Member], form: str, until: int, stop: StopRequest, log: "_Log"
) -> None:
    """Trains runs that have finished as many steps as each other, up to a step."""
    runs = [member.run for member in members]
    step = seed_forms.of(form, runs)
    states = step.stack([member.state for member in members])
    for member in members:
        member.state = None  # the first step takes its buffers
    start = done = members[0].done
    pending = None

    def read() -> None:
        if pending is not None:
            values = step.metrics(pending[1])
            for member, own in zip(members, values, strict=True):
                if member.error is None:
                    with member.ends_alone():
                        member.run.log.read((pending[0], own))
            log.read(pending[0], members)

    def is_live() -> list[bool]:
        return [member.error is None for member in members]

    while done < until and any(is_live()) and not stop.due(done):
        states, metrics = step(states, _batches(members), is_live())
        done += 1
        read()  # of step k - 1, while the device works on step k
        pending = done, metrics
        now = [[hook for hook in member.hooks if hook.is_due(done)] for member in members]
        if any(hook.reads_metrics for hooks in now for hook in hooks):
            read()  # no state is used before its metrics were seen to be finite
            pending = None
        if any(now):
            _take_actions(members, now, done, functools.partial(step.state, states))
    read()
    for i, member in enumerate(members):
        if member.error is None:
            member.done, member.state = done, step.state(states, i)
            if done > start:
                member.run.save(done, member.state, planned=done == log.total)


def _batches(members: Sequence[Member]) -> list[dict[str, np.ndarray]]:
    """The next batch of every run on the host; one that has ended has no data of its own."""
    found = [
        None if member.error else run_data.of_model(next(member.run.batches), member.run.config)
        for member in members
    ]
    other = next(batch for batch in found if batch is not None)
    return [other if batch is None else batch for batch in found]


def _take_actions(
    members: Sequence[Member],
    now: Sequence[Sequence[hooks_lib.Every]],
    done: int,
    state_of: Callable[[int], GANState],
) -> None:
    """What is due after a step, of one run after another; none of it counts as training."""
    with contextlib.ExitStack() as paused:
        for member in members:
            paused.enter_context(member.run.log.paused())
        for i, (member, hooks) in enumerate(zip(members, now, strict=True)):
            state = state_of(i) if hooks and member.error is None else None
            for hook in hooks:
                if member.error is None:
                    with member.ends_alone():
                        hook.action(done, state)


class _Log:
    """A bar, and a line of means and deviations over the runs, in place of one line each."""

    def __init__(self, members: Sequence[Member]):
        config = members[0].run.config
        self.total, self._every = config.num_steps, config.log_every_steps
        start = min(member.done for member in members)
        self._bar = tqdm(total=self.total, initial=start, unit="step", disable=None, leave=False)
        self._since, self._at = time.perf_counter(), start

    def read(self, number: int, members: Sequence[Member]) -> None:
        """Tells of a step whose metrics every run has read."""
        self._bar.update(number - self._bar.n if not self._bar.disable else 0)
        live = [member.run.log.last for member in members if member.error is None]
        if not live or not (number % self._every == 0 or number == self.total):
            return
        seconds = (time.perf_counter() - self._since) / max(number - self._at, 1)
        self._since, self._at = time.perf_counter(), number
        left = round((self.total - number) * seconds)
        text = f"step {number:,}/{self.total:,}  {len(live)} seeds  {seconds:.3g} s a step"
        text += f"  ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        for name in progress.SHOWN:
            values = [last[name] for last in live if name in last]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else None
                text += f"  {name} {spread(statistics.fmean(values), deviation)}"
        self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
