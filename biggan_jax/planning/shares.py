"""Rows that add up to a whole, as text: the largest ones, and sums by whatever they have."""

import collections
from collections.abc import Callable
from typing import Any

LARGEST = 25


def text(
    rows: list[dict[str, Any]],
    value: str,
    unit: tuple[str, float],
    columns: tuple[str, ...],
    parts: dict[str, Callable[[dict], str]],
) -> str:
    """The largest rows as a table, and the sums by each part.

    Args:
      rows: the largest first.
      value: key of what adds up.
      unit: (name, size) such as ('GB', 1e9).
      columns: keys of the other columns.
      parts: {title: key of a row to sum by}; each list of sums adds up to the whole.

    Returns:
      Lines joined.
    """
    whole = sum(row[value] for row in rows)

    def share(amount: float) -> list[str]:
        return [f"{amount / unit[1]:.3f}", f"{100 * amount / (whole or 1):.1f}"]

    table = [[unit[0], "%", *columns]]
    table += [[*share(row[value]), *(row[c] for c in columns)] for row in rows[:LARGEST]]
    if rest := rows[LARGEST:]:
        empty = [""] * (len(columns) - 1)
        table.append([*share(sum(r[value] for r in rest)), *empty, f"{len(rest)} smaller rows"])
    lines = aligned(table)
    for title, of in parts.items():
        sums: collections.Counter = collections.Counter()
        for row in rows:
            sums[of(row)] += row[value]
        lines.append(f"by {title}:")
        lines += aligned([[*share(amount), key] for key, amount in sums.most_common()])
    return "\n".join(lines)


def aligned(table: list[list[str]], numbers: int = 2) -> list[str]:
    """Lines of a table: its first columns, `numbers` of them, to the right, the others left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if i < numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
