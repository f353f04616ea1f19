"""Metrics of a run: `metrics.jsonl` and TensorBoard event files, both in the workdir."""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np

from biggan_jax.data import buckets
from biggan_jax.storage import events, json_lines, paths

UPLOAD_SECONDS = 10.0


class MetricWriter:
    """Writes the metrics of a run, from one process.

    `metrics.jsonl` has one JSON object a write: step, images_seen, then name: value; NaN and
    infinities, which JSON has no word for, are null. Every line is on its way to the disk when
    `write` returns, or in a bucket, where nothing can be appended, after `flush` and at the latest
    with the first line `UPLOAD_SECONDS` later; TensorBoard is written by a thread.

    Args:
      workdir: directory of the files; created when missing.
      tensorboard: whether event files are written too. That loads TensorFlow (2.5 s, 600 MB).
      active: False makes every method do nothing: pass `jax.process_index() == 0`.

    Raises:
      OSError: from any method, the files could not be written.
    """

    def __init__(
        self, workdir: str | os.PathLike, *, tensorboard: bool = True, active: bool = True
    ):
        self._workdir = paths.workdir_path(workdir)
        self._path = self._workdir / "metrics.jsonl"
        self._file = self._board = None
        self._tensorboard = tensorboard and active
        if not active:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._file = self._append()
        if tensorboard:
            logging.getLogger("absl").addFilter(self._is_news)

    def write(self, step: int, images_seen: int, scalars: Mapping[str, Any]) -> None:
        """Writes the metrics of one step.

        Args:
          step: number of finished training steps.
          images_seen: real images that D has consumed so far.
          scalars: name -> number (a Python, numpy or jax scalar).
        """
        if self._file is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": int(step), "images_seen": int(images_seen)} | finite
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._to_board("write_scalars", step, {"images_seen": float(images_seen)} | values)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures, to TensorBoard only.

        Args:
          step: number of finished training steps.
          images: name -> uint8 [H, W, C], or [H, W] for grey.
        """
        pictures = {name: np.atleast_3d(image) for name, image in images.items()}
        self._to_board("write_images", step, pictures)

    def cut_after(self, step: int) -> None:
        """Drops what a resumed run is about to write again; to be called before the first write.

        Args:
          step: the restored step; what `metrics.jsonl` and the event files hold of later ones is
            dropped, and a line that a kill tore. A TensorBoard that runs meanwhile forgets it too.
        """
        if self._file is None:
            return
        self._file.close()
        data = self._path.read_bytes() if self._path.exists() else b""
        kept = _up_to(self._path, json_lines.split(data), step)
        if kept != data:
            paths.write_bytes(self._path, kept)
        self._file = self._append()
        if self._tensorboard:
            events.cut_after(self._workdir, step)
            self._open_board()

    def flush(self) -> None:
        """Waits until everything is in the files."""
        if isinstance(self._file, _BucketFile):
            self._file.upload()
        elif self._file is not None:
            self._file.flush()
        self._to_board("flush")

    def close(self) -> None:
        """Flushes and closes the files; later calls do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
        try:
            self._to_board("close")
        finally:
            self._board, self._tensorboard = None, False
            logging.getLogger("absl").removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """False for clu's traceback of every write behind a failed one: the first is raised."""
        return "asynclib" not in record.pathname

    def _append(self) -> "TextIO | _BucketFile":
        if paths.is_remote(self._path):
            return _BucketFile(self._path)
        return open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (it stays open)

    def _open_board(self) -> None:
        self._board = _tensorboard_writer(self._workdir)

    def _to_board(self, method: str, *args: Any) -> None:
        if not self._tensorboard:
            return
        if self._board is None:
            if method in ("flush", "close"):
                return
            self._open_board()
        from clu import asynclib

        try:
            getattr(self._board, method)(*args)
        except asynclib.AsyncError as error:
            # The thread's first failure; every later call would only repeat it.
            self._board, self._tensorboard = None, False
            reason = _reason(error)
            raise OSError(
                f"TensorBoard event files in {self._workdir} were not written: {reason}"
            ) from error


class _BucketFile:
    """A text that is kept in memory and written as a whole, since objects cannot be appended to."""

    def __init__(self, path: Any):
        self._path = path
        with buckets.bucket_errors(path):
            self._data = path.read_bytes() if path.exists() else b""
        self._pending, self._uploaded = False, -math.inf

    def write(self, text: str) -> None:
        self._data += text.encode()
        self._pending = True

    def flush(self) -> None:
        """Uploads unless it has just been done: a bucket takes one write a second of an object."""
        if time.monotonic() - self._uploaded >= UPLOAD_SECONDS:
            self.upload()

    def upload(self) -> None:
        if self._pending:
            paths.write_bytes(self._path, self._data)
            self._pending, self._uploaded = False, time.monotonic()

    def close(self) -> None:
        self.upload()


def _tensorboard_writer(workdir: os.PathLike):
    """clu's writer of event files; importing it is what loads TensorFlow."""
    with paths.quiet_tensorflow():
        import tensorflow as tf
        from clu import metric_writers

    # TensorFlow takes all memory of a GPU it can see, and JAX would be left with none.
    tf.config.set_visible_devices([], "GPU")
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(os.fspath(workdir)))


def _up_to(path: Any, lines: json_lines.Lines, step: int) -> bytes:
    """The lines up to a step; what is dropped for another reason, or out of order, is said."""
    steps = [_step_of(record) for record in lines.records]
    kept = [i for i, at in enumerate(steps) if at is not None and at <= step]
    last = kept[-1] if kept else -1
    astray = [lines.numbers[i] for i in range(last) if i not in set(kept)]
    lost = sorted({*lines.damaged, *astray})
    if lost:
        line = json_lines.told(path, lost, "cannot be read, or not in order: left out")
        print(f"warning: {line}", file=sys.stderr)
    return b"".join(lines.texts[i] + b"\n" for i in kept)


def _step_of(record: dict[str, Any]) -> int | None:
    step = record.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0].rpartition("; ")[2]
