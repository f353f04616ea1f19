"""What several seeds of one config reached: a table, seeds.json and seeds.csv."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.storage import checkpoint, paths
from biggan_jax.sweep import results, runs, spread

JSON, CSV = "seeds.json", "seeds.csv"
LISTED = 8  # seeds whose values stand in the table; seeds.csv has all
HEAD = ("seed", "state", "step", "images_seen")


def collect(
    folder: Path, configs: Sequence[ConfigDict], errors: Mapping[int, str | None]
) -> dict[str, Any]:
    """What is there of some seeds.

    Args:
      folder: of their workdirs.
      configs: of every run.
      errors: {seed: why its run has failed}; what is absent has not.

    Returns:
      {seeds [{seed, workdir, state, error, step, images_seen, metrics}], scores, metrics}: the last
      two are {name: {mean, deviation, count}} over the runs that did not fail.
    """
    rows = []
    for config in configs:
        place, error = runs.member(folder, config.seed), errors.get(config.seed)
        saved = checkpoint.Checkpoints(place / "checkpoints").latest_step() or 0
        state = "finished" if saved >= config.num_steps else "unfinished"
        row = {"seed": config.seed, "workdir": str(place), "state": "failed" if error else state}
        rows.append(row | {"error": error} | results.last_metrics(place))
    finished = [row["metrics"] for row in rows if row["state"] == "finished"]
    found = spread.over(
        finished or [row["metrics"] for row in rows if row["state"] == "unfinished"]
    )
    scores = {name: value for name, value in found.items() if name.startswith("eval/")}
    rest = {name: value for name, value in found.items() if name not in scores}
    return {"seeds": rows, "scores": scores, "metrics": rest}


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Writes seeds.json and seeds.csv, the mean and the deviation below the seeds."""
    paths.write_bytes(folder / JSON, (json.dumps(found, indent=2) + "\n").encode())
    both = found["metrics"] | found["scores"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEAD, *both, "workdir", "error"])
    for row in found["seeds"]:
        own = (row["metrics"].get(name) for name in both)
        writer.writerow([*(row[key] for key in HEAD), *own, row["workdir"], row["error"]])
    for kind in ("mean", "deviation", "count"):
        writer.writerow([kind, "", "", "", *(both[name][kind] for name in both), "", ""])
    paths.write_bytes(folder / CSV, text.getvalue().encode())


def table(found: Mapping[str, Any]) -> str:
    """A line for each score: its mean and deviation and, of few seeds, every value."""
    both = found["metrics"] | found["scores"]
    names = [n for n in results.SHOWN if n in both] + list(found["scores"])
    shown = found["seeds"] if len(found["seeds"]) <= LISTED else []
    rows = [["", "mean", *(f"seed {row['seed']}" for row in shown)]]
    rows.append(["state", "", *(row["state"] for row in shown)])
    rows.append(["step", "", *(f"{row['step']:,}" for row in shown)])
    for name in names:
        values = (row["metrics"].get(name) for row in shown)
        cells = ("-" if value is None else f"{value:.4g}" for value in values)
        rows.append([name, spread.text_of(both[name]), *cells])
    lines = [results.aligned(rows)]
    lines += [f"failed: seed {r['seed']}: {r['error']}" for r in found["seeds"] if r["error"]]
    return "\n".join(lines)
