"""What the guard of a run saw and did: `guard.jsonl`, one JSON object a line.

A line is an event: step (finished ones), state (healthy | warning | collapsed | rolled_back),
signal, value and limit (what gave the alarm, null where nothing did), action (none | warn | stop |
rollback), attempt (rollbacks before it), text (for a person). One that is rolled_back has to_step
too, the step that the run goes on from, and changes {setting: [old, new]}. `check` seals a line and
all before it, so that neither a changed line nor a missing one is taken for the truth. Checkpoints
hold the events up to their step, so a damaged file is written anew.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.storage import paths

FILE = "guard.jsonl"
STATES = ("healthy", "warning", "collapsed", "rolled_back")
ROLLED_BACK = STATES[-1]

Event = dict[str, Any]


def seal(event: Mapping[str, Any], before: str) -> Event:
    """An event with its `check`.

    Args:
      event: without one, or with an old one.
      before: `check` of the event before it, '' for the first.

    Returns:
      A copy whose last entry is eight hexadecimal digits, CRC-32 of the one before and of the rest.
    """
    plain = {name: value for name, value in event.items() if name != "check"}
    text = before + json.dumps(plain, sort_keys=True)
    return plain | {"check": f"{zlib.crc32(text.encode()):08x}"}


def append(workdir: str | Path, events: Sequence[Event], event: Mapping[str, Any]) -> list[Event]:
    """Writes one more event.

    Args:
      workdir: of the run.
      events: those before it.
      event: the new one.

    Returns:
      The events with the new one, sealed.

    Raises:
      OSError: it could not be written.
    """
    sealed = seal(event, events[-1]["check"] if events else "")
    paths.append_text(_path(workdir), _line(sealed))
    return [*events, sealed]


def write(workdir: str | Path, events: Sequence[Event]) -> None:
    """Writes the whole file, or removes nothing where there neither is nor should be one."""
    path = _path(workdir)
    if events or path.exists():
        paths.write_bytes(path, "".join(map(_line, events)).encode())


def read(workdir: str | Path) -> tuple[list[Event], int | None]:
    """Reads the events up to the first line that is damaged.

    Args:
      workdir: of the run.

    Returns:
      (events, line): the intact events from the first one on, and the number (from 1) of the first
      line that is none; None where all are. What a kill left of a last line counts as damage.
    """
    path = _path(workdir)
    try:
        with buckets.bucket_errors(path):
            data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return [], None
    except IsADirectoryError:
        return [], 1
    events: list[Event] = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line:
            break
        event = _parse(line, events[-1]["check"] if events else "")
        if event is None or number == len(lines):  # a whole line ends
            return events, number
        events.append(event)
    return events, None


def attempt(events: Sequence[Event]) -> int:
    """How many rollbacks there were."""
    return sum(event["state"] == ROLLED_BACK for event in events)


def up_to(events: Sequence[Event], step: int) -> list[Event]:
    """The events that a run which goes on after `step` will not write again.

    Args:
      events: in the order in which they were written.
      step: finished steps.

    Returns:
      All of earlier attempts, and those of the present one up to the step.
    """
    present = attempt(events)
    return [e for e in events if e["attempt"] < present or e["step"] <= step]


def _path(workdir: str | Path) -> Any:
    return paths.workdir_path(workdir) / FILE


def _line(event: Event) -> str:
    return json.dumps(event) + "\n"


def _parse(line: bytes, before: str) -> Event | None:
    """The event of a line; None where it is damaged or does not follow the one before it."""
    try:
        event = json.loads(line.decode())
        whole = isinstance(event, dict) and _line(event).encode() == line + b"\n"
        return event if whole and seal(event, before) == event else None
    except (ValueError, RecursionError, TypeError):
        return None
