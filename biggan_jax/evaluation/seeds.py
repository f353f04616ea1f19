"""Scores over several seeds of the samples: their mean, and how far they lie apart."""

import statistics
from collections.abc import Callable
from typing import Any

from biggan_jax.evaluation import protocol


def over(one: Callable[[int], dict[str, Any]], first: int, count: int) -> dict[str, Any]:
    """Evaluates with several seeds.

    Args:
      one: gives the result of `Evaluator.__call__` for a seed.
      first: seed; the others are the next ones.
      count: of seeds.

    Returns:
      The result of the first seed where there is one; otherwise with `scores` the means,
      `deviations` {name: the standard deviation of a sample, divided by count - 1} and `seeds`, a
      list of {seed, scores}. `per_class` has means too; `memorisation` is of the first seed. The
      protocol has `seeds`, and so another fingerprint than a single seed.
    """
    results = [one(seed) for seed in range(first, first + count)]
    if count == 1:
        return results[0]
    rows = [result["scores"] for result in results]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in names}
    found = results[0] | {
        "scores": {name: statistics.fmean(values) for name, values in columns.items()},
        "deviations": {name: statistics.stdev(values) for name, values in columns.items()},
        "seeds": [{"seed": seed, "scores": row} for seed, row in enumerate(rows, start=first)],
        "per_class": _classes([result["per_class"] for result in results]),
        "seconds": sum(result["seconds"] for result in results),
    }
    fields = {k: v for k, v in results[0]["protocol"].items() if k != "fingerprint"}
    return found | {"protocol": protocol.seal(fields | {"seeds": count})}


def _classes(tables: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of every class, averaged: numbers of single seeds are in `seeds` alone."""
    out = []
    for rows in zip(*tables, strict=True):
        means = {}
        for name in ("accuracy", "intra_fid"):
            values = [row.get(name) for row in rows]
            if None not in values:
                means[name] = statistics.fmean(values)
        out.append(rows[0] | means)
    return out
