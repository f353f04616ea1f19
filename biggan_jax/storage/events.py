"""TensorBoard's event files of a run that goes on from an earlier step.

A run that was killed has written events of steps that it will take again. TensorBoard drops them
where a session starts anew (SessionLog.START, with the step), which a TensorBoard that is running
needs; its EventAccumulator and other readers do not do so for what TensorFlow 2 writes, so that the
events themselves are removed as well.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.storage import paths

NAMES = "events.out.tfevents.*"
CLOCK_SECONDS = 2.0  # a clock that was set back is not waited for any longer


def cut_after(workdir: Any, step: int) -> None:
    """Removes what the event files of a run hold of later steps, before it writes any.

    Loads TensorFlow where there are event files.

    Args:
      workdir: of the run, a path object.
      step: the restored step.

    Raises:
      OSError: a file could not be written; the old one is still there.
    """
    found = sorted(workdir.glob(NAMES))
    if not found:
        return
    with paths.quiet_tensorflow():
        import tensorflow as tf
    for path in found:
        with buckets.bucket_errors(path):
            if any(number > step for number, _ in _events(path)):
                _rewrite(tf, path, step)
    # Files are read in the order of their names, which begin with the second they were made in.
    newest = max(
        (int(n) for n in (p.name.split(".")[3] for p in found) if n.isdecimal()), default=0
    )
    deadline = time.monotonic() + CLOCK_SECONDS
    while time.time() < newest + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    v1 = tf.compat.v1
    with tf.Graph().as_default():  # this writer is not for eager execution
        writer = v1.summary.FileWriter(os.fspath(workdir))
        for _ in range(2):  # the first start that a reader sees is not a restart to it
            writer.add_session_log(v1.SessionLog(status=v1.SessionLog.START), step + 1)
        writer.close()


def _events(path: Any) -> Iterator[tuple[int, bytes]]:
    """(step, record) of a file, as far as it can be read: a kill may have torn the last one."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for record in RawEventFileLoader(os.fspath(path)).Load():
        event = Event.FromString(record)
        # A start of a session says nothing of its step, and a file that holds no more stays.
        yield 0 if event.HasField("session_log") else event.step, record


def _rewrite(tf: Any, path: Any, step: int) -> None:
    fresh = path.with_name(f".{path.name.replace('tfevents', 'cut')}")  # no reader takes it
    with tf.io.TFRecordWriter(os.fspath(fresh)) as writer:
        for number, record in _events(path):
            if number <= step:
                writer.write(record)
    fresh.replace(path)
