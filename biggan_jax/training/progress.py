"""What a run tells while it trains: a bar, log lines, and metrics for the run's writers."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator

import jax
from tqdm import tqdm

from biggan_jax.parallel import telling, terminal

SILENT_SECONDS = 15.0  # before the first step, after which it says what it waits for
SHOWN = ("d_loss", "g_loss", "d_real", "d_fake")  # on the log line; the files hold every metric


class NonFiniteError(ArithmeticError):
    """A metric became NaN or infinite; the message names it and the step."""


class TrainLog:
    """Reads the metrics of finished steps and reports their means every `log_every_steps`.

    A run that resumes between two reports makes its first mean over the steps since then.

    Args:
      writer: a `writers.Writers`.
      start, total: steps done before, and of the whole run.
      log_every_steps: steps between two reports.
      images_per_step: real images that one step consumes.
      active: whether this process speaks (process 0).
      remedy: gives what to do when a metric is not finite, for a person.
      observe: gets (step, its metrics as floats), before they are looked at here; may be None.
    """

    def __init__(
        self,
        writer,
        *,
        start,
        total,
        log_every_steps,
        images_per_step,
        active,
        remedy,
        observe=None,
    ):
        self._writer, self._total, self._active = writer, total, active
        self._log_every_steps, self._images_per_step = log_every_steps, images_per_step
        self._remedy, self._observe = remedy, observe
        self._bar = tqdm(
            total=total, initial=start, unit="step", disable=None if active else True, leave=False
        )
        self._sums: dict[str, float] = {}
        self._count = self._timed = 0
        self._since: float | None = None  # the first step is compilation: the clock starts after it
        self.step = start  # whose metrics were read last
        self.last: dict[str, float] = {}
        self._silent = contextlib.ExitStack()

    def begin(self) -> None:
        """Says what the first step waits for, where that takes long."""
        if self._active:
            what = "the first step waits for the compiler: a minute or so, longer beside other work"
            self._silent.enter_context(telling.told_if_slow(what, SILENT_SECONDS))

    def read(self, pending: tuple[int, dict[str, jax.Array]] | None) -> None:
        """Takes (step, its metrics on the device), waiting for them; None is nothing to read.

        Raises:
          NonFiniteError: names the first metric that is not finite.
        """
        if pending is None:
            return
        number, metrics = pending
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._silent.close()
        if self._observe is not None:
            self._observe(number, values)
        for name, value in values.items():
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"{name} is {value} at step {number}: the run stops and this state is not "
                    f"saved; {self._remedy()}"
                )
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.step = number
        self._count += 1
        if self._since is None:
            self._since = time.perf_counter()
        else:
            self._timed += 1
        terminal.leave()  # of a run that goes on without the one it was started from
        self._bar.update(1)
        if number % self._log_every_steps == 0 or number == self._total:
            self._report(number)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count as training (checkpoints, sample grids)."""
        start = time.perf_counter()
        yield
        if self._since is not None:
            self._since += time.perf_counter() - start

    def scores(self, number: int, scores: dict[str, float]) -> None:
        """Writes the scores of a step, as `eval/NAME`, and on a line of their own."""
        named = {f"eval/{name}": value for name, value in scores.items()}
        self._writer.write(number, number * self._images_per_step, named)
        if self._active:
            self._bar.clear()
            text = "".join(f"  {k} {v:.4g}" for k, v in scores.items())
            print(f"step {number:,} evaluated:{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        self._silent.close()
        self._bar.close()

    def _report(self, number: int) -> None:
        scalars = {name: total / self._count for name, total in sorted(self._sums.items())}
        now = time.perf_counter()
        if self._timed:
            seconds = (now - self._since) / self._timed
            scalars["images_per_second"] = self._images_per_step / seconds
        self._sums, self._count, self._timed, self._since = {}, 0, 0, now
        self.last = scalars
        self._writer.write(number, number * self._images_per_step, scalars)
        if self._active:
            self._bar.clear()
            print(self._line(number, scalars), file=sys.stderr, flush=True)

    def _line(self, number: int, scalars: dict[str, float]) -> str:
        text = f"step {number:,}/{self._total:,}"
        speed = scalars.get("images_per_second")
        if speed:
            left = round((self._total - number) * self._images_per_step / speed)
            clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
            text += f"  {speed:,.0f} images/s  ETA {clock}"
        return text + "".join(f"  {k} {scalars[k]:.3f}" for k in SHOWN if k in scalars)
