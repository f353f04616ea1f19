"""What became of a run, in one sentence."""

import dataclasses
import math

from biggan_jax.errors import counts
from biggan_jax.evaluation.run_events import Event
from biggan_jax.evaluation.run_files import as_number, is_step
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_sessions import Session
from biggan_jax.storage import best

STATES = ("running", "finished", "stopped", "failed", "collapsed", "killed", "unknown")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a run stands.

    Attributes:
      state: one of `STATES`; collapsed also where a run that had collapsed went on to its end.
      step: finished steps.
      sentence: for people.
    """

    state: str
    step: int
    sentence: str


def of(run: History) -> Verdict:
    """The verdict on a run."""
    session = _last_session(run)
    step = last_step(run, session)
    total = run.config.get("num_steps")
    total = total if is_step(total) else None
    after = f"step {step:,} of {total:,}" if total is not None else f"step {step:,}"
    state, text = _ending(run, session, step, total, after)
    collapse = collapsed(run)
    if collapse is not None:
        at = f"Collapsed at step {collapse.step:,}"
        at += f" of {total:,}" if total is not None else ""
        because = _clause(collapse.text) or _clause(collapse.signal)
        ended = f"The run {text[0].lower()}{text[1:]}"
        if state == "failed" and collapse.action == "stop":
            ended = f"The guard stopped the run after {after}"  # its own error ended it
        at += _rollbacks(run) + (f": {because}" if because else "")
        parts = [at, ended + _best(run)]
        return Verdict("collapsed", step, ". ".join(parts) + ".")
    return Verdict(state, step, text + _rollbacks(run) + _warnings(run) + _best(run) + ".")


def collapsed(run: History) -> Event | None:
    """The collapse that a run has not recovered from; None where there is none."""
    last = None
    for event in run.events:
        if event.state == "collapsed":
            # The guard may repeat itself while a run goes on: it collapsed at the first time.
            last = last or event
            if event.action == "stop":
                last = event
        elif event.state in ("rolled_back", "healthy"):
            last = None
    return last


def rollbacks(run: History) -> int:
    """How often a run was taken back to an earlier step."""
    return sum(event.state == "rolled_back" for event in run.events)


def last_step(run: History, session: Session | None) -> int:
    """Finished steps, as far as anything says so."""
    if session is not None and session.end_step is not None:
        return session.end_step
    known = [run.last.get("step", 0), *run.checkpoints[-1:]]
    return max(known)


def _last_session(run: History) -> Session | None:
    """The last one, unless the run went on without a word of it since."""
    session = run.sessions[-1] if run.sessions else None
    if session is not None and session.end_step is not None:
        newer = run.last.get("step", 0) > session.end_step and session.outcome != "failed"
        return None if newer else session
    return session


def _ending(
    run: History, session: Session | None, step: int, total: int | None, after: str
) -> tuple[str, str]:
    """(state, the sentence's beginning)."""
    if session is not None and session.outcome == "finished":
        return "finished", f"Finished all {counts(step, 'step', 'steps')}"
    if session is not None and session.outcome == "stopped":
        by = f" by {_clause(session.reason)}" if session.reason else ""
        return "stopped", f"Stopped{by} after {after}; the same command continues"
    if session is not None and session.outcome == "failed":
        why = f": {_clause(session.reason)}" if session.reason else ""
        return "failed", f"Failed after {after}{why}"
    if run.in_use:
        return "running", f"Training now: {after} at the time of this report"
    if session is not None:
        saved = f"step {run.checkpoints[-1]:,}" if run.checkpoints else "the beginning"
        return "killed", (
            f"Ended without a word after {after} (the process was killed, or its machine went "
            f"down); the same command continues from {saved}"
        )
    if total is not None and step >= total > 0:
        return "finished", f"Finished all {counts(step, 'step', 'steps')}"
    if not step:
        return "unknown", "Nothing is known of this run: it has left no metrics and no checkpoint"
    return "unknown", f"Came to {after}; why it went no further is not recorded"


def _rollbacks(run: History) -> str:
    count = rollbacks(run)
    return f" after {counts(count, 'rollback', 'rollbacks')}" if count else ""


def _warnings(run: History) -> str:
    found = [event for event in run.events if event.state == "warning"]
    if not found:
        return ""
    clause = _clause(found[-1].text)
    because = f": {clause}" if clause else ""
    number = counts(len(found), "warning", "warnings")
    return f", with {number} of the guard (the last at step {found[-1].step:,}{because})"


def _best(run: History) -> str:
    score, step, metric = (run.best.get(name) for name in ("score", "step", "metric"))
    score = math.nan if score is None else as_number(score)
    if score is None or math.isnan(score) or metric != best.METRIC or not is_step(step):
        return ""
    return f"; its best FID is {score:.4g}, of step {step:,}"


def _clause(text: str | None) -> str:
    """A sentence as a part of another one."""
    return " ".join((text or "").split()).rstrip(".;")[:300]
