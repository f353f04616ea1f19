"""What the page of a run is made of: sections of text, plots, pictures and tables."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from biggan_jax.evaluation.run_files import Curve, Metrics, Notes, reason
from biggan_jax.evaluation.run_history import History
from biggan_jax.pictures import curves, embedded

MARKS = 40  # of one kind that a plot shows
DESCRIBED = 4  # lines of a plot whose values are told to people who do not see it
# What is marked on every plot: (name, colour, dash), by the state of an event and two more.
KINDS = {
    "warning": ("warning of the guard", "#e69f00", "dotted"),
    "collapsed": ("collapsed", "#d55e00", "solid"),
    "rolled_back": ("rolled back from here", "#0072b2", "dashed"),
    "fork": ("fork; grey curves are those of the parent run", curves.GREY, "solid"),
    "change": ("settings changed", curves.GREY, "dotted"),
}
GREYS = ("solid", "dashed", "dotted", "dashdot")  # of the parent's curves of one plot
ABANDONED = "abandoned by a rollback", "currentColor", "dashed"  # in a legend


@dataclasses.dataclass(frozen=True)
class Plot:
    """Curves: title, an `<svg>` element, what it shows in words, legend [(text, colour, dash)]."""

    title: str
    svg: str
    alt: str
    legend: list[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture: what stands below it, what it shows in words, its data and size (px)."""

    caption: str
    alt: str
    uri: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts below their heads, which may sort them; a long one is folded under `title`."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    folded: bool = False
    sortable: bool = False


@dataclasses.dataclass
class Section:
    """A part of the page, with a name for its address in it."""

    name: str
    title: str
    text: list[str] = dataclasses.field(default_factory=list)
    plots: list[Plot] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)

    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.text or self.plots or self.pictures or self.tables)


def plot(
    run: History,
    name: str,
    title: str,
    shown: Mapping[str, str],
    *,
    y: str,
    colors: Sequence[str] = curves.COLORS,
    **options: Any,
) -> Plot | None:
    """Draws metrics of a run, with what was abandoned and what it was forked from.

    Args:
      run: the history.
      name: of the picture in the page; letters and digits.
      title: above it.
      shown: {metric: its name in the legend}; those that the run has not are left out.
      y: the axis, with its unit.
      colors: of the metrics, in turn.
      options: of `curves.svg`.

    Returns:
      The plot; None where the run has none of the metrics.
    """
    found = {key: label for key, label in shown.items() if key in run.metrics}
    found |= {k: v for k, v in shown.items() if any(k in a.metrics for a in run.attempts)}
    if not found:
        return None
    palette = {key: colors[i % len(colors)] for i, key in enumerate(shown)}
    lines = []
    for i, (key, label) in enumerate(found.items()):
        lines += _behind(run, key, label, palette[key], GREYS[i % len(GREYS)])
    for key, label in found.items():
        if key in run.metrics:
            curve = run.metrics[key]
            lines.append(curves.Line(label, curve.steps, curve.values, palette[key]))
    options.setdefault("last", last_drawn(run))
    picture = curves.svg(name, lines, y=y, marks=marks(run), **options)
    own = [line for line in lines if not line.pale]
    behind = [line for line in lines if line.pale and line.color == curves.GREY]
    legend = [(line.label, line.color, line.dash) for line in own + behind]
    legend += [ABANDONED] * any(key in a.metrics for a in run.attempts for key in found)
    named = legend if len(legend) > 1 else []  # the title names a single one
    return Plot(title, picture, described(title, run.metrics, found), named)


def _behind(run: History, key: str, label: str, color: str, dash: str) -> list[curves.Line]:
    """The curves of one metric that are not the run's own."""
    lines = []
    if run.fork is not None and key in run.fork.metrics:
        curve = run.fork.metrics[key]
        lines.append(
            curves.Line(f"{label}, parent", curve.steps, curve.values, curves.GREY, dash, pale=True)
        )
    for attempt in run.attempts:
        if key in attempt.metrics:
            curve = attempt.metrics[key]
            lines.append(curves.Line(label, curve.steps, curve.values, color, "dashed", pale=True))
    return lines


def last_drawn(run: History) -> int:
    """The last step of all plots, which have one axis, so that an event stands at one place."""
    known = [run.metrics, *(attempt.metrics for attempt in run.attempts)]
    known += [] if run.fork is None else [run.fork.metrics]
    ends = [int(curve.steps[-1]) for found in known for curve in found.values()]
    return max([*ends, *(event.step for event in run.events)], default=1)


def marks(run: History) -> list[curves.Mark]:
    """What is marked on every plot."""
    return [
        curves.Mark(step, *KINDS[kind][1:])
        for kind, steps in marked(run).items()
        for step in spread(steps, MARKS)
    ]


def marked(run: History) -> dict[str, list[int]]:
    """The steps that are marked, of every one of `KINDS` that a run has."""
    found = {kind: steps_of(run, kind) for kind in KINDS}
    back = set(found["rolled_back"])  # one line where a rollback followed a collapse at once
    found["collapsed"] = [step for step in found["collapsed"] if step not in back]
    return {kind: sorted(set(steps)) for kind, steps in found.items() if steps}


def steps_of(run: History, kind: str) -> list[int]:
    """The steps of what is marked, of one of `KINDS`."""
    if kind == "fork":
        return [] if run.fork is None else [run.fork.step]
    if kind == "change":
        return [step for step, _ in run.changes]
    return [event.step for event in run.events if event.state == kind]


def described(title: str, metrics: Metrics, shown: Mapping[str, str]) -> str:
    """A plot in words, for people who do not see it."""
    told = [f"{label}: {_course(metrics[key])}" for key, label in shown.items() if key in metrics]
    more = f"; and {len(told) - DESCRIBED} more" if len(told) > DESCRIBED else ""
    return f"{title} over generator updates. " + "; ".join(told[:DESCRIBED]) + more


def _course(curve: Curve) -> str:
    whole = np.isfinite(curve.values)
    if not whole.any():
        return "no finite value"
    steps, values = curve.steps[whole], curve.values[whole]
    return (
        f"from {values[0]:.3g} at step {steps[0]:,} to {values[-1]:.3g} at step {steps[-1]:,}, "
        f"least {values.min():.3g}, largest {values.max():.3g}"
    )


def picture(path: Any, caption: str, alt: str, notes: Notes) -> Picture | None:
    """A picture of a run; None, and a note, where it cannot be read."""
    name = "/".join(path.parts[-2:])
    try:
        uri, (width, height) = embedded.data_uri(path.read_bytes())
    except (OSError, ValueError) as error:
        notes.add(f"{name} cannot be shown: {reason(error)}")
        return None
    return Picture(caption, alt, uri, width, height)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Some of many, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def value_text(value: Any, width: int = 160) -> str:
    """A setting as a person writes it, shortened."""
    if value is None:
        return "unset"
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = f"({', '.join(map(str, value))}{',' * (len(value) == 1)})"
    else:
        text = json.dumps(value, default=str)
    return text if len(text) <= width else f"{text[: width - 20]}... ({len(text):,} characters)"


def present(found: Iterable[Any]) -> list[Any]:
    """Those that are not None."""
    return [item for item in found if item is not None]
