"""Plots of scores."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

DPI = 110
EPSILON = 1e-6  # inches: so that a width in whole pixels is not rounded down
VARIETY = ("precision", "recall", "density", "coverage", "class_accuracy")


def truncation_curve(
    truncations: Sequence[float], scores: Mapping[str, Sequence[float]]
) -> Image.Image:
    """Draws the fidelity/variety curve: FID against IS, and the other scores per threshold.

    Args:
      truncations: thresholds in ascending order, [N].
      scores: {name: [N]}; `fid` and `is_mean`, and any of `VARIETY`.

    Returns:
      The picture, in mode 'RGB'.

    References:
      Brock et al. 2019, figure 2b and appendix D (IS against FID per truncation threshold).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=DPI)
    left, right = figure.subplots(1, 2)
    left.plot(scores["is_mean"], scores["fid"], "o-", color="tab:blue")
    for x, y, t in zip(scores["is_mean"], scores["fid"], truncations, strict=True):
        place = {"xytext": (-7, 1), "textcoords": "offset points", "ha": "right"}
        left.annotate(f"{t:g}", (x, y), fontsize=8, **place)
    left.margins(0.08)
    left.set(xlabel="IS (fidelity: right is better)", ylabel="FID (lower is better)")
    left.set_title("FID against IS at each truncation threshold", fontsize=10)
    shown = [(name, mark) for name, mark in zip(VARIETY, "os^vD", strict=True) if name in scores]
    for name, mark in shown:
        label = name.replace("_", " ")
        right.plot(truncations, scores[name], f"{mark}-", label=label, markersize=5)
    right.set(xlabel="truncation threshold", ylim=(0, None))
    right.set_title("Fidelity and variety", fontsize=10)
    if shown:
        right.legend(fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return rendered(figure)


def rendered(figure) -> Image.Image:
    """A matplotlib figure as a picture in mode 'RGB', without a display.

    Labels of y axes that are longer than their axis, as in a narrow picture, get several lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    if any([_wrapped(axes) for axes in figure.axes]):
        canvas.draw()
    return Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")


def _wrapped(axes) -> bool:
    """Breaks the label of a drawn y axis where it sticks out; whether it did."""
    label = axes.yaxis.label
    high, room = label.get_window_extent().height, axes.get_window_extent().height
    if high <= room:
        return False
    text = label.get_text()
    label.set_text(textwrap.fill(text, max(1, int(len(text) * room / high) - 1)))
    return True
