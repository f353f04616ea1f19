"""The events of the guard of a run, as far as guard.jsonl can be read."""

import dataclasses
from typing import Any

from biggan_jax.evaluation import run_files
from biggan_jax.evaluation.run_files import Notes
from biggan_jax.storage import guard_log


@dataclasses.dataclass(frozen=True)
class Event:
    """One line of guard.jsonl.

    Attributes:
      step: finished steps.
      state: one of `guard_log.STATES`.
      signal, value, limit: what it was seen by, and from where on it is an alarm.
      action: what was done.
      attempt: number of rollbacks before it.
      text: one sentence for people.
      to_step: of a rollback, where it went.
      changes: of a rollback, {setting: (old, new)}.
    """

    step: int
    state: str
    signal: str | None = None
    value: float | None = None
    limit: float | None = None
    action: str = "none"
    attempt: int = 0
    text: str = ""
    to_step: int | None = None
    changes: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)


def read(directory: Any, notes: Notes) -> list[Event]:
    """Reads guard.jsonl.

    Args:
      directory: a workdir.
      notes: gets what cannot be read, and whether something was changed.
    """
    found: list[Event] = []
    sealed, before = False, len(notes.lines())
    for number, line in run_files.objects(directory / "guard.jsonl", "guard.jsonl", notes):
        step, state = line.get("step"), line.get("state")
        if not run_files.is_step(step) or state not in guard_log.STATES:
            notes.add(f"line {number}: it is no event of the guard; it is left out", "guard.jsonl")
            continue
        to_step, attempt = line.get("to_step"), line.get("attempt")
        event = Event(
            step,
            state,
            signal=_text(line.get("signal")) or None,
            value=_number(line.get("value")),
            limit=_number(line.get("limit")),
            action=_text(line.get("action")) or "none",
            attempt=attempt if run_files.is_step(attempt) else 0,
            text=_text(line.get("text")).removeprefix(f"{state}: "),
            to_step=to_step if run_files.is_step(to_step) else None,
            changes=changes_of(line.get("changes")),
        )
        found.append(event)
        sealed = sealed or "check" in line
    damaged = guard_log.read(directory)[1] if sealed else None
    if damaged is not None and len(notes.lines()) == before:
        notes.add(
            f"line {damaged}: its check does not fit; it or one before it was changed",
            "guard.jsonl",
        )
    return found


def changes_of(found: Any) -> dict[str, tuple[Any, Any]]:
    """{setting: (old, new)} of {setting: [old, new]} or {setting: {'old': ..., 'new': ...}}."""
    changes = {}
    for key, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, dict) and value.keys() >= {"old", "new"}:
            changes[key] = value["old"], value["new"]
        elif isinstance(value, list) and len(value) == 2:
            changes[key] = value[0], value[1]
    return changes


def _number(value: Any) -> float | None:
    return None if value is None else run_files.as_number(value)


def _text(value: Any) -> str:
    return " ".join(value.split())[:500] if isinstance(value, str) else ""
