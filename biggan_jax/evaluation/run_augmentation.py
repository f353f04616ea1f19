"""Section of the page of a run on its augmentation: probability, and whether samples show it."""

import re

import numpy as np

from biggan_jax.evaluation import run_parts
from biggan_jax.evaluation.run_files import Curve
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_parts import Section, Table, present

WIDER, FARTHER = 1.25, 0.5  # of the spread of the data: from there on it looks like a leak
LAST = 5  # a fifth of the run is looked at, its end
PROBABILITY = {
    "augment/probability": "probability of each transform",
    "augment/r_t": "r_t",
    "augment/r_v": "r_v",
}
# Statistic -> (what it is, what of `augment` changes it).
NAMES = {
    "brightness": ("mean brightness", "colour, or what moves in or is cut out,"),
    "contrast": ("contrast", "colour, or what moves in or is cut out,"),
    "tint": ("red less blue", "colour"),
    "row": ("height of what is bright", "translation, cutout, blit or geometric"),
    "column": ("side of what is bright", "translation, cutout, blit or geometric"),
    "elongation": ("width less height", "cutout, blit or geometric"),
}
_SPREAD = re.compile(r"augment/real_([a-z]+)_spread")


def augmentation(run: History) -> Section:
    """The probability over training, and statistics of samples and data side by side."""
    section = Section("augmentation", "Augmentation")
    options = {"y": "probability, r_t, r_v", "limits": (-1, 1)}
    drawn = run_parts.plot(run, "augment", "Augmentation of D's images", PROBABILITY, **options)
    section.plots += present([drawn])
    rows, found, seen = [], [], 0
    for name in sorted(m[1] for m in map(_SPREAD.fullmatch, run.metrics) if m):
        values = [_at_end(run, f"augment/{key}") for key in _keys(name)]
        if any(value is None for value in values):
            continue
        real, real_spread, fake, fake_spread = values
        what, by = NAMES.get(name, (name, "an op"))
        wider = fake_spread / max(real_spread, 1e-6)
        farther = abs(fake - real) / max(real_spread, 1e-6)
        seen += 1
        pairs = (f"{real:.3g} +- {real_spread:.2g}", f"{fake:.3g} +- {fake_spread:.2g}")
        rows.append((what, *pairs, f"{wider:.2f}"))
        if wider > WIDER:
            found.append(f"{what} (spread {wider:.2g} times as far; {by} may change it)")
        elif farther > FARTHER:
            found.append(f"{what} (off by {farther:.2g} of its spread; {by} may change it)")
    if seen:
        head = ("not augmented", "data, mean +- spread", "samples", "spread to data's")
        section.tables.append(Table(head, rows))
        section.text.append(_judged(found))
    return section


def _judged(found: list[str]) -> str:
    """What the table says, in one sentence."""
    if not found:
        return (
            "No sign of a leak: over the last fifth of the run samples spread at most "
            f"{WIDER} times as far as the data in each of these, and their means are no more than "
            f"{FARTHER} of the data's spread away."
        )
    return (
        f"This looks like a leak of the augmentation into the samples: {'; '.join(found)}. Unless "
        "the run is young, or its classes are drawn otherwise than the data have them, lower "
        "augment.probability or leave that op or group out."
    )


def _keys(name: str) -> tuple[str, ...]:
    return f"real_{name}", f"real_{name}_spread", f"fake_{name}", f"fake_{name}_spread"


def _at_end(run: History, key: str) -> float | None:
    """The mean of a metric over the last part of the run; None where it has no finite value."""
    curve: Curve | None = run.metrics.get(key)
    if curve is None:
        return None
    last = curve.steps[-1]
    values = curve.after(int(last - last // LAST)).values
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
