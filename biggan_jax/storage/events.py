"""TensorBoard's event files of a run, by TensorBoard's own records and without TensorFlow.

A run that was killed has written events of steps that it will take again. TensorBoard drops them
where a session starts anew (SessionLog.START, with the step), which a TensorBoard that is running
needs; its EventAccumulator and other readers do not do so for tensors of the second version, so
that the events themselves are removed as well.
"""

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from biggan_jax.data import buckets
from biggan_jax.storage import paths
from biggan_jax.storage.bucket_file import BucketFile
from biggan_jax.storage.metric_writer import MetricWriter

NAMES = "events.out.tfevents.*"
CLOCK_SECONDS = 2.0  # a clock that was set back is not waited for any longer
# In a bucket a file is written as a whole each time: seldom, and another one before it is large.
UPLOAD_SECONDS = 120.0
OBJECT_BYTES = 16 << 20
_numbers = itertools.count()


class EventFiles(MetricWriter):
    """Writes scalars and images to event files.

    What is written is on its way to the disk when a method returns, or in a bucket after `flush`
    and at the latest with what is written `UPLOAD_SECONDS` later.

    Args:
      workdir: directory of the files, a path object; it exists.

    Raises:
      OSError: from any method, a file could not be written.
    """

    def __init__(self, workdir: Any):
        self._workdir = workdir
        self._file, self._records = self._open()

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in scalars.items():
            self._write(step=step, summary=scalar_pb(name, float(value)))
        self._records.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._write(step=step, summary=_image(name, image))
        self._records.flush()

    def restart(self, step: int) -> None:
        """Tells a TensorBoard that runs meanwhile to forget the steps after one."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        start = SessionLog(status=SessionLog.START)
        for _ in range(2):  # the first start that a reader sees is not a restart to it
            self._write(step=step + 1, session_log=start)

    def flush(self) -> None:
        if isinstance(self._file, BucketFile):
            self._file.upload()
        else:
            self._records.flush()

    def close(self) -> None:
        self._records.close()

    def _open(self) -> tuple[Any, Any]:
        from tensorboard.summary.writer.record_writer import RecordWriter

        seconds, host = int(time.time()), socket.gethostname()
        end = f"{host}.{os.getpid()}.{next(_numbers)}.v2"
        path = self._workdir / f"events.out.tfevents.{seconds:010d}.{end}"
        remote = paths.is_remote(path)
        file = BucketFile(path, UPLOAD_SECONDS) if remote else open(path, "ab")  # noqa: SIM115
        records = RecordWriter(file)
        records.write(_event(file_version="brain.Event:2"))
        return file, records

    def _write(self, **fields: Any) -> None:
        if isinstance(self._file, BucketFile) and self._file.size > OBJECT_BYTES:
            self._records.close()
            self._file, self._records = self._open()
        self._records.write(_event(**fields))


def cut_after(workdir: Any, step: int) -> EventFiles:
    """Removes what the event files of a run hold of later steps, before it writes any.

    Args:
      workdir: of the run, a path object.
      step: the restored step.

    Returns:
      The writer of what follows.

    Raises:
      OSError: a file could not be written; the old one is still there.
    """
    found = sorted(workdir.glob(NAMES))
    for path in found:
        kept = _up_to(path, step)
        if kept is not None:
            paths.write_bytes(path, kept)
    # Files are read in the order of their names, which begin with the second they were made in.
    newest = max(
        (int(n) for n in (p.name.split(".")[3] for p in found) if n.isdecimal()), default=0
    )
    deadline = time.monotonic() + CLOCK_SECONDS
    while time.time() < newest + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    files = EventFiles(workdir)
    if found:
        files.restart(step)
    return files


def _event(**fields: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time.time(), **fields).SerializeToString()


def _image(name: str, image: np.ndarray) -> Any:
    """A summary of one picture, uint8 [H, W, C], as `tf.summary.image` makes it."""
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.plugins.image import metadata

    buffer = io.BytesIO()
    height, width, channels = image.shape
    Image.fromarray(image[..., 0] if channels == 1 else image).save(buffer, "PNG")
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=3)])
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=shape,
        string_val=[str(width).encode(), str(height).encode(), buffer.getvalue()],
    )
    about = metadata.create_summary_metadata(display_name=None, description=None)
    about.data_class = summary_pb2.DATA_CLASS_BLOB_SEQUENCE
    value = summary_pb2.Summary.Value(tag=name, metadata=about, tensor=tensor)
    return summary_pb2.Summary(value=[value])


def _up_to(path: Any, step: int) -> bytes | None:
    """What a file holds up to a step, or None where it holds no more than that.

    A record is its length in 8 bytes, their checksum in 4, the event, and its checksum in 4. They
    are taken as they are, since TensorBoard's own reader takes seconds for the checksums of a few
    dozen megabytes of pictures. A kill may have torn the last one, which is left out.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    data, kept, later, at = buckets.read_bytes(path), [], False, 0
    while at + 12 <= len(data):
        end = at + 16 + int.from_bytes(data[at : at + 8], "little")
        try:
            event = Event.FromString(data[at + 12 : end - 4])
        except DecodeError:
            break
        if end > len(data):
            break
        # A start of a session says nothing of its step, and a file that holds no more stays.
        if event.step <= step or event.HasField("session_log"):
            kept.append(data[at:end])
        else:
            later = True
        at = end
    return b"".join(kept) if later else None
