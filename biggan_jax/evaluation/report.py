"""Evaluations as tables for a person, .json, .csv and a plot."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from biggan_jax.pictures import plots
from biggan_jax.sampling.classes import described
from biggan_jax.storage import paths

COLUMNS = (
    "fid", "is_mean", "kid", "precision", "recall", "density", "coverage", "class_accuracy",
    "intra_fid",
)  # fmt: skip
LISTED_CLASSES = 20
# What batch norm computed with, of each average of a sweep.
_STATISTICS = {
    "running": "bn running: each average has averages of G's running statistics, of its own decay",
    "standing": "bn standing: taken anew for each average",
    "batch": "bn batch: those of the batches of each average",
}


def lines(result: dict[str, Any]) -> list[str]:
    """A result for a person.

    Args:
      result: of `evaluate.evaluate`.

    Returns:
      Lines: a table of the curve or the matrix, or one score a line, then the protocol.
    """
    if "curve" in result:
        out = _table(result["curve"], ("truncation",))
    elif "matrix" in result:
        out = _table(result["matrix"], ("bn_mode", "weights"))
    elif "sweep_ema" in result:
        out = _table(result["sweep_ema"], ("weights",), width=18)
        out.append(f"best average: {result['best_ema']} (FID {result['scores']['fid']:.5g})")
        out.append(_STATISTICS[result["protocol"]["bn_mode"]])
    else:
        out = [
            f"{name:<20}{value:>12,.5g}" + _deviation(result, name)
            for name, value in result["scores"].items()
        ]
        out += class_lines(result["per_class"])
    out += absent_lines(result)
    if result.get("memorisation"):
        out += [result["memorisation"][name] for name in ("sentence", "limits")]
    p = result["protocol"]
    seeds = f"seed {p['seed']}"
    if "seeds" in p:
        seeds = f"each of {p['seeds']} seeds from {p['seed']} on"
    real = f"{p['real_count']:,}" if p["real_count"] else "?"
    resized = "" if p["resize"] == "none" else f", {p['resize']}"
    matched = f", classes {p['classes']}" if p.get("classes") else ""
    average = f" ({p['average']})" if p.get("average") else ""
    held_out = f", held-out images {p['real_held_out']}" if p.get("real_held_out") else ""
    out.append(
        f"protocol {p['fingerprint']}: {p['samples']:,} samples ({seeds}, truncation "
        f"{p['truncation']}, bn {p['bn_mode']}, {p['weights']} weights{average}{matched}) against "
        f"{real} real images of {p['real']} ({str(p['real_digest'])[:12]}"
        f"{held_out}), "
        f"{p['features']} features ({p['features_digest'][:12]}{resized}), version {p['version']}"
    )
    return out


def _deviation(result: dict[str, Any], name: str) -> str:
    """'+- 0.012', the deviation of a score over several seeds; nothing of a single one."""
    found = result.get("deviations", {}).get(name)
    return "" if found is None else f" +- {found:.2g}"


def absent_lines(result: dict[str, Any]) -> list[str]:
    """A line for every reason for which scores of a result are absent, for a person."""
    reasons: dict[str, list[str]] = {}
    for name, why in result.get("absent", {}).items():
        reasons.setdefault(why, []).append(name)
    return [f"left out: {', '.join(names)} (needs {why})" for why, names in reasons.items()]


def step_lines(evaluations: list[dict[str, Any]]) -> list[str]:
    """A table of the steps of one run, all of one protocol, for a person."""
    rows = [{"step": e["step"], "scores": e["scores"]} for e in evaluations]
    return _table(rows, ("step",))


def write(result: dict[str, Any], folder: Path, name: str) -> list[str]:
    """Writes `folder/name.json`, for a table .csv too, and for a curve a plot .png.

    Args:
      result: of `evaluate.evaluate`.
      folder: created when missing.
      name: of the files.

    Returns:
      The paths.
    """
    files = {"json": json.dumps(result, indent=2).encode() + b"\n"}
    rows = result.get("curve") or result.get("matrix") or result.get("sweep_ema")
    if rows:
        files["csv"] = _csv(rows).encode()
    if "curve" in result:
        files["png"] = _plot(result["curve"])
    written = []
    for kind, content in files.items():
        path = folder / f"{name}.{kind}"
        paths.write_bytes(path, content)
        written.append(str(path))
    return written


def _table(rows: list[dict[str, Any]], keys: tuple[str, ...], width: int = 12) -> list[str]:
    names = [name for name in COLUMNS if any(name in row["scores"] for row in rows)]
    column = 22 if any("deviations" in row for row in rows) else 15
    header = "".join(f"{key:<{width}}" for key in keys)
    header += "".join(f"{name:>{column}}" for name in names)
    out = [header]
    for row in rows:
        scores = row["scores"]
        texts = [f"{scores[n]:.5g}{_deviation(row, n)}" if n in scores else "" for n in names]
        cells = [f"{text:>{column}}" for text in texts]
        out.append("".join(f"{row[key]!s:<{width}}" for key in keys) + "".join(cells))
    return out


def class_lines(per_class: list[dict[str, Any]]) -> list[str]:
    """A table of the classes of a result, the worst ones where there are many, for a person."""
    if not per_class:
        return []
    out = [f"{'class':<24}{'accuracy':>10}{'intra_fid':>12}"]
    worst = sorted(per_class, key=lambda row: row["accuracy"] or 0.0)[:LISTED_CLASSES]
    shown = per_class if len(per_class) <= LISTED_CLASSES else worst
    for row in shown:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
        distance = f"{row['intra_fid']:.4g}" if "intra_fid" in row else ""
        name = described(0, [row["name"]])[:18]
        out.append(f"{row['class']:>4} {name:<19}{accuracy:>10}{distance:>12}")
    if len(per_class) > len(shown):
        out.append(f"(the worst {len(shown)} of {len(per_class)} classes; all are in the .json)")
    return out


def _csv(rows: list[dict[str, Any]]) -> str:
    keys = [key for key in ("truncation", "bn_mode", "weights") if key in rows[0]]
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    apart = [name for name in names if any(name in row.get("deviations", {}) for row in rows)]
    writer.writerow([*keys, *names, *(f"{name}_deviation" for name in apart), "fingerprint"])
    for row in rows:
        values = [row["scores"].get(name, "") for name in names]
        values += [row.get("deviations", {}).get(name, "") for name in apart]
        writer.writerow([*(row[key] for key in keys), *values, row["fingerprint"]])
    return text.getvalue()


def _plot(curve: list[dict[str, Any]]) -> bytes:
    """The PNG of a truncation curve, with the scores that all of its points have."""
    names = [n for n in COLUMNS if all(n in point["scores"] for point in curve)]
    scores = {name: [point["scores"][name] for point in curve] for name in names}
    file = io.BytesIO()
    picture = plots.truncation_curve([point["truncation"] for point in curve], scores)
    picture.save(file, format="PNG")
    return file.getvalue()
