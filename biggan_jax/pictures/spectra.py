"""Plots of singular values: over training, and whole spectra at one step."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from biggan_jax.pictures.plots import DPI, rendered

TITLES = {"g": "generator", "d": "discriminator"}
ROWS_A_COLUMN = 20  # of the legend
_WORDS = {"raw_sigma0": "largest singular value before spectral normalisation"}
_WORDS |= {"sigma0": "largest singular value as the layer uses it", "ratio": "sigma0 / sigma1"}
_LEAST = 1e-6  # of the largest value of a plot: what is drawn of a value that is 0


def over_training(
    curves: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    value: str = "raw_sigma0",
) -> Image.Image:
    """Draws one singular value of every layer of both players over training.

    Args:
      curves: {'g' or 'd': {layer: (steps [N], values [N])}}, layers from the first to the last; a
        value that is not finite leaves a gap.
      value: what is drawn, for the axis.

    Returns:
      The picture, in mode 'RGB'.

    References:
      Brock et al. 2019, figure 3 and appendix F.
    """
    figure, panels = _panels(curves)
    for axes, (player, layers) in zip(panels, curves.items(), strict=True):
        for color, (name, (steps, values)) in zip(_colors(layers), layers.items(), strict=True):
            mark = "o" if len(steps) == 1 else None  # a line of one point is not seen
            axes.plot(steps, values, color=color, label=name, linewidth=1.2, marker=mark)
        _finish(axes, player, layers, "generator updates", _WORDS.get(value, value))
    return rendered(figure)


def at_one_step(spectra: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """Draws all singular values of every layer of both players.

    Args:
      spectra: {'g' or 'd': {layer: singular values in descending order}}.

    Returns:
      The picture, in mode 'RGB'.
    """
    figure, panels = _panels(spectra)
    for axes, (player, layers) in zip(panels, spectra.items(), strict=True):
        for color, (name, values) in zip(_colors(layers), layers.items(), strict=True):
            values = np.asarray(values, np.float64)
            floored = np.maximum(values, _LEAST * max(values.max(), _LEAST))
            place = np.linspace(0, 1, len(values)) if len(values) > 1 else [0]
            mark = "o" if len(values) == 1 else None
            axes.plot(place, floored, color=color, label=name, linewidth=1.2, marker=mark)
        _finish(axes, player, layers, "rank of the singular value, 0 to 1", "singular value")
    return rendered(figure)


def _panels(players: Mapping[str, Mapping]):
    """(figure, one panel a player), wide enough for the legends beside them."""
    from matplotlib.figure import Figure

    columns = [_legend_columns(layers) for layers in players.values()]
    widths = [5.2 + 2.2 * n for n in columns]
    figure = Figure(figsize=(sum(widths), 5.2), layout="constrained", dpi=DPI)
    return figure, figure.subplots(1, len(players), squeeze=False, width_ratios=widths)[0]


def _legend_columns(layers: Mapping) -> int:
    return -(-len(layers) // ROWS_A_COLUMN)


def _colors(layers: Mapping) -> np.ndarray:
    """One colour a layer, from dark to light along the depth; the lightest are no lines."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0, 0.93, len(layers)))


def _finish(axes, player: str, layers: Mapping, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.set_title(f"{TITLES[player]}: {len(layers)} layers, first to last", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(
        fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), ncols=_legend_columns(layers),
        borderaxespad=0, frameon=False,
    )  # fmt: skip
