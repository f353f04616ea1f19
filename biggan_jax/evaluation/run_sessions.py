"""`report/sessions.jsonl`: when and on what a run trained, and how each of its sessions ended.

A session is one `biggan train` of a run that may have taken several. It writes a line as it starts
and one as it ends; a session without the second one was killed, or goes on.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

from biggan_jax import __version__
from biggan_jax.evaluation import run_files
from biggan_jax.evaluation.run_files import Notes
from biggan_jax.storage import paths

FILE = "report/sessions.jsonl"
OUTCOMES = ("finished", "stopped", "failed")
LINES, WIDTH = 60, 400  # of the data report, and characters of one of them


@dataclasses.dataclass
class Session:
    """One `biggan train`.

    Attributes:
      step: finished steps when it started.
      started, ended: times, as text in UTC; `ended` is None where it was killed or goes on.
      versions: of biggan_jax, jax and Python.
      device: on what it computed.
      data: the lines of the data report.
      outcome: finished | stopped | failed; None where it was killed or goes on.
      end_step: finished steps at its end.
      reason: why it stopped or failed.
    """

    step: int
    started: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    device: str | None = None
    data: list[str] = dataclasses.field(default_factory=list)
    ended: str | None = None
    outcome: str | None = None
    end_step: int | None = None
    reason: str | None = None


def begin(workdir: Any, step: int, device: str, data: Sequence[str]) -> None:
    """Writes that a session starts.

    Args:
      workdir: of the run.
      step: finished steps.
      device: on what it computes.
      data: the lines of the data report.

    Raises:
      OSError: it could not be written.
    """
    line = {"event": "start", "step": step, "time": _now(), "versions": versions()}
    _append(workdir, line | {"device": device, "data": [text[:WIDTH] for text in data[:LINES]]})


def end(workdir: Any, step: int, outcome: str, reason: str | None = None) -> None:
    """Writes how a session ended.

    Args:
      workdir: of the run.
      step: finished steps.
      outcome: one of `OUTCOMES`.
      reason: why it stopped or failed, one line.

    Raises:
      OSError: it could not be written.
    """
    _append(
        workdir,
        {"event": "end", "step": step, "time": _now(), "outcome": outcome, "reason": reason},
    )


def versions() -> dict[str, str]:
    """The versions of this process."""
    return {
        "biggan_jax": __version__,
        "jax": importlib.metadata.version("jax"),
        "python": platform.python_version(),
    }


def read(workdir: Any, notes: Notes) -> list[Session]:
    """Reads the sessions of a run, in their order; none of one that an older version made.

    Args:
      workdir: of the run.
      notes: gets what cannot be read.
    """
    sessions: list[Session] = []
    for number, line in run_files.objects(workdir / FILE, FILE, notes):
        step = line.get("step")
        if not run_files.is_step(step) or line.get("event") not in ("start", "end"):
            notes.add(f"line {number}: it is no start and no end; it is left out", FILE)
        elif line["event"] == "start":
            session = Session(step, started=_text(line.get("time")))
            session.device = _text(line.get("device"))
            found = line.get("versions")
            for key, value in found.items() if isinstance(found, dict) else ():
                session.versions[key] = str(value)
            data = line.get("data")
            session.data = [str(text) for text in data] if isinstance(data, list) else []
            sessions.append(session)
        elif not sessions or sessions[-1].outcome or line.get("outcome") not in OUTCOMES:
            notes.add(f"line {number}: an end without its start; it is left out", FILE)
        else:
            sessions[-1].ended, sessions[-1].end_step = _text(line.get("time")), step
            sessions[-1].outcome, sessions[-1].reason = line["outcome"], _text(line.get("reason"))
    return sessions


def _append(workdir: Any, line: dict[str, Any]) -> None:
    path = workdir / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # A kill may have torn the last line: the next one must not be lost with it.
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    paths.append_text(path, "\n" * torn + json.dumps(line) + "\n")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
