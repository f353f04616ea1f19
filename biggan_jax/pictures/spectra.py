"""Plots of singular values: over training, and whole spectra at one step."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from biggan_jax.pictures.plots import EPSILON, rendered
from biggan_jax.pictures.size import SCREEN, Size

TITLES = {"g": "generator", "d": "discriminator"}
ROWS_A_COLUMN = 20  # of the legend
RANK = "rank of the singular value, 0 to 1"
NARROW, LEGEND_BELOW = 0.6, 2  # of the width that it takes; columns of a legend below its panel
_WORDS = {"raw_sigma0": "largest singular value before spectral normalisation"}
_WORDS |= {"sigma0": "largest singular value as the layer uses it", "ratio": "sigma0 / sigma1"}
_LEAST = 1e-6  # of the largest value of a plot: what is drawn of a value that is 0


def over_training(
    curves: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    value: str = "raw_sigma0",
    size: Size = SCREEN,
) -> Image.Image:
    """Draws one singular value of every layer of both players over training.

    Args:
      curves: {'g' or 'd': {layer: (steps [N], values [N])}}, layers from the first to the last; a
        value that is not finite leaves a gap.
      value: what is drawn, for the axis.
      size: of the picture.

    Returns:
      The picture, in mode 'RGB'.

    References:
      Brock et al. 2019, figure 3 and appendix F.
    """
    figure, panels, narrow = _panels(curves, size)
    for axes, (player, layers) in zip(panels, curves.items(), strict=True):
        for color, (name, (steps, values)) in zip(_colors(layers), layers.items(), strict=True):
            mark = "o" if len(steps) == 1 else None  # a line of one point is not seen
            axes.plot(steps, values, color=color, label=name, linewidth=1.2, marker=mark)
        _finish(axes, player, layers, "generator updates", _WORDS.get(value, value), narrow)
    return rendered(figure)


def at_one_step(spectra: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """Draws all singular values of every layer of both players.

    Args:
      spectra: {'g' or 'd': {layer: singular values in descending order}}.

    Returns:
      The picture, in mode 'RGB'.
    """
    figure, panels, narrow = _panels(spectra, SCREEN)
    for axes, (player, layers) in zip(panels, spectra.items(), strict=True):
        for color, (name, values) in zip(_colors(layers), layers.items(), strict=True):
            values = np.asarray(values, np.float64)
            floored = np.maximum(values, _LEAST * max(values.max(), _LEAST))
            place = np.linspace(0, 1, len(values)) if len(values) > 1 else [0]
            mark = "o" if len(values) == 1 else None
            axes.plot(place, floored, color=color, label=name, linewidth=1.2, marker=mark)
        _finish(axes, player, layers, RANK, "singular value", narrow)
    return rendered(figure)


def _panels(players: Mapping[str, Mapping], size: Size):
    """(figure, one panel a player, whether they stand one below another in a narrow picture)."""
    from matplotlib.figure import Figure

    columns = [_legend_columns(layers) for layers in players.values()]
    widths = [5.2 + 2.2 * n for n in columns]
    width = size.inches(sum(widths))
    if narrow := width < NARROW * sum(widths):
        lines = sum(-(-len(layers) // LEGEND_BELOW) for layers in players.values())
        high = (0.72 * width + 0.6) * len(players) + 0.15 * lines
        figure = Figure(figsize=(width + EPSILON, high), layout="constrained", dpi=size.dpi)
        return figure, figure.subplots(len(players), 1, squeeze=False)[:, 0], narrow
    high = 5.2 * max(0.7, width / sum(widths))
    figure = Figure(figsize=(width + EPSILON, high), layout="constrained", dpi=size.dpi)
    return figure, figure.subplots(1, len(players), squeeze=False, width_ratios=widths)[0], narrow


def _legend_columns(layers: Mapping) -> int:
    return -(-len(layers) // ROWS_A_COLUMN)


def _colors(layers: Mapping) -> np.ndarray:
    """One colour a layer, from dark to light along the depth; the lightest are no lines."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0, 0.93, len(layers)))


def _finish(axes, player: str, layers: Mapping, x: str, y: str, narrow: bool) -> None:
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.set_title(f"{TITLES[player]}: {len(layers)} layers, first to last", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    columns = LEGEND_BELOW if narrow else _legend_columns(layers)
    if narrow:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22)}
    axes.legend(fontsize=7, ncols=columns, frameon=False, **place)
