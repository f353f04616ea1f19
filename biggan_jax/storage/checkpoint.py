"""Checkpoints of a run and weights of a model: Orbax on disk, every array checked when read.

`integrity` holds the format: what is written beside the arrays, and how reading notices damage.
"""

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from biggan_jax.errors import UserError
from biggan_jax.parallel import processes
from biggan_jax.storage import integrity, orbax_noise
from biggan_jax.storage.digest import digests
from biggan_jax.storage.integrity import abstract
from biggan_jax.storage.weights import load_weights, save_weights

__all__ = ["Checkpoints", "abstract", "digests", "load_weights", "save_weights"]


def _warn(line: str) -> None:
    if processes.is_main():
        print(f"warning: {line}", file=sys.stderr)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        return False  # the loop asks; a thread asking of an earlier step would set JAX back to it


class Checkpoints:
    """The checkpoints of one run, in `directory/<step>`.

    Reading never changes the directory. Every method is to be called by all processes of a run.

    Args:
      directory: created by the first save.
      keep_latest: how many of the newest steps are kept.
      best_metric: name of the metric whose best step is kept as well; None keeps the latest only.
      best_mode: 'min' when a lower metric is better, 'max' when a higher one is.
      async_save: whether arrays are written while training goes on.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep_latest: int = 2,
        best_metric: str | None = None,
        best_mode: str = "min",
        async_save: bool = True,
    ):
        self.directory = integrity.absolute(directory)
        self._keep_latest = keep_latest
        self._best_metric = best_metric
        self._best_mode = best_mode
        self._async_save = async_save
        self._manager: _Manager | None = None  # made by the first save
        self._saving: int | None = None

    def all_steps(self) -> list[int]:
        """Lists the finished checkpoints.

        Returns:
          Steps in ascending order, read from the disk.
        """
        if not self.directory.is_dir():
            return []
        return sorted(s.step for s in ocp.path.step.standard_name_format().find_all(self.directory))

    def latest_step(self) -> int | None:
        """Gives the newest finished checkpoint, intact or not.

        Returns:
          Its step, or None when there is none.
        """
        return max(self.all_steps(), default=None)

    def save(self, step: int, state: Any, meta: dict, metrics: dict | None = None) -> bool:
        """Saves a state; its buffers may be donated as soon as this returns.

        Args:
          step: the number of finished training steps.
          state: a tree of arrays, numpy arrays and Python numbers.
          meta: anything JSON can hold.
          metrics: name -> number; a missing or non-finite `best_metric` is never the best.

        Returns:
          True, or False when this step is saved already.

        Raises:
          OSError: this or the previous, asynchronous save could not be written; what was finished
            before it is still there.
          UserError: a newer checkpoint exists.
        """
        self.wait()
        with self._disk_errors(step):
            self._manager = self._manager or self._open()
        steps = self._manager.all_steps()
        if step in steps:
            return False
        if steps and step < max(steps):
            raise UserError(
                f"checkpoint {max(steps)} in {self.directory} is newer than step {step}: "
                "move it away, or train in another workdir"
            )
        score = (metrics or {}).get(self._best_metric)
        usable = score is not None and math.isfinite(score)
        scores = {self._best_metric: float(score)} if usable else None
        args = integrity.save_args(state, meta)
        self._saving = step
        with self._disk_errors(step):
            # Orbax returns False, silently, where its policy declines; force leaves it no choice.
            return self._manager.save(step, args=args, metrics=scores, force=True)

    def restore(
        self,
        target: Any,
        *,
        step: int | None = None,
        on_warning: Callable[[str], None] = _warn,
        repair: bool = False,
    ) -> tuple[Any, dict, int]:
        """Restores the newest intact checkpoint.

        Args:
          target: the state as `abstract` describes it, on any sharding.
          step: this checkpoint and no other; None walks from the newest downwards.
          on_warning: gets one line for every corrupt checkpoint passed over.
          repair: set the corrupt newer ones aside (see `discard_after`), so that their steps can be
            saved again; for the training loop only.

        Returns:
          The state, the meta it was saved with, and its step.

        Raises:
          UserError: there is no intact checkpoint, or an intact one does not fit the target.
        """
        state, meta, found = self._newest_intact(target, step, on_warning, whole=True)
        if repair:
            self.discard_after(found)
        return state, meta, found

    def restore_partial(
        self,
        target: dict,
        *,
        step: int | None = None,
        on_warning: Callable[[str], None] = _warn,
    ) -> tuple[dict, dict, int]:
        """Restores a part of the newest checkpoint whose part is intact.

        Args:
          target: a nested dict with some of the state's names, such as {'ema': ...}.
          step: this checkpoint and no other; None walks from the newest downwards.
          on_warning: gets one line for every corrupt checkpoint passed over.

        Returns:
          The part as a dict, the meta it was saved with, and its step.

        Raises:
          UserError: there is no intact checkpoint, or an intact one lacks a name of the target.
        """
        return self._newest_intact(target, step, on_warning, whole=False)

    def read_meta(self, step: int) -> dict:
        """Reads what the caller stored beside the arrays.

        Args:
          step: one of `all_steps()`.

        Returns:
          The meta of `save`, as JSON gives it back (tuples are lists).

        Raises:
          UserError: there is no such checkpoint or its record is damaged.
        """
        path = self.directory / str(step)
        try:
            return integrity.read_record(path)["meta"]
        except integrity.CorruptError as error:
            raise UserError(f"no readable checkpoint at {path}: {error}") from error

    def discard_after(self, step: int) -> list[int]:
        """Sets newer checkpoints aside: `<n>` becomes `<n>.discarded`, which nothing reads.

        Args:
          step: the newest checkpoint that stays.

        Returns:
          The steps set aside.
        """
        self.close()
        newer = processes.from_main([s for s in self.all_steps() if s > step])
        for s in reversed(newer) if processes.is_main() else ():
            path, copies = self.directory / f"{s}.discarded", 1
            while path.exists():
                copies += 1
                path = self.directory / f"{s}.discarded-{copies}"
            (self.directory / str(s)).rename(path)
        processes.barrier()
        return newer

    def wait(self) -> None:
        """Waits for the asynchronous save.

        Raises:
          OSError: it could not be written.
        """
        if self._manager is not None:
            with self._disk_errors(self._saving):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the asynchronous save and stops Orbax's threads, until the next save.

        Raises:
          OSError: the save could not be written.
        """
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> _Manager:
        orbax_noise.silence()
        self.directory.mkdir(parents=True, exist_ok=True)
        if processes.is_main():
            # A killed save leaves its unfinished directory, which Orbax never removes.
            for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
                path.rmtree()
        try:
            return self._make_manager(metrics_readable=True)
        except ValueError:
            # One torn metrics file must not stop a run: nothing is deleted by its score, then.
            return self._make_manager(metrics_readable=False)

    def _make_manager(self, metrics_readable: bool) -> _Manager:
        policies = ocp.checkpoint_managers
        keep, best_fn = [policies.LatestN(self._keep_latest)], None
        if self._best_metric is not None:
            best_fn = lambda metrics: metrics[self._best_metric]
            keep.append(
                policies.BestN(
                    get_metric_fn=best_fn,
                    reverse=self._best_mode == "min",  # BestN keeps the end of the sorted list
                    n=1,
                    keep_checkpoints_without_metrics=not metrics_readable,
                )
            )
        options = ocp.CheckpointManagerOptions(
            # Not max_to_keep with best_fn: that deletes the newest step when its score is worse.
            preservation_policy=policies.AnyPreservationPolicy(keep),
            best_fn=best_fn,
            best_mode=self._best_mode,
            enable_async_checkpointing=self._async_save,
            lightweight_initialize=best_fn is None or not metrics_readable,
        )
        return _Manager(self.directory, options=options)

    @contextlib.contextmanager
    def _disk_errors(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The manager has already forgotten the steps it meant to delete: read the disk again.
            manager, self._manager = self._manager, None
            with contextlib.suppress(Exception):
                manager.close()
            # Orbax leaves the coroutines behind a failed directory unawaited.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            integrity.raise_as_os_error(error, f"checkpoint {step} was not saved", self.directory)

    def _newest_intact(
        self, target: Any, step: int | None, on_warning: Callable[[str], None], *, whole: bool
    ) -> tuple[Any, dict, int]:
        self.wait()
        steps = processes.from_main(self.all_steps())
        if not steps:
            raise UserError(f"no checkpoint in {self.directory}: train first")
        if step is not None and step not in steps:
            has = integrity.some(reversed(steps))
            raise UserError(f"no checkpoint {step} in {self.directory}: it has {has}")
        candidates = steps[::-1] if step is None else [step]
        for candidate in candidates:
            try:
                path = self.directory / str(candidate)
                return *integrity.read(path, target, whole=whole), candidate
            except integrity.CorruptError as error:
                on_warning(f"checkpoint {candidate} in {self.directory} is corrupt: {error}")
        raise UserError(
            f"no intact checkpoint in {self.directory} (corrupt: {integrity.some(candidates)}); "
            "put a copy back, or start again in an empty workdir"
        )
