"""Plot of D's judgement of real images that it was trained on, and of others."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from biggan_jax.pictures.plots import EPSILON, rendered
from biggan_jax.pictures.size import SCREEN, Size

SIDES = {"train": ("training", "-"), "held_out": ("held out", "--")}
PANELS = {
    "accuracy": "share of real images with a positive logit",
    "logit": "mean logit of real images",
}
WIDTH, NARROW = 11, 0.6  # inches; the share of them below which one panel stands below the other
WINDOW = 5  # measurements of the running mean: one is of as many images as one batch has


def over_training(
    curves: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    size: Size = SCREEN,
) -> Image.Image:
    """Draws D's accuracy and mean logit on training and on held-out images over training.

    Args:
      curves: {run: {'accuracy_train', 'accuracy_held_out', 'logit_train' and 'logit_held_out':
        (steps [N], values [N])}}.
      size: of the picture.

    Returns:
      The picture, in mode 'RGB': what was measured as thin lines, its running mean as thick ones.

    References:
      Brock et al. 2019, section 4.2.
    """
    from matplotlib.figure import Figure

    width = size.inches(WIDTH)
    narrow = width < NARROW * WIDTH
    shape, high = ((2, 1), 1.7 * width) if narrow else ((1, 2), 4.4 * max(0.7, width / WIDTH))
    figure = Figure(figsize=(width + EPSILON, high), layout="constrained", dpi=size.dpi)
    for axes, (what, label) in zip(figure.subplots(*shape), PANELS.items(), strict=True):
        for number, (run, found) in enumerate(curves.items()):
            color = f"C{number % 10}"
            for side, (name, style) in SIDES.items():
                steps, values = found[f"{what}_{side}"]
                axes.plot(steps, values, style, color=color, alpha=0.25, linewidth=0.8)
                mean = running_mean(values)
                mark = "o" if len(steps) == 1 else None  # a line of one point is not seen
                text = f"{run}: {name}"
                axes.plot(steps, mean, style, color=color, label=text, linewidth=1.8, marker=mark)
        axes.set(xlabel="generator updates", ylabel=label)
        axes.set_title(f"D's {what} on real images", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return rendered(figure)


def running_mean(values: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """The mean of each value and those before it, at most `window`; NaN counts for nothing.

    Args:
      values: [N].
      window: how many.
    """
    x = np.asarray(values, np.float64)
    parts = [x[max(0, i - window + 1) : i + 1] for i in range(len(x))]
    return np.array([np.mean(p[np.isfinite(p)]) if np.isfinite(p).any() else np.nan for p in parts])
