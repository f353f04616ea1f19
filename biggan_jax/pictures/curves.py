"""Curves over training as pictures inside a page: SVG without a legend, a title or an address.

Text and axes have the colour of the page's text, so that one picture serves a light and a dark one.
"""

import dataclasses
import io
import re
from collections.abc import Sequence

import numpy as np

# Okabe & Ito's colours, which colour-blind people tell apart; all are seen on black and on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#8a8a8a"
RAMP = (0, 114, 178), (178, 111, 168), (213, 94, 0)  # of many lines: blue, purple, vermillion
FEW = 12  # points of a curve that are marked one by one
BINS = 220  # of a thinned curve, each drawn by its least and its largest value
FEWEST_BINS = 40  # where the lines are many
VECTOR_POINTS = 12_000  # of a picture; the lines of one with more are pixels
LARGEST = 1e30  # what is drawn of a larger value
SIZE = 4.1, 2.45  # inches: 394 pixels of a page, a phone's width
LEFT, RIGHT, BOTTOM, TOP = 0.155, 0.98, 0.185, 0.95  # of the axes, shares of the picture
EDGE = 0.01  # of the picture, left of the label of the y axis
_INK = "#010203"  # becomes the colour of the page's text
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, readable aloud, in the page's own font
    "svg.hashsalt": "biggan",  # the same curves give the same bytes
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.formatter.limits": (-4, 5),
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
      label: for the legend, which the page draws.
      steps, values: [N] each; NaN leaves a gap.
      color: of matplotlib, as #rrggbb.
      dash: 'solid', 'dashed', 'dotted' or 'dashdot'.
      pale: whether it stands in the background.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: str
    dash: str = "solid"
    pale: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """A vertical line at a step."""

    step: int
    color: str
    dash: str = "solid"


def ramp(count: int) -> list[str]:
    """Colours of many lines in their order, as #rrggbb."""
    places = np.linspace(0, len(RAMP) - 1, max(count, 1))
    channels = [np.interp(places, range(len(RAMP)), values) for values in zip(*RAMP, strict=True)]
    mixed = np.rint(np.stack(channels, axis=1)).astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in mixed.tolist()]


def thinned(steps: np.ndarray, values: np.ndarray, bins: int = BINS) -> tuple:
    """A curve of at most `2 * bins` points that keeps every peak, the first and the last point.

    Args:
      steps, values: [N], steps ascending.
      bins: parts of equal length, of each of which the least and the largest value are kept.

    Returns:
      (steps, values) in their order.
    """
    if len(steps) <= 2 * bins:
        return steps, values
    kept = {0, len(steps) - 1}
    edges = np.linspace(0, len(steps), bins).round().astype(int)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = values[start:stop]
        if np.isnan(part).all():
            kept.add(int(start))  # the gap stays
        else:
            kept |= {int(start + np.nanargmin(part)), int(start + np.nanargmax(part))}
    chosen = sorted(kept)
    return steps[chosen], values[chosen]


def svg(
    name: str,
    lines: Sequence[Line],
    *,
    y: str,
    marks: Sequence[Mark] = (),
    log: bool = False,
    limits: tuple[float | None, float | None] = (None, None),
    last: int | None = None,
    x: str = "generator updates",
) -> str:
    """Draws curves over training.

    Args:
      name: of the picture in its page; letters and digits.
      lines: the curves.
      y, x: the axes, with their units.
      marks: vertical lines.
      log: whether the y axis is logarithmic; without it one that has values far beyond most of the
        others is so beyond those.
      limits: of the y axis; None follows the curves.
      last: step at the end of the x axis, which begins at 0; None follows the curves.

    Returns:
      An `<svg>` element for an HTML page, without a name of its own and without namespaces.
    """
    import matplotlib
    import matplotlib.ticker
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=SIZE, dpi=160)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((LEFT, BOTTOM, RIGHT - LEFT, TOP - BOTTOM))
        bins = max(FEWEST_BINS, min(BINS, BINS * 8 // max(1, len(lines))))
        drawn = [(line, *_drawable(line, bins)) for line in lines]
        few = FEW if len(lines) <= FEW else 1  # a line of one point is not seen
        pixels = sum(len(steps) for _, steps, _ in drawn) > VECTOR_POINTS
        for mark in marks:
            axes.axvline(mark.step, color=mark.color, linestyle=mark.dash, linewidth=1.1, zorder=1)
        for line, steps, values in drawn:
            axes.plot(
                steps,
                values,
                color=line.color,
                linestyle=line.dash,
                linewidth=1.0 if line.pale or len(lines) > 8 else 1.4,
                alpha=0.55 if line.pale else 1,
                marker="o" if np.isfinite(values).sum() <= (1 if line.pale else few) else None,
                markersize=3,
                rasterized=pixels,
                zorder=2 if line.pale else 3,
            )
        _scale(axes, [values for _, _, values in drawn], log, limits)
        if last is not None:
            axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.25, linewidth=0.6, color=GREY)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(_step_text))
        _make_room(figure, axes)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), name)


def _make_room(figure, axes) -> None:
    """Moves the axes to the right where the numbers beside them push their label out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before = figure.canvas
    taken = axes.yaxis.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    figure.set_canvas(before)
    out = EDGE - taken.x0 / figure.bbox.width
    if out > 0:
        axes.set_position((LEFT + out, BOTTOM, RIGHT - LEFT - out, TOP - BOTTOM))


def _drawable(line: Line, bins: int) -> tuple[np.ndarray, np.ndarray]:
    steps, values = thinned(np.asarray(line.steps), np.asarray(line.values, np.float64), bins)
    return steps, np.clip(values, -LARGEST, LARGEST)


def _scale(axes, curves: Sequence[np.ndarray], log: bool, limits: tuple) -> None:
    """The y axis: logarithmic, logarithmic beyond most values, or linear."""
    import matplotlib.ticker

    finite = [values[np.isfinite(values)] for values in curves]
    found = np.abs(np.concatenate(finite)) if finite else np.zeros(0)
    if log and (found > 0).any():
        if found.max() > 3 * found[found > 0].min():  # without a decade no tick has a label
            axes.set_yscale("log", nonpositive="clip")
            axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(_value_text))
            few = matplotlib.ticker.LogFormatter(minor_thresholds=(1.5, 0.5))
            axes.yaxis.set_minor_formatter(few)
    elif len(found) and found.max() > 30 * max(np.quantile(found, 0.8), 1e-12):
        axes.set_yscale("symlog", linthresh=max(2 * np.quantile(found, 0.8), 1e-12))
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(_value_text))
    if limits != (None, None):
        axes.set_ylim(*limits)


def _value_text(value: float, _) -> str:
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def _step_text(step: float, _) -> str:
    if abs(step) >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if abs(step) >= 1e4 else f"{step:,.10g}"


def _inline(text: str, name: str) -> str:
    """An SVG file as an element of a page: no head, no namespace, short numbers, ids of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", text, count=5)
    text = text.replace(_INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    # Inside tags alone: what stands between them is the number at a tick.
    text = re.sub(r"<[^>]*>", lambda m: re.sub(r"(\d\.\d)\d+", r"\1", m[0]), text)
    used = set(re.findall(r"(?:url\(|href=\")#([\w.-]+)", text))
    text = re.sub(r' id="([\w.-]+)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r'(id="|#)(?=[a-z]\w{10}\b)', rf"\g<1>{name}-", text)
    return re.sub(r"\s*\n\s*", " ", text).strip()
