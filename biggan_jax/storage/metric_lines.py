"""`metrics.jsonl` of a workdir: one JSON object a write."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from biggan_jax.storage import json_lines, paths
from biggan_jax.storage.bucket_file import BucketFile
from biggan_jax.storage.metric_writer import MetricWriter

UPLOAD_SECONDS = 10.0


class JsonLines(MetricWriter):
    """Writes the scalars of a step as a line: step, then name: value.

    NaN and infinities, which JSON has no word for, are null. Every line is on its way to the disk
    when `write_scalars` returns, or in a bucket, where nothing can be appended, after `flush` and
    at the latest with the first line `UPLOAD_SECONDS` later.

    Args:
      workdir: directory of the file, a path object.

    Raises:
      OSError: from any method, the file could not be written.
    """

    def __init__(self, workdir: Any):
        self._path = workdir / "metrics.jsonl"
        self._file = self._append()

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step} | finite, allow_nan=False) + "\n")
        self._file.flush()

    def cut_after(self, step: int) -> None:
        """Drops the lines of later steps, and one that a kill tore."""
        self._file.close()
        data = self._path.read_bytes() if self._path.exists() else b""
        kept = _up_to(self._path, json_lines.split(data), step)
        if kept != data:
            paths.write_bytes(self._path, kept)
        self._file = self._append()

    def flush(self) -> None:
        if isinstance(self._file, BucketFile):
            self._file.upload()
        else:
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _append(self) -> TextIO | BucketFile:
        if paths.is_remote(self._path):
            return BucketFile(self._path, UPLOAD_SECONDS)
        return open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (it stays open)


def _up_to(path: Path, lines: json_lines.Lines, step: int) -> bytes:
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
