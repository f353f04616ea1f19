"""What a run has left in its workdir, read so that no damage to one file hides the others.

A run may have been killed in the middle of a line, filled its disk, or been made by an older
version. Whatever cannot be read is left out and noted, with its file and line.
"""

import array
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import buckets
from biggan_jax.storage import json_file

NOTES_OF_A_FILE = 5  # damaged lines that are told one by one; the others are counted
DEEPEST = 20  # levels of objects in what a run writes are 3
LARGEST_STEP = 2**53  # what JSON's numbers hold exactly
LARGEST_NAMES = 20_000  # of metrics that are read, more than the largest network's monitors have


class Notes:
    """What could not be read, for the page and for the person who asked for it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more: dict[str, int] = {}

    def add(self, text: str, source: str | None = None) -> None:
        """Adds a note.

        Args:
          text: one line.
          source: a file; of one that has many notes the later ones are only counted.
        """
        if source is None:
            self._lines.append(text)
            return
        count = self._more.get(source, 0)
        self._more[source] = count + 1
        if count < NOTES_OF_A_FILE:
            self._lines.append(f"{source}, {text}")

    def lines(self) -> list[str]:
        """All notes, one line each."""
        more = [
            f"{source}: {count - NOTES_OF_A_FILE:,} more of this kind"
            for source, count in self._more.items()
            if count > NOTES_OF_A_FILE
        ]
        return [" ".join(line.split())[:400] for line in self._lines + more]


@dataclasses.dataclass
class Curve:
    """One metric over training.

    Attributes:
      steps: finished generator updates, int64 [N], ascending.
      values: float64 [N]; NaN where a value was not finite.
    """

    steps: np.ndarray
    values: np.ndarray

    def after(self, step: int) -> "Curve":
        """The part from a step on."""
        kept = self.steps >= step
        return Curve(self.steps[kept], self.values[kept])


Metrics = dict[str, Curve]


def text_of(path: Any, name: str, notes: Notes) -> str | None:
    """The text of a file; None, and a note unless it is absent, where it cannot be read."""
    try:
        with buckets.bucket_errors(path):
            return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        notes.add(f"{name} cannot be read: {reason(error)}")
        return None


def document(path: Any, name: str, notes: Notes) -> dict:
    """The JSON object of a file; {}, and a note unless the file is absent, where there is none."""
    text = text_of(path, name, notes)
    if text is None:
        return {}
    try:
        found = json_file.parse(text)
    except ValueError as error:
        notes.add(f"{name} cannot be read: {reason(error)}")
        return {}
    if not isinstance(found, dict):
        notes.add(f"{name} cannot be read: it is no JSON object")
        return {}
    return found


def objects(path: Any, name: str, notes: Notes) -> Iterator[tuple[int, dict]]:
    """The objects of a file that holds one JSON object a line.

    Args:
      path: the file; an absent one has no lines.
      name: how notes call it.
      notes: gets what cannot be read.

    Yields:
      (line number from 1, object).
    """
    try:
        with buckets.bucket_errors(path), _opened(path) as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8", "replace").strip()
                if not line:
                    continue
                found, problem = _parsed(line)
                if problem:
                    torn = not raw.endswith(b"\n")
                    what = "the last line is torn" if torn else problem
                    notes.add(f"line {number}: {what}; it is left out", name)
                else:
                    yield number, found
    except FileNotFoundError:
        return
    except OSError as error:
        notes.add(f"{name} cannot be read: {reason(error)}")


def metrics(
    path: Any, name: str, notes: Notes, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[Metrics, dict[str, int]]:
    """Reads a metrics.jsonl.

    Args:
      path: the file; an absent one has no metrics.
      name: how notes call it.
      notes: gets what cannot be read.
      wanted: says of the name of a metric whether it is kept.

    Returns:
      ({metric: its curve}, {'step': the last step, 'images_seen': at that step}), the second one
      empty where there is no line.
    """
    steps: dict[str, array.array] = {}  # arrays: of a long run lists would take a GB
    values: dict[str, array.array] = {}
    last: dict[str, int] = {}
    for number, line in objects(path, name, notes):
        step = line.get("step")
        if not is_step(step):
            notes.add(f"line {number}: it has no step; it is left out", name)
            continue
        if step >= last.get("step", 0):
            seen = line.get("images_seen")
            last = {"step": step} | ({"images_seen": seen} if is_step(seen) else {})
        for key, value in line.items():
            if key in ("step", "images_seen") or not wanted(key):
                continue
            if key not in steps and len(steps) >= LARGEST_NAMES:
                notes.add(f"line {number}: more than {LARGEST_NAMES:,} metrics", name)
                continue
            value = as_number(value)
            if value is None:
                notes.add(f"line {number}: {key[:80]} is no number", name)
                continue
            steps.setdefault(key, array.array("q")).append(step)
            values.setdefault(key, array.array("d")).append(value)
    return {key: _curve(steps[key], values[key]) for key in steps}, last


def is_step(value: Any) -> bool:
    """Whether a value of a file can be a number of steps or of images."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_STEP


def as_number(value: Any) -> float | None:
    """A value of a file as a number, NaN for null; None where it is none."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def reason(error: BaseException) -> str:
    """An error in a few words, without the path that stands in front of it already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _opened(path: Any):
    if isinstance(path, Path):
        return open(path, "rb")
    return io.BytesIO(path.read_bytes())


def _parsed(text: str) -> tuple[dict, str | None]:
    """(the object, None), or ({}, what is wrong)."""
    try:
        found = json.loads(text)
    except RecursionError:
        return {}, "it is nested too deeply"
    except ValueError:
        return {}, "it is no JSON"
    if not isinstance(found, dict):
        return {}, "it is no JSON object"
    return (found, None) if _depth(found) <= DEEPEST else ({}, "it is nested too deeply")


def _depth(value: Any) -> int:
    """Levels of objects inside each other, up to one more than the deepest that is read."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        level = [x for found in level if isinstance(found, dict) for x in found.values()]
        depth += 1
    return depth


def _curve(steps: array.array, values: array.array) -> Curve:
    at, value = np.array(steps, np.int64), np.array(values, np.float64)
    order = np.argsort(at, kind="stable")
    return Curve(at[order], value[order])
