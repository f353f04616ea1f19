"""The numbers by which a collapse is seen coming, and when one of them has gone too far.

Each signal is one number followed over the steps of a run: the median (or the peak) of its newest
values is compared with that of those before, the reference, which stands still while the signal is
out of bounds. What a series knows is plain numbers, which lie in every checkpoint.
"""

import collections
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

WARNING, COLLAPSED = "warning", "collapsed"


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a signal is out of bounds.

    Attributes:
      what: the signal, in words.
      window: newest values whose median counts.
      reference: values before them, with whose median they are compared.
      needed: of those, before anything is judged.
      fall: (warning, collapsed), factors below 1: the median is below that many references.
      rise: (warning, collapsed), factors above 1: it is above that many.
      least: (warning, collapsed): it is below, whatever the reference.
      most: (warning, collapsed): it is above, whatever the reference.
      floor: the least that a reference is taken for.
      of: the number that stands for some values.
    """

    what: str
    window: int
    reference: int
    needed: int
    fall: tuple[float, float] | None = None
    rise: tuple[float, float] | None = None
    least: tuple[float, float] | None = None
    most: tuple[float, float] | None = None
    floor: float = 1e-12
    of: Callable[[Iterable[float]], float] = statistics.median

    @property
    def only_warns(self) -> bool:
        """Whether no value tells a collapse: such a signal is advice."""
        limits = filter(None, (self.fall, self.rise, self.least, self.most))
        return not any(math.isfinite(collapsed) for _, collapsed in limits)

    def passed(self, value: float, reference: float | None) -> tuple[str, float] | None:
        """(state, limit) of the limit that a value has passed; None where it is in bounds."""
        lows, highs = [self.least], [self.most]
        if reference is not None:
            scale = max(reference, self.floor)
            lows.append(self.fall and tuple(x * scale for x in self.fall))
            highs.append(self.rise and tuple(x * scale for x in self.rise))
        for i, state in ((1, COLLAPSED), (0, WARNING)):
            for limits, is_low in (*((x, True) for x in lows), *((x, False) for x in highs)):
                if limits and (value < limits[i] if is_low else value > limits[i]):
                    return state, limits[i]
        return None


# What every step gives. In 24 healthy runs of digits and Fashion-MNIST with five losses the
# gradients stayed within a factor of 4 of their reference; where a player dies they fall by more
# than 100 within 15 steps, where one diverges they rise by 10 (docs/stability.md).
_GRADIENT = Rule("", 10, 100, 60, fall=(1 / 5, 1 / 8), rise=(8, 16))
OF_A_STEP = {
    "d_grad_norm": dataclasses.replace(_GRADIENT, what="the norm of D's gradient"),
    "g_grad_norm": dataclasses.replace(_GRADIENT, what="the norm of G's gradient"),
    "gap": Rule("D(real) - D(fake)", 10, 100, 60, rise=(8, 16), floor=1.0),
    "loss_peak": Rule("the peak of the losses", 5, 100, 60, rise=(2.5, 8), floor=0.1, of=max),
}
# What is looked at more rarely.
OF_A_LOOK = {
    "diversity": Rule(
        "the distance of samples of a class in D's features, real ones at 1,",
        *(1, 20, 3),  # a collapse of G may take a thousand steps
        fall=(1 / 4, 1 / 8),
        least=(0.05, 0.02),
    ),
    "d_features": Rule(
        "the distance of real images in D's features",
        *(1, 6, 3),
        fall=(1 / 8, 1 / 20),
        rise=(8, math.inf),
    ),
    "sigma0": Rule("the largest singular value of G's weight", 1, 6, 3, rise=(3, 10)),
    "held_out": Rule(
        "D's accuracy on training images less that on held-out ones", 2, 1, 0, most=(0.4, math.inf)
    ),
    "fid": Rule("FID", 1, 4, 3, rise=(2, 6)),
}


def of_step(metrics: Mapping[str, float]) -> dict[str, float]:
    """The signals among the metrics of a step, as magnitudes."""
    found = {name: abs(metrics[name]) for name in OF_A_STEP if name in metrics}
    losses = [abs(metrics[name]) for name in ("d_loss", "g_loss") if name in metrics]
    if losses:
        found["loss_peak"] = max(losses)
    if {"d_real", "d_fake"} <= metrics.keys():
        found["gap"] = abs(metrics["d_real"] - metrics["d_fake"])
    return found


def of_monitors(values: Mapping[str, float]) -> dict[str, float]:
    """The signals among what the monitors measured; one for every layer of G."""
    prefix = "monitor/g/raw_sigma0/"
    found = {
        f"sigma0/{name.removeprefix(prefix)}": value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    sides = [f"monitor/d/accuracy_{side}" for side in ("train", "held_out")]
    if all(side in values for side in sides):
        found["held_out"] = values[sides[0]] - values[sides[1]]
    return found


def of_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The signal among the scores of a step."""
    return {"fid": scores["fid"]} if "fid" in scores else {}


def rule_of(name: str) -> Rule:
    """The rule of a signal, such as 'gap' or 'sigma0/block_0/conv1'."""
    return OF_A_STEP.get(name) or OF_A_LOOK[name.partition("/")[0]]


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One signal out of bounds.

    Attributes:
      signal: its name.
      state: WARNING or COLLAPSED.
      value: the median of its newest values.
      limit: that it has passed.
      text: what happened, a clause.
    """

    signal: str
    state: str
    value: float
    limit: float
    text: str


class Series:
    """The values of one signal.

    Attributes:
      only_warns: whether it never tells a collapse.
      good_until: the last step with a value in bounds, before those that are not; None where all
        are.
    """

    def __init__(self, name: str, kept: Mapping[str, Any] | None = None):
        self.name, self._rule, kept = name, rule_of(name), kept or {}
        self._new = collections.deque(kept.get("new", ()), maxlen=self._rule.window)
        self._old = collections.deque(kept.get("old", ()), maxlen=self._rule.reference)
        self._reference: float | None = kept.get("reference")
        self.only_warns = self._rule.only_warns
        self.good_until: int | None = kept.get("good_until")
        self._last_good, self._in_bounds = kept.get("last_good", 0), kept.get("in_bounds", 0)

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        kept = {"new": list(self._new), "old": list(self._old), "reference": self._reference}
        marks = {"last_good": self._last_good, "in_bounds": self._in_bounds}
        return kept | marks | {"good_until": self.good_until}

    def add(self, step: int, value: float) -> None:
        """Takes the next value, of a finished step."""
        if self.good_until is None and len(self._new) == self._rule.window:
            self._old.append(self._new[0])
        self._new.append(value)
        if self._rule.passed(value, self._reference) is None:
            self._last_good, self._in_bounds = step, self._in_bounds + 1
        else:
            self._in_bounds = 0
            if self.good_until is None:
                self.good_until = self._last_good

    def judge(self) -> Alarm | None:
        """What is wrong with the newest values; None where nothing is, or too few are known."""
        if len(self._old) >= max(self._rule.needed, 1):
            self._reference = self._rule.of(self._old)
        if len(self._new) < self._rule.window:
            return None
        value = self._rule.of(self._new)
        found = self._rule.passed(value, self._reference)
        if found is None:
            if self._in_bounds >= self._rule.window:
                self.good_until = None  # what was a lone value is forgotten
            return None
        state, limit = found
        layer = self.name.partition("/")[2]
        what = f"{self._rule.what}{layer and f' {layer}'}"
        was = "" if self._reference is None else f" (was {self._reference:.3g})"
        return Alarm(self.name, state, value, limit, f"{what} is {value:.3g}{was}")
