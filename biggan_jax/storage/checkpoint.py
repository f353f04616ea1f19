"""Checkpoints of a run: Orbax on disk, every array checked when read.

`integrity` holds the format: what is written beside the arrays, and how reading notices damage.
"""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from etils import epath

from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import integrity, json_file, orbax_noise
from biggan_jax.storage.orbax_import import ocp


def _warn(line: str) -> None:
    if processes.is_main():
        print(f"warning: {line}", file=sys.stderr)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        return False  # the loop asks; a thread asking of an earlier step would set JAX back to it


class _Pinned(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps what is pinned at the time of a save; Orbax's own list of steps never changes."""

    def __init__(self, checkpoints: "Checkpoints"):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [info.step in self._checkpoints.pinned for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run, in `directory/<step>`.

    Reading never changes the directory. Every method is to be called by all processes of a run.

    Args:
      directory: created by the first save.
      keep_latest: how many of the newest steps a save keeps; None: all of them.
      async_save: whether arrays are written while training goes on.

    Attributes:
      pinned: steps that are kept whatever `keep_latest` says.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep_latest: int | None = None,
        async_save: bool = True,
    ):
        self.directory = integrity.absolute(directory)
        self._keep_latest = keep_latest
        self._async_save = async_save
        self.pinned: Collection[int] = ()
        self._manager: _Manager | None = None  # made by the first save
        self._saving: int | None = None
        self._silence = contextlib.ExitStack()  # as long as Orbax's threads run

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

    def save(self, step: int, state: Any, meta: dict) -> bool:
        """Saves a state; its buffers may be donated as soon as this returns.

        Args:
          step: the number of finished training steps.
          state: a tree of arrays, numpy arrays and Python numbers.
          meta: anything JSON can hold.

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
        args = integrity.save_args(state, meta)
        self._saving = step
        with self._disk_errors(step):
            # Orbax returns False, silently, where its policy declines; force leaves it no choice.
            return self._manager.save(step, args=args, force=True)

    def restore(
        self,
        target: Any,
        *,
        step: int | None = None,
        on_warning: Callable[[str], None] = _warn,
        optional: Callable[[str], bool] = lambda _: False,
    ) -> tuple[Any, dict, int]:
        """Restores the newest intact checkpoint.

        Args:
          target: the state as a tree of `jax.ShapeDtypeStruct`, on any sharding.
          step: this checkpoint and no other; None walks from the newest downwards.
          on_warning: gets one line for every corrupt checkpoint passed over.
          optional: says of the name of an array whether one side may lack it: what the target lacks
            is left out, what the checkpoint lacks is zeros.

        Returns:
          The state, the meta it was saved with, and its step.

        Raises:
          UserError: there is no intact checkpoint, or an intact one does not fit the target.
        """
        return self._newest_intact(target, step, on_warning, whole=True, optional=optional)

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
            self._silence.close()

    def _open(self) -> _Manager:
        self._silence.enter_context(orbax_noise.silenced())
        self.directory.mkdir(parents=True, exist_ok=True)
        if processes.is_main():
            # A killed save leaves its unfinished directory, which Orbax never removes.
            for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
                path.rmtree()
        policies = ocp.checkpoint_managers
        keep = [policies.LatestN(self._keep_latest), policies.CustomSteps(self.best_of_old())]
        keep.append(_Pinned(self))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            enable_async_checkpointing=self._async_save,
            lightweight_initialize=True,  # it would read every step's files
        )
        return _Manager(self.directory, options=options)

    def best_of_old(self) -> list[int]:
        """The best scored step of a run that an earlier version began, all where none can be told.

        It was kept among the checkpoints then, with its score in `metrics/metrics`.
        """
        scores = {}
        for step in self.all_steps():
            path = self.directory / str(step) / "metrics" / "metrics"
            try:
                scores[step] = float(json_file.read(path)["fid"])
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ValueError, TypeError, KeyError, OverflowError):
                return self.all_steps()  # one torn file must delete nothing
        return [min(scores, key=scores.get)] if scores else []

    def _broken(self, step: int, steps: list[int], error: Exception, whole: bool, **_: Any) -> str:
        """The message about a checkpoint whose weights are not finite."""
        others = [other for other in reversed(steps) if other != step]
        remedy = f"take another of its steps ({some(others, 9)})" if others else "train it anew"
        if whole and others and others[0] < step:
            remedy = f"move {self.directory / str(step)} away to go on from step {others[0]}"
        return f"checkpoint {step} in {self.directory} holds {error}: {remedy}"

    @contextlib.contextmanager
    def _disk_errors(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The manager has already forgotten the steps it meant to delete: read the disk again.
            manager, self._manager = self._manager, None
            with contextlib.suppress(Exception):
                manager.close()
            orbax_noise.drop_coroutines(error)
            self._silence.close()
            integrity.raise_as_os_error(error, f"checkpoint {step} was not saved", self.directory)

    def _newest_intact(
        self, target: Any, step: int | None, on_warning: Callable[[str], None], **options: Any
    ) -> tuple[Any, dict, int]:
        self.wait()
        steps = processes.from_main(self.all_steps())
        if not steps:
            raise UserError(f"no checkpoint in {self.directory}: train first")
        if step is not None and step not in steps:
            has = some(reversed(steps))
            raise UserError(f"no checkpoint {step} in {self.directory}: it has {has}")
        candidates = steps[::-1] if step is None else [step]
        for candidate in candidates:
            try:
                path = self.directory / str(candidate)
                return *integrity.read(path, target, **options), candidate
            except integrity.NotFiniteError as error:
                raise UserError(self._broken(candidate, steps, error, **options)) from error
            except integrity.CorruptError as error:
                on_warning(f"checkpoint {candidate} in {self.directory} is corrupt: {error}")
        raise UserError(
            f"no intact checkpoint in {self.directory} (corrupt: {some(candidates)}); "
            "put a copy back, or start again in an empty workdir"
        )
