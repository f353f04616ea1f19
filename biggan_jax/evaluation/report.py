"""Evaluations as tables for a person, .json, .csv and a plot."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biggan_jax.storage import paths as paths_lib

COLUMNS = (
    "fid", "is_mean", "kid", "precision", "recall", "density", "coverage", "class_accuracy",
    "intra_fid",
)  # fmt: skip
LISTED_CLASSES = 20


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
    else:
        out = [f"{name:<20}{value:>12,.5g}" for name, value in result["scores"].items()]
        out += _class_lines(result["per_class"])
    p = result["protocol"]
    resized = "" if p["resize"] == "none" else f", {p['resize']}"
    out.append(
        f"protocol {p['fingerprint']}: {p['samples']:,} samples (seed {p['seed']}, truncation "
        f"{p['truncation']}, bn {p['bn_mode']}, {p['weights']} weights) against "
        f"{p['real_count'] or '?'} real images of {p['real']} ({str(p['real_digest'])[:12]}), "
        f"{p['features']} features ({p['features_digest'][:12]}{resized}), version {p['version']}"
    )
    return out


def step_lines(evaluations: list[dict[str, Any]]) -> list[str]:
    """A table of the steps of one run, all of one protocol, for a person."""
    rows = [{"step": e["step"], "scores": e["scores"]} for e in evaluations]
    return _table(rows, ("step",))


def write(result: dict[str, Any], folder: Path, name: str) -> list[str]:
    """Writes `folder/name.json`, and for a curve or a matrix .csv, and for a curve a plot .png.

    Args:
      result: of `evaluate.evaluate`.
      folder: created when missing.
      name: of the files.

    Returns:
      The paths.
    """
    text = json.dumps(result, indent=2) + "\n"
    files = {"json": lambda path: path.write_text(text)}
    rows = result.get("curve") or result.get("matrix")
    if rows:
        files["csv"] = lambda path: path.write_text(_csv(rows))
    if "curve" in result:
        files["png"] = lambda path: plot_curve(result["curve"], path)
    paths = [folder / f"{name}.{kind}" for kind in files]
    for path, make in zip(paths, files.values(), strict=True):
        _whole(path, make)
    return [str(path) for path in paths]


def plot_curve(curve: list[dict[str, Any]], path: Path) -> None:
    """Draws the fidelity/variety curve: FID against IS, and the other scores per threshold.

    Args:
      curve: {truncation, scores} by ascending threshold.
      path: of the PNG.

    References:
      Brock et al. 2019, figure 2b and appendix D (IS against FID per truncation threshold).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    column = lambda name: [point["scores"][name] for point in curve]
    at = [point["truncation"] for point in curve]
    left.plot(column("is_mean"), column("fid"), "o-", color="tab:blue")
    for x, y, t in zip(column("is_mean"), column("fid"), at, strict=True):
        place = {"xytext": (-7, 1), "textcoords": "offset points", "ha": "right"}
        left.annotate(f"{t:g}", (x, y), fontsize=8, **place)
    left.margins(0.08)
    left.set(xlabel="IS (fidelity: right is better)", ylabel="FID (lower is better)")
    left.set_title("FID against IS at each truncation threshold", fontsize=10)
    shown = ("precision", "recall", "density", "coverage", "class_accuracy")
    names = [name for name in shown if all(name in point["scores"] for point in curve)]
    for name, mark in zip(shown, "os^vD", strict=True):
        if name in names:
            right.plot(at, column(name), f"{mark}-", label=name.replace("_", " "), markersize=5)
    right.set(xlabel="truncation threshold", ylim=(0, None))
    right.set_title("Fidelity and variety", fontsize=10)
    if names:
        right.legend(fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=110)


def _table(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    names = [name for name in COLUMNS if any(name in row["scores"] for row in rows)]
    header = "".join(f"{key:<12}" for key in keys) + "".join(f"{name:>15}" for name in names)
    out = [header]
    for row in rows:
        cells = [f"{row['scores'][n]:>15.5g}" if n in row["scores"] else " " * 15 for n in names]
        out.append("".join(f"{row[key]!s:<12}" for key in keys) + "".join(cells))
    return out


def _class_lines(per_class: list[dict[str, Any]]) -> list[str]:
    if not per_class:
        return []
    out = [f"{'class':<24}{'accuracy':>10}{'intra_fid':>12}"]
    worst = sorted(per_class, key=lambda row: row["accuracy"] or 0.0)[:LISTED_CLASSES]
    shown = per_class if len(per_class) <= LISTED_CLASSES else worst
    for row in shown:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
        distance = f"{row['intra_fid']:.4g}" if "intra_fid" in row else ""
        out.append(f"{row['class']:>4} {row['name'][:18]:<19}{accuracy:>10}{distance:>12}")
    if len(per_class) > len(shown):
        out.append(f"(the worst {len(shown)} of {len(per_class)} classes; all are in the .json)")
    return out


def _csv(rows: list[dict[str, Any]]) -> str:
    keys = [key for key in ("truncation", "bn_mode", "weights") if key in rows[0]]
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *names, "fingerprint"])
    for row in rows:
        values = [row["scores"].get(name, "") for name in names]
        writer.writerow([*(row[key] for key in keys), *values, row["fingerprint"]])
    return text.getvalue()


def _whole(path: Path, make: Callable[[Path], Any]) -> None:
    """Whoever reads the path finds the old file or the whole new one."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / path.name
        make(fresh)
        paths_lib.write_bytes(path, fresh.read_bytes())
