"""What the runs of a sweep reached, side by side: a table, results.csv and results.json."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from biggan_jax import config as config_lib
from biggan_jax.storage import json_lines, paths
from biggan_jax.sweep import spread
from biggan_jax.sweep.runs import Run

SHOWN = ("d_loss", "g_loss", "images_per_second")  # of the table; the files hold every metric
# Scores of runs that differ in one of these follow different protocols: no table joins them.
PROTOCOL = (
    "data.source",
    "eval_features",
    "eval_samples",
    "model.channels",
    "model.num_classes",
    "model.resolution",
)


def last_metrics(workdir: epath.PathLike) -> dict[str, Any]:
    """The newest value of every metric in `metrics.jsonl`.

    Args:
      workdir: of a run; it need not exist.

    Returns:
      {step, images_seen, metrics}: step is 0 before the first line. Where the run was evaluated,
      `eval/step` is the step of the newest scores, and `eval/best_step` and `eval/best_fid` those
      of the lowest FID.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    found: dict[str, Any] = {"step": 0, "images_seen": 0}
    best: tuple[float, int] | None = None
    lines = json_lines.read(path)
    if lines.damaged:
        told = json_lines.told(path, lines.damaged, "cannot be read: left out")
        print(f"warning: {told}", file=sys.stderr)
    for record in lines.records:
        new = {name: value for name, value in record.items() if _is_number(value)}
        step = new.get("step")
        if type(step) is not int:
            continue
        if any(name.startswith("eval/") for name in new):
            new["eval/step"] = step
        fid = new.get("eval/fid")
        if fid is not None and (best is None or fid < best[0]):
            best = (fid, step)
        found |= new
    if best is not None:
        found |= {"eval/best_fid": best[0], "eval/best_step": best[1]}
    head = {name: found.pop(name) for name in ("step", "images_seen")}
    return head | {"metrics": found}


def result(run: Run, keys: Sequence[str]) -> dict[str, Any]:
    """What a run reached.

    Args:
      run: of `make_runs`.
      keys: the settings that tell the runs of the sweep apart.

    Returns:
      {name, workdir, overrides {key: value}, state, exit_code, error, step, images_seen, metrics}.
      Of several seeds the metrics are means, `deviations` {name: standard deviation or None} is
      there too, and `seeds`, how many of them have metrics; the step is the least of theirs.
    """
    flat = config_lib.flatten(run.config)
    reached = last_metrics(run.workdir) if run.seeds is None else _of_seeds(run)
    return {
        "name": run.name,
        "workdir": str(run.workdir),
        "overrides": {key: flat[key] for key in keys},
        "state": run.state,
        "exit_code": run.exit_code,
        "error": run.error,
    } | reached


def _of_seeds(run: Run) -> dict[str, Any]:
    """What several seeds reached: means, deviations, and the least of their steps."""
    found = [last_metrics(place) for place in run.workdirs.values()]
    head = {name: min(one[name] for one in found) for name in ("step", "images_seen")}
    begun = [one["metrics"] for one in found if one["metrics"]]
    both = spread.over(begun)
    return head | {
        "seeds": len(begun),
        "metrics": {name: one["mean"] for name, one in both.items()},
        "deviations": {name: one["deviation"] for name, one in both.items()},
    }


def write(out: epath.PathLike, results: Sequence[dict[str, Any]], scores: bool = True) -> None:
    """Writes results.json and results.csv.

    Args:
      out: folder of the sweep.
      results: one dict a run; see `result`.
      scores: False leaves `eval/...` out of the CSV file, where they cannot be compared.
    """
    out = epath.Path(out)
    lines = json.dumps(list(results), indent=2) + "\n"
    paths.write_bytes(out / "results.json", lines.encode())
    text = io.StringIO()
    names = _metric_names(results, scores)
    writer = csv.writer(text, lineterminator="\n")
    head = ["state", "step", "images_seen"] + ["seeds"] * ("seeds" in results[0])
    spreads = [f"{name}_deviation" for name in names if "seeds" in results[0]]
    writer.writerow(["name", *results[0]["overrides"], *head, *names, *spreads, "workdir", "error"])
    for r in results:
        row = [r["name"], *map(_text, r["overrides"].values()), *(r[key] for key in head)]
        row += [r["metrics"].get(name) for name in names]
        row += [r["deviations"].get(name) for name in names if spreads]
        writer.writerow([*row, r["workdir"], r["error"]])
    paths.write_bytes(out / "results.csv", text.getvalue().encode())


def table(results: Sequence[dict[str, Any]], scores: bool = True) -> str:
    """One line for each run: its overrides, how far it came, its losses and scores.

    Args:
      results: one dict a run; see `result`.
      scores: False leaves `eval/...` out.
    """
    present = _metric_names(results, scores)
    names = [n for n in SHOWN if n in present] + [n for n in present if n.startswith("eval/")]
    rows = [[*results[0]["overrides"], "state", "step", *names]]
    for r in results:
        shown = (shown_value(r, name) for name in names)
        rows.append([*map(_text, r["overrides"].values()), r["state"], f"{r['step']:,}", *shown])
    return aligned(rows)


def shown_value(result: Mapping[str, Any], name: str) -> str:
    """A metric of a `result` for a person, with its deviation where that is known."""
    value = result["metrics"].get(name)
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,d}"
    return spread.text_of({"mean": value, "deviation": result.get("deviations", {}).get(name)})


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def report(runs: Sequence[Run], out: epath.PathLike) -> tuple[list[dict[str, Any]], str]:
    """(results, text for a person) of a sweep; writes results.csv and results.json into `out`."""
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    results = [result(run, keys) for run in runs]
    flats = [config_lib.flatten(run.config) for run in runs]
    mixed = [key for key in PROTOCOL if len({flat[key] for flat in flats}) > 1]
    epath.Path(out).mkdir(parents=True, exist_ok=True)
    write(out, results, scores=not mixed)
    lines = [table(results, scores=not mixed)]
    if mixed and any(n.startswith("eval/") for r in results for n in r["metrics"]):
        lines.append(
            f"scores of runs that differ in {', '.join(mixed)} follow different protocols: they "
            "are in results.json only"
        )
    for run in runs:
        if run.state == "failed":
            lines.append(f"failed: {run.name} (exit code {run.exit_code}): {run.error}")
    return results, "\n".join(lines)


def _is_number(value: Any) -> bool:
    """Whether a value is what `metrics.jsonl` holds: a number, or null for one of no word."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _metric_names(results: Sequence[dict[str, Any]], scores: bool) -> list[str]:
    names = sorted({name for r in results for name in r["metrics"]})
    return [name for name in names if scores or not name.startswith("eval/")]


def _text(value: Any) -> str:
    """A setting as it is written in an override."""
    return "" if value is None else str(value).replace(" ", "")
