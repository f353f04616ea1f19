"""A mean and a deviation in place of one value."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from biggan_jax import errors


def over(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The mean and the deviation of every metric over runs.

    Args:
      metrics: {name: number} of every run; a run may lack one, or have None there.

    Returns:
      {name: {mean, deviation, count}}: the standard deviation of a sample (n - 1), None of a single
      value. What counts steps has none.
    """
    found = {}
    for name in sorted({name for own in metrics for name in own}):
        values = [own[name] for own in metrics if own.get(name) is not None]
        if values and not name.endswith("step"):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            mean = statistics.fmean(values)
            found[name] = {"mean": mean, "deviation": deviation, "count": len(values)}
    return found


def text_of(spread: Mapping[str, Any] | None) -> str:
    """'1.234 ± 0.056', as `over` has it."""
    if spread is None:
        return "-"
    return errors.spread(spread["mean"], spread["deviation"])
