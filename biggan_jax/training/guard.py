"""Judges a run while it trains, and says what is to be done.

The signals and their bounds are in `signals`. A guard knows no clock and no device, and what it
knows lies in every checkpoint: a run that is killed and goes on judges as one that was not.

References:
  Brock et al. 2019, section 4 and appendix F: what collapses look like, and when they are seen.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.config import default_config, flatten
from biggan_jax.parallel import processes
from biggan_jax.storage import guard_log
from biggan_jax.storage.guard_log import Event
from biggan_jax.training import rollback, signals
from biggan_jax.training.signals import COLLAPSED, WARNING, Alarm, Series

HEALTHY = "healthy"
GAME = ("loss", "regularizer.", "augment.")  # settings that change the scale of the signals
TRIED = 2  # newest healthy checkpoints that a run can go back to
CALM = 100  # steps after the last alarm before a checkpoint counts as healthy again


class CollapsedError(ArithmeticError):
    """The run has collapsed and stops; the message says when, why, and how to go on."""


class Guard:
    """Follows the signals of a run, writes guard.jsonl, and stops a run or sends it back.

    All processes of a run hold one and call it alike; process 0 decides for all, and writes.

    Args:
      config: of the run.
      workdir: of the run.
      events: of guard.jsonl, up to the step that the run goes on from.
      kept: what `to_json` gave at that step.
      checkpoints: of the run; not needed where it cannot go back or stop.
      start: that step.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        events: Sequence[Event] = (),
        kept: Mapping[str, Any] | None = None,
        checkpoints: Any = None,
        start: int = 0,
    ):
        kept = kept or {}
        self._start = start
        self._config, self._workdir, self._checkpoints = config, workdir, checkpoints
        self._events = list(events)
        self.state: str = kept.get("state", HEALTHY)
        self._healthy: list[int] = list(kept.get("healthy", ()))
        self._alarmed_at: int | None = kept.get("alarmed_at")
        self._series = {n: Series(n, x) for n, x in kept.get("series", {}).items()}

    @property
    def attempt(self) -> int:
        """Rollbacks so far."""
        return guard_log.attempt(self._events)

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        series = {name: series.to_json() for name, series in self._series.items()}
        kept = {"state": self.state, "alarmed_at": self._alarmed_at, "healthy": self._healthy}
        return kept | {"series": series, "events": self._events}

    @property
    def healthy(self) -> list[int]:
        """The checkpoints to be kept: the last healthy one, or those a rollback may need."""
        return self._healthy if self._config.guard.action == "rollback" else self._healthy[-1:]

    def saved(self, step: int) -> None:
        """Takes notice of a checkpoint that is about to be saved."""
        # The references may have followed what an alarm left behind: a shock is over in ten steps,
        # and a game that it has spoilt is not well by then.
        calm = self._alarmed_at is None or step - self._alarmed_at > CALM
        if calm and self._good_until() is None:
            self._healthy = [*(s for s in self._healthy if s < step), step][-TRIED:]

    def take(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of some signals after a finished step."""
        for name, value in values.items():
            if name not in self._series:
                self._series[name] = Series(name, {"last_good": self._start})
            self._series[name].add(step, value)

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a step.

        Raises:
          RollBack: one of them is not finite, and the run is to go back.
        """
        broken = next((n for n, value in metrics.items() if not math.isfinite(value)), None)
        if broken is None:
            self.take(step, signals.of_step(metrics))
            return
        text = f"{broken} is {metrics[broken]}"
        goes_back = self._goes_back()
        action = "rollback" if goes_back else "stop"
        self._write(step, COLLAPSED, "not_finite", None, None, action, f"collapsed: {text}")
        if goes_back:
            good_until = self._good_until()
            before = step - 1 if good_until is None else good_until
            self._roll_back(step, before, "not_finite", text)

    def judge(self, step: int) -> None:
        """Looks at all signals after a finished step.

        Raises:
          RollBack: the run has collapsed and is to go back.
          CollapsedError: it has collapsed and is to stop.
        """
        found = [series.judge() for series in self._series.values()]
        alarms = [alarm for alarm in found if alarm is not None]
        if self._config.guard.action != "warn":  # where one process stops or goes back, all do
            told = processes.from_main([dataclasses.asdict(alarm) for alarm in alarms])
            alarms = [Alarm(**alarm) for alarm in told]
        state = HEALTHY
        if any(not signals.rule_of(alarm.signal).only_warns for alarm in alarms):
            self._alarmed_at = step
        if alarms:
            state = COLLAPSED if any(a.state == COLLAPSED for a in alarms) else WARNING
        # A run that was only warned of its collapse may go on under another action.
        acts = state == COLLAPSED and self._config.guard.action != "warn"
        if state == self.state and not acts:
            return
        self.state = state
        if state == HEALTHY:
            self._write(step, HEALTHY, None, None, None, "none", "all signals are in bounds again")
        else:
            self._alarmed(step, state, [alarm for alarm in alarms if alarm.state == state])

    def _alarmed(self, step: int, state: str, alarms: Sequence[Alarm]) -> None:
        worst = alarms[0]
        text = "; ".join(alarm.text for alarm in alarms[:3])
        action = "warn"
        if state == COLLAPSED and self._config.guard.action in ("stop", "rollback"):
            action = "rollback" if self._goes_back() else "stop"
        values = (worst.signal, worst.value, worst.limit)
        self._write(step, state, *values, action, f"{state}: {text}")
        good_until = self._good_until()
        before = step if good_until is None else good_until
        if action == "rollback":
            self._roll_back(step, before, worst.signal, text)
        if action == "stop":
            raise CollapsedError(f"collapsed at step {step}: {text}; {self._remedy(before)}")

    def _goes_back(self) -> bool:
        guard = self._config.guard
        return guard.action == "rollback" and self.attempt < guard.max_rollbacks

    def _roll_back(self, step: int, good_until: int, signal: str, text: str) -> None:
        to_step, attempt = self._target(good_until), self.attempt
        changes = rollback.changes(self._config, attempt + 1)
        told = "".join(f", {key} {old:.4g} -> {new:.4g}" for key, (old, new) in changes.items())
        start = f"step {to_step}" if to_step else "the start"
        limit = self._config.guard.max_rollbacks
        line = f"rolled back to {start} ({attempt + 1} of {limit}){told}: {text}"
        event = self._event(step, guard_log.ROLLED_BACK, signal, None, None, "rollback", line)
        raise rollback.RollBack(event | {"to_step": to_step, "changes": changes})

    def _target(self, good_until: int) -> int:
        """The step to go on from: the newest healthy one; before it where it did not help."""
        self._checkpoints.wait()  # one that is being written is there as well
        there = self._checkpoints.all_steps()
        known = [s for s in self._healthy if s <= good_until and s in there]
        tried = [e["to_step"] for e in self._events if e["state"] == guard_log.ROLLED_BACK]
        untried = [s for s in known if s not in tried]
        return processes.from_main(max(untried or known, default=0))

    def _good_until(self) -> int | None:
        marks = [s.good_until for s in self._series.values() if not s.only_warns]
        return min((mark for mark in marks if mark is not None), default=None)

    def _remedy(self, good_until: int) -> str:
        to_step = self._target(good_until)
        again = "--allow-change --config.guard.action=rollback"
        if self._config.guard.action == "rollback":
            again = f"--allow-change --config.guard.max_rollbacks={self.attempt + 3}"
        healthy = f"step {to_step} was healthy" if to_step else "no healthy step is saved"
        return f"{healthy}; repeat the command with `{again}` to go back by itself"

    def _event(self, step, state, signal, value, limit, action, text) -> Event:
        numbers = {"signal": signal, "value": value, "limit": limit}
        found = {"step": step, "state": state} | numbers | {"action": action}
        return found | {"attempt": self.attempt, "text": text}

    def _write(self, step, state, signal, value, limit, action, text) -> None:
        self.record(self._event(step, state, signal, value, limit, action, text))

    def record(self, event: Event) -> None:
        """Writes an event down, and says it."""
        before = self._events
        if processes.is_main():
            print(f"guard: step {event['step']:,}: {event['text']}", file=sys.stderr, flush=True)
            self._events = guard_log.append(self._workdir, before, event)
        else:
            self._events = [*before, guard_log.seal(event, before[-1]["check"] if before else "")]


def build(
    config: ConfigDict,
    workdir: Path,
    events: Sequence[Event],
    kept: Mapping[str, Any],
    checkpoints: Any,
    start: int,
) -> Guard | None:
    """The guard of a run; None where it is off.

    Args:
      config: of the run.
      workdir: of the run.
      events: of guard.jsonl.
      kept: the meta of the checkpoint that the run goes on from; empty where it starts. Under
        another loss, penalty or augmentation than its config's the signals have another scale, and
        start anew.
      checkpoints: of the run.
      start: the step that it goes on from.
    """
    if config.guard.action == "off":
        return None
    # What was trained without a guard is taken for healthy.
    known = kept.get("guard", {"healthy": [start] if start else []})
    # Of the checkpoint, not of the command before: a run that is killed before its next one judges
    # as one that is not.
    old, new = flatten(default_config()) | flatten(kept.get("config", {})), flatten(config)
    if any(old[k] != v for k, v in new.items() if k.startswith(GAME)):
        known = known | {"series": {}, "state": HEALTHY}
    return Guard(config, workdir, events, known, checkpoints, start)


def summary(guard: Guard | None) -> dict[str, Any]:
    """{state, rollbacks} of a run; no state where the guard is off."""
    if guard is None:
        return {"state": None, "rollbacks": 0}
    return {"state": guard.state, "rollbacks": guard.attempt}
