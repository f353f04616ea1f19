"""Sections of the page of a run that are text and tables."""

from typing import Any

import numpy as np

from biggan_jax import config as config_lib
from biggan_jax.errors import counts
from biggan_jax.evaluation import run_parts, run_verdict
from biggan_jax.evaluation.memorisation import HELD_OUT_SCORES
from biggan_jax.evaluation.report import COLUMNS
from biggan_jax.evaluation.run_events import Event
from biggan_jax.evaluation.run_files import Notes, as_number, is_step
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_parts import Section, Table, value_text

EVENTS, CHANGES, SESSIONS, NOTES = 60, 40, 30, 60  # rows
PROTOCOLS, FOLLOWED = 5, 40  # tables of a follower's scores, and rows of one
LISTED_CLASSES = 40
MEMORISATION = ("authenticity", *HELD_OUT_SCORES)
STATES = {"rolled_back": "rolled back"}


def facts(run: History, verdict: run_verdict.Verdict) -> list[tuple[str, str]]:
    """What stands at the top of the page: (name, value)."""
    config, best = run.config, run.best
    shown = [("workdir", str(run.directory)), ("finished steps", f"{verdict.step:,}")]
    if run.fork is not None:
        shown.append(("forked from", f"step {run.fork.step:,} of {run.fork.source[:300]}"))
    seen = run.last.get("images_seen")
    if seen is not None:
        shown.append(("real images seen", f"{seen:,}"))
    if config:
        pixels = f"{value_text(config.get('model.resolution'))} px"
        name, width = (value_text(config.get(f"model.{key}")) for key in ("name", "ch"))
        classes = value_text(config.get("model.num_classes"))
        shown.append(("model", f"{name}, {pixels}, ch {width}, classes: {classes}"))
        shown.append(("data", value_text(config.get("data.source"))))
        shown.append(("loss", value_text(config.get("loss"))))
    if isinstance(best.get("score"), float) and is_step(best.get("step")):
        metric = value_text(best.get("metric"), 40).upper()
        shown.append((f"best {metric}", f"{best['score']:.4g} at step {best['step']:,}"))
    if run.checkpoints:
        kept = ", ".join(f"{step:,}" for step in run.checkpoints[-6:])
        shown.append(("checkpoints", kept if len(run.checkpoints) < 7 else f"..., {kept}"))
    return shown


def guard(run: History) -> Section:
    """The events of the guard, and what every rollback changed."""
    section = Section("guard", "Guard")
    if not run.events:
        if "guard.action" in run.config and run.config["guard.action"] != "off":
            section.text.append("The guard has seen nothing: no warning, no collapse.")
        return section
    named = {state: steps for state in run_parts.KINDS if (steps := run_parts.steps_of(run, state))}
    told = {"warning": ("warning", "warnings"), "collapsed": ("collapse", "collapses")}
    told["rolled_back"] = ("rollback", "rollbacks")
    said = [counts(len(named[state]), *told[state]) for state in told if state in named]
    section.text.append(", ".join(said)[:1].upper() + ", ".join(said)[1:] + "." if said else "")
    section.text = [text for text in section.text if text]
    shown = run.events[-EVENTS:]
    if len(run.events) > len(shown):
        section.text.append(f"The last {EVENTS} of {len(run.events):,} events; all in guard.jsonl.")
    head = ("step", "state", "signal", "value", "what was done", "in words")
    section.tables.append(Table(head, [_event_row(event) for event in shown]))
    return section


def memorisation(run: History) -> Section:
    """Whether samples are copies of training images, as the last evaluation has found."""
    section = Section("memorisation", "Memorisation")
    judged, scores, protocol = (
        found if isinstance(found := run.evaluation.get(name), dict) else {}
        for name in ("memorisation", "scores", "protocol")
    )
    texts = [judged.get(name) for name in ("sentence", "limits")]
    if not all(isinstance(text, str) for text in texts):
        return section
    section.text += [text[:600] for text in texts]
    if is_step(protocol.get("step")):
        section.text.append(f"By `biggan evaluate`, of step {protocol['step']:,}.")
    values = {name: as_number(scores[name]) for name in MEMORISATION if name in scores}
    rows = [(name, f"{value:.4g}") for name, value in values.items() if value is not None]
    section.tables.append(Table(("score", "value"), rows))
    return section


def followed(run: History) -> list[Table]:
    """What `biggan evaluate --follow` scored: a table a protocol, since they cannot be compared."""
    tables = []
    for fingerprint in list(dict.fromkeys(found for _, found, _ in run.followed))[-PROTOCOLS:]:
        lines = [(step, scores) for step, found, scores in run.followed if found == fingerprint]
        names = [name for name in COLUMNS if any(name in scores for _, scores in lines)]
        rows = [
            (f"{step:,}", *(f"{scores[n]:.4g}" if n in scores else "" for n in names))
            for step, scores in run_parts.spread(lines, FOLLOWED)
        ]
        title = f"Scores of a follower, protocol {fingerprint}"
        tables.append(Table(("step", *names), rows, title, folded=True))
    return tables


