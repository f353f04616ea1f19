"""Metrics of a run, to everywhere that `config.writers` names."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from biggan_jax.config.flat import flatten
from biggan_jax.storage import events, paths, wandb_run
from biggan_jax.storage.metric_lines import JsonLines
from biggan_jax.storage.metric_writer import MetricWriter

ALL = ("jsonl", "tensorboard")  # by default


def of(config: ConfigDict) -> tuple[str, ...]:
    """The writers of a config; `tensorboard`, where it is set, takes that one in or leaves it out.

    Args:
      config: a full config, or one that an earlier version wrote.
    """
    names = list(config.get("writers", ALL))
    if config.get("tensorboard") and "tensorboard" not in names:
        names.append("tensorboard")
    return tuple(x for x in names if x != "tensorboard" or config.get("tensorboard") is not False)


def check(config: ConfigDict) -> None:
    """Raises UserError where a writer of the config cannot be had on this machine."""
    if "wandb" in of(config):
        wandb_run.check()


class Writers:
    """Writes the metrics of a run, from one process.

    `metrics.jsonl` has one JSON object a write: step, images_seen, then name: value. The others,
    which have clu's interface, are written by a thread, in order.

    Args:
      workdir: directory of the files; created when missing.
      names: `jsonl`, and any of `tensorboard` and `wandb`.
      config: of the run, for those that show it.
      active: False makes every method do nothing: pass `jax.process_index() == 0`.

    Raises:
      OSError: from any method, the files could not be written.
      UserError: wandb cannot be had.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        names: Sequence[str] = ALL,
        *,
        config: ConfigDict | None = None,
        active: bool = True,
    ):
        self._workdir = paths.workdir_path(workdir)
        self._lines: JsonLines | None = None
        self._others: dict[str, MetricWriter] = {}
        self._names = [name for name in names if name != "jsonl"] if active else []
        self._pool: Any = None
        if not active:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(self._workdir)
        if self._names:
            from clu import asynclib

            self._pool = asynclib.Pool(max_workers=1)
            self._error = asynclib.AsyncError
            logging.getLogger("absl").addFilter(_is_news)
        if "wandb" in self._names:
            self._others["wandb"] = board = wandb_run.WandbRun(self._workdir)
            board.write_hparams(flatten(config) if config else {})

    def write(self, step: int, images_seen: int, scalars: Mapping[str, Any]) -> None:
        """Writes the metrics of one step.

        Args:
          step: number of finished training steps.
          images_seen: real images that D has consumed so far.
          scalars: name -> number (a Python, numpy or jax scalar).
        """
        if self._lines is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        values = {"images_seen": int(images_seen)} | values
        self._lines.write_scalars(int(step), values)
        self._tell(lambda writer: writer.write_scalars(int(step), values))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures, to those that have a place for them.

        Args:
          step: number of finished training steps.
          images: name -> uint8 [H, W, C], or [H, W] for grey.
        """
        pictures = {name: np.atleast_3d(image) for name, image in images.items()}
        self._tell(lambda writer: writer.write_images(int(step), pictures))

    def cut_after(self, step: int) -> None:
        """Drops what a resumed run is about to write again; to be called before the first write.

        Args:
          step: the restored step; what `metrics.jsonl` and the event files hold of later ones is
            dropped, and a line that a kill tore. A TensorBoard that runs meanwhile forgets it too.
        """
        if self._lines is None:
            return
        self._lines.cut_after(step)
        if "tensorboard" in self._names:
            self._others["tensorboard"] = events.cut_after(self._workdir, step)

    def flush(self) -> None:
        """Waits until everything is in the files."""
        if self._lines is not None:
            self._lines.flush()
        self._tell(lambda writer: writer.flush(), ends=True)

    def close(self) -> None:
        """Flushes and closes the files; later calls do nothing."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        try:
            self._tell(lambda writer: writer.close(), ends=True)
        finally:
            self._others, self._names = {}, []
            logging.getLogger("absl").removeFilter(_is_news)

    def _tell(self, call: Callable[[MetricWriter], None], *, ends: bool = False) -> None:
        """Has the thread call each of the other writers; `ends` waits for all that was asked."""
        if not self._names:
            return
        if "tensorboard" in self._names and "tensorboard" not in self._others and not ends:
            self._others["tensorboard"] = events.EventFiles(self._workdir)
        try:
            for name, writer in self._others.items():
                self._pool(_named(name, self._workdir, call))(writer)
            if ends:
                self._pool.join()
        except self._error as error:
            # The thread's first failure; every later call would only repeat it.
            self._others, self._names = {}, []
            raise error.__cause__ or error from None


def _named(name: str, workdir: Any, call: Callable) -> Callable[[MetricWriter], None]:
    """A call that says which writer failed, in one line."""

    def named(writer: MetricWriter) -> None:
        try:
            call(writer)
        except Exception as error:
            raise _failed(name, workdir, error) from error

    return named


def _failed(name: str, workdir: Any, error: Exception) -> OSError:
    what = f"TensorBoard event files in {workdir}" if name == "tensorboard" else "metrics to wandb"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OSError(f"{what} were not written: {reason.splitlines()[0]}")


def _is_news(record: logging.LogRecord) -> bool:
    """False for clu's traceback of every write behind a failed one: the first is raised."""
    return "asynclib" not in record.pathname
