"""The section of a run's page with what `biggan evaluate` has left in `report/`."""

from typing import Any

from biggan_jax.evaluation.report import COLUMNS
from biggan_jax.evaluation.run_files import as_number, document, is_step
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_parts import Section, Table, value_text

# Files of `report.write` beside the evaluation; the newest of all tells of the classes.
OTHERS = ("truncation", "matrix", "ema_sweep")
AVERAGES, CLASSES = 40, 60  # rows of a table


def section(run: History) -> Section:
    """Scores of single classes, and of each average where they were compared."""
    section = Section("evaluations", "Evaluations")
    found = {name: document(_path(run, name), f"report/{name}.json", run.notes) for name in OTHERS}
    found["evaluation"] = run.evaluation
    sweep = found["ema_sweep"]
    rows = [row for row in _rows(sweep.get("sweep_ema")) if isinstance(row.get("scores"), dict)]
    if rows:
        section.text.append(_best(sweep))
        section.tables.append(_averages(rows[:AVERAGES]))
    dated = {name: _written(run, name) for name in found if _rows(found[name].get("per_class"))}
    if dated:
        newest = found[max(dated, key=dated.get)]
        section.tables.append(_classes(newest, run))
    return section


def _path(run: History, name: str) -> Any:
    return run.directory / "report" / f"{name}.json"


def _written(run: History, name: str) -> float:
    try:
        return _path(run, name).stat().st_mtime
    except (OSError, AttributeError):  # a bucket's may not say
        return 0.0


def _rows(value: Any) -> list[dict]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _best(sweep: dict) -> str:
    """Which average is the best, and of what it was measured."""
    protocol = sweep.get("protocol")
    protocol = protocol if isinstance(protocol, dict) else {}
    scores = sweep.get("scores")
    fid = as_number(scores.get("fid")) if isinstance(scores, dict) else None
    text = f"The best average is {value_text(sweep.get('best_ema'), 60)}"
    text += f", of FID {fid:.4g}" if fid is not None else ""
    text += f", at step {protocol['step']:,}" if is_step(protocol.get("step")) else ""
    how = value_text(protocol.get("bn_mode"), 20)
    return f"{text} ({how} batch-norm statistics, each average's own)."


def _averages(rows: list[dict]) -> Table:
    names = [name for name in COLUMNS if any(name in row["scores"] for row in rows)]
    cells = [
        (value_text(row.get("weights"), 60), *(_number(row["scores"].get(name)) for name in names))
        for row in rows
    ]
    return Table(("average", *names), cells)


def _classes(result: dict, run: History) -> Table:
    """Scores of single classes, the worst first, beside their training images where known."""
    rows = _rows(result["per_class"])
    rows.sort(key=lambda row: as_number(row.get("accuracy")) or 0.0)
    protocol = result.get("protocol")
    step = protocol.get("step") if isinstance(protocol, dict) else None
    title = "Scores of single classes" + (f" at step {step:,}" if is_step(step) else "")
    if len(rows) > CLASSES:
        title += f", the worst {CLASSES} of {len(rows):,}"
    counted = run.labels or run.config.get("data.class_counts") or ()
    cells = []
    for row in rows[:CLASSES]:
        number = row.get("class")
        known = is_step(number) and number < len(counted)
        images = value_text(counted[number], 20) if known else ""
        name = value_text(row.get("name", number), 60)
        scores = (_number(row.get(key)) for key in ("accuracy", "intra_fid"))
        cells.append((name, images, *scores))
    head = ("class", "training images", "accuracy", "intra_fid")
    return Table(head, cells, title, folded=True)


def _number(value: Any) -> str:
    number = as_number(value)
    return "" if value is None or number is None else f"{number:.4g}"