def changes(run: History) -> Section:
    """Settings that changed on the way: at a fork, by the person, by a rollback."""
    section = Section("changes", "Changes of settings")
    found = []
    if run.fork is not None:
        section.text.append(f"Forked from step {run.fork.step:,} of {run.fork.source[:300]}.")
        found += [(run.fork.step, run.fork.step, "fork", run.fork.changes)]
    found += [(step, step, "a resumed run", changed) for step, changed in run.changes]
    for event in run.events:
        start = event.step if event.to_step is None else event.to_step
        found.append((event.step, start, "rollback", event.changes))
    rows = [
        (f"{step:,}", by, key[:80], value_text(old), value_text(new))
        for _, step, by, changed in sorted(found, key=lambda x: x[0])  # as they happened
        for key, (old, new) in changed.items()
    ]
    if rows:
        if len(rows) > CHANGES:
            section.text.append(f"The last {CHANGES} of {len(rows):,}.")
        head = ("from step", "by", "setting", "before", "after")
        section.tables.append(Table(head, rows[-CHANGES:]))
    return section


def settings(run: History) -> Section:
    """The config: what differs from the defaults, then all of it."""
    section = Section("config", "Config")
    if not run.config:
        return section
    defaults = config_lib.flatten(config_lib.default_config())
    rows = [(key[:80], value_text(value)) for key, value in sorted(run.config.items())]
    differing = [
        (key[:80], value_text(value), value_text(defaults.get(key)))
        for key, value in sorted(run.config.items())
        if key != "class_names" and (key not in defaults or defaults[key] != value)
    ]
    head = ("setting", "this run", "default")
    section.text.append("What differs from the defaults of this version, from config.json.")
    after = {key: new for event in run.events for key, (_, new) in event.changes.items()}
    if after:
        now = ", ".join(f"{key[:80]} {value_text(new)}" for key, new in after.items())
        section.text.append(f"After its rollbacks the run trains with {now}.")
    section.tables.append(Table(head, differing[:300]))
    section.tables.append(Table(("setting", "value"), rows[:400], "All settings", folded=True))
    return section


def data(run: History) -> Section:
    """What is known of the data without opening them."""
    section = Section("data", "Data")
    told = next((s.data for s in reversed(run.sessions) if s.data), [])
    section.text += [text[:400] for text in told[:60]]
    digest, names = run.meta.get("data_digest"), run.config.get("class_names")
    names = [str(name)[:60] for name in names] if isinstance(names, tuple) else []
    if told:
        return section
    if run.config.get("data.source") is not None:
        section.text.append(f"Source: {value_text(run.config['data.source'])}")
    if isinstance(digest, str):
        section.text.append(f"Digest at the newest checkpoint: {digest[:12]}")
    if run.labels:
        numbers = np.array(run.labels, object)
        section.text.append(
            f"{counts(int(sum(run.labels)), 'image', 'images')} in "
            f"{counts(len(run.labels), 'class', 'classes')}, {min(numbers):,} to "
            f"{max(numbers):,} a class"
        )
    if names:
        more = f" and {len(names) - LISTED_CLASSES} more" if len(names) > LISTED_CLASSES else ""
        section.text.append(f"Classes: {', '.join(names[:LISTED_CLASSES])}{more}")
    return section


def sessions(run: History) -> Section:
    """When, by which versions and on what the run was trained."""
    section = Section("sessions", "Sessions and versions")
    rows = []
    for session in run.sessions[-SESSIONS:]:
        end = f"{session.end_step:,}" if session.end_step is not None else "?"
        how = session.outcome or ("goes on" if run.in_use else "no word of its end")
        if session.reason:
            how += f": {session.reason[:300]}"
        versions = ", ".join(f"{k} {v}"[:60] for k, v in list(session.versions.items())[:6])
        times = f"{(session.started or '?')[:40]} to {(session.ended or '?')[:40]}"
        device = (session.device or "?")[:160]
        rows.append((f"{session.step:,} to {end}", times, versions, device, how))
    if rows:
        if len(run.sessions) > len(rows):
            section.text.append(f"The last {SESSIONS} of {len(run.sessions):,}.")
        head = ("steps", "time", "versions", "device", "end")
        section.tables.append(Table(head, rows))
    elif run.meta.get("version"):
        version = value_text(run.meta["version"], 40)
        section.text.append(
            f"biggan_jax {version} wrote the newest checkpoint; other versions and the device are "
            "not recorded."
        )
    return section


def notes(found: Notes) -> Section:
    """What could not be read."""
    lines = found.lines()
    section = Section("notes", "Notes")
    if lines:
        section.text.append("What could not be read, and is not on this page:")
        section.tables.append(Table((), [(line,) for line in lines[:NOTES]]))
    return section


def _event_row(event: Event) -> tuple[Any, ...]:
    action = event.action
    if event.state == "rolled_back" and event.to_step is not None:
        action = f"back to step {event.to_step:,}"
    value = "" if event.value is None else f"{event.value:.4g}"
    value += "" if event.limit is None else f" (limit {event.limit:.4g})"
    state = STATES.get(event.state, event.state)
    return (f"{event.step:,}", state, (event.signal or "")[:80], value, action[:80], event.text)
