"""Which run of a sweep is the best one, and whether that is more than chance."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from biggan_jax.evaluation.run_plots import SCORES, SMALL
from biggan_jax.sweep import spread
from biggan_jax.sweep.page_data import Entry
from biggan_jax.sweep.results import PROTOCOL

# By which the runs are compared: the first that at least one of them has.
ORDER = ("fid", "kid", "intra_fid", "is_mean", "class_accuracy")


@dataclasses.dataclass(frozen=True)
class Best:
    """The best run.

    Attributes:
      name: of its folder; None where no run can be called so.
      score: the metric by which the runs are compared; None where they have none.
      sentence: for people.
      is_win: whether it is better than the next one by more than the deviations of either; None
        where that is not known.
    """

    name: str | None
    score: str | None
    sentence: str
    is_win: bool | None = None


def score_of(entries: Sequence[Entry]) -> str | None:
    """The metric by which runs are compared."""
    named = {name for entry in entries for name in entry.scores}
    return next((f"eval/{name}" for name in ORDER if f"eval/{name}" in named), None)


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The runs, those with the best score first and those without one last."""
    score = score_of(entries)
    sign = 1 if score is None or score.removeprefix("eval/") in SMALL else -1

    def key(entry: Entry) -> tuple:
        found = entry.scores.get(score)
        return found is None, 0 if found is None else sign * found["mean"]

    return sorted(entries, key=key)


def mixed(entries: Sequence[Entry]) -> list[str]:
    """The settings of the protocol of scores in which runs differ."""
    configs = [entry.config for entry in entries if entry.config]
    return [key for key in PROTOCOL if len({repr(c.get(key)) for c in configs}) > 1]


def find(entries: Sequence[Entry]) -> Best:
    """The best run of a sweep.

    Args:
      entries: the runs.
    """
    score = score_of(entries)
    if score is None:
        return Best(
            None,
            None,
            "No run is called the best: none has been scored; "
            "`biggan train --config.eval_every_steps=N` scores each",
        )
    differing = mixed(entries)
    if differing:
        return Best(
            None,
            score,
            "No run is called the best: they differ in "
            f"{', '.join(differing)}, and their scores follow different protocols",
        )
    scored = [entry for entry in ranked(entries) if score in entry.scores]
    first, name = scored[0], score.removeprefix("eval/")
    words = SCORES.get(name, name).partition(" (")[0]
    side = "lowest" if name in SMALL else "highest"
    value = spread.text_of(first.scores[score])
    text = f"Best by the {side} {words}: {first.name}, {value}"
    if len(scored) == 1:
        return Best(first.name, score, f"{text}; no other run has been scored")
    second = scored[1]
    other = f"{second.name} has {spread.text_of(second.scores[score])}"
    win, why = _judged(first.scores[score], second.scores[score])
    return Best(first.name, score, f"{text}; {other}: {why}", win)


def _judged(first: dict[str, Any], second: dict[str, Any]) -> tuple[bool | None, str]:
    """(whether a difference is a win, why)."""
    gap = abs(first["mean"] - second["mean"])
    deviations = [one["deviation"] for one in (first, second) if one["deviation"] is not None]
    if len(deviations) < 2:
        return None, (
            "with one seed each nobody knows how far a seed alone moves the score; "
            "`biggan train --seeds K` measures it"
        )
    shown = f"a difference of {gap:.3g}"
    if gap < min(deviations):
        return False, f"{shown}, smaller than both deviations, is no win"
    if gap < max(deviations):
        return False, f"{shown} is smaller than one of the two deviations: take more seeds"
    return True, f"{shown} is larger than both deviations"
