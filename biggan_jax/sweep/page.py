"""`biggan report --sweep`: the runs of a folder side by side, as one page."""

from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.errors import UserError, counts
from biggan_jax.evaluation import run_files, run_page, run_parts
from biggan_jax.evaluation.run_parts import Picture, Plot, Section, Table, value_text
from biggan_jax.evaluation.run_plots import SCORES, SPREAD_OF
from biggan_jax.evaluation.run_verdict import Verdict
from biggan_jax.pictures import curves, embedded, grids
from biggan_jax.sampling import load
from biggan_jax.sampling.classes import described, names_of
from biggan_jax.storage import paths
from biggan_jax.sweep import best as best_lib
from biggan_jax.sweep import page_data, spread
from biggan_jax.sweep.best import Best
from biggan_jax.sweep.page_data import Entry, Sweep

PLACE = "report/index.html"  # in the folder of the sweep
DRAWN, SAMPLED = 24, 12  # runs whose curves and whose samples are shown, the best ones
ROWS, COLUMNS = 10, 6  # of the samples of a run: classes, and latents
SEED = 0  # of these latents
LOSSES = {"d_loss": "Loss of D", "g_loss": "Loss of G"}
HEADS = {"images_per_second": "images/s", "d_loss": "loss of D", "g_loss": "loss of G"}
LISTED = 400  # runs in the table


def write(directory: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Writes the page of a sweep.

    Args:
      directory: see `page_data.read`.
      out: the file; by default `report/index.html` of the directory.

    Returns:
      {out, verdict, runs, best, score, notes}: best is the name of the best run by that score, None
      where no run can be called so.

    Raises:
      UserError: the directory is no folder of runs.
      OSError: the page cannot be written; the one of before is still there.
    """
    sweep = page_data.read(directory)
    found = _of_seeds(sweep) if sweep.is_group else best_lib.find(sweep.entries)
    text = html(sweep, found)
    out = sweep.directory / PLACE if out is None else out
    paths.write_bytes(out, text.encode("utf-8", "replace"))
    return {
        "out": str(out),
        "verdict": found.sentence,
        "runs": len(sweep.entries),
        "best": found.name,
        "score": found.score,
        "notes": sweep.notes.lines(),
    }


def html(sweep: Sweep, found: Best) -> str:
    """The page of a sweep.

    Args:
      sweep: gets notes about what cannot be shown.
      found: the best run.

    Returns:
      An HTML document of less than `run_page.LARGEST` bytes.
    """
    sections = [table(sweep, found), failed(sweep), overlaid(sweep), samples(sweep)]
    states = [entry.state for entry in sweep.entries]
    state = next((s for s in ("failed", "running") if s in states), "finished")
    if state == "finished" and set(states) != {"finished"}:
        state = "stopped"
    step = max(entry.step for entry in sweep.entries)
    name = sweep.directory.name or paths.absolute(sweep.directory).name
    numbers = {s: states.count(s) for s in dict.fromkeys(states)}
    facts = [
        ("folder", str(sweep.directory)),
        ("runs", ", ".join(f"{count} {kind}" for kind, count in numbers.items())),
    ]
    facts += [("swept", ", ".join(sweep.keys))] if sweep.keys else []
    seeds = {len(entry.members) for entry in sweep.entries if None not in entry.members}
    facts += [("seeds of a run", ", ".join(map(str, sorted(seeds))))] if seeds - {0} else []
    return run_page.rendered(
        [section for section in sections if not section.is_empty()],
        sweep.notes,
        title=f"{name}: {counts(len(states), 'run', 'runs')}",
        heading=f"Report of the sweep {name}",
        verdict=Verdict(state, step, f"{found.sentence}."),
        facts=facts,
        marks=[],
    )


def table(sweep: Sweep, found: Best) -> Section:
    """What every run reached, the best one first."""
    section = Section("runs", "Runs")
    entries = best_lib.ranked(sweep.entries)
    named = {name for entry in entries for name in entry.scores}
    names = [name for name in ("d_loss", "g_loss", "images_per_second") if name in named]
    names = sorted(n for n in named if n.startswith("eval/") and _is_shown(n)) + names
    if found.score in names:
        names.remove(found.score)
        names.insert(0, found.score)
    labels = [HEADS.get(name) or _words(name) for name in names]
    rows = []
    for entry in entries[:LISTED]:
        settings = [
            value_text(entry.config.get(key), 40) if entry.config else "" for key in sweep.keys
        ]
        values = [spread.text_of(entry.scores.get(name)) for name in names]
        mark = " (best)" if entry.name == found.name else ""
        rows.append([f"{entry.name}{mark}", *settings, entry.state, f"{entry.step:,}", *values])
    head = ("run", *sweep.keys, "state", "step", *labels)
    section.tables.append(Table(head, rows, sortable=len(rows) > 1))
    if any(len(entry.members) > 1 for entry in entries):
        section.text.append("Means over the seeds ± the standard deviation from seed to seed.")
    if len(entries) > LISTED:
        section.text.append(f"The best {LISTED} of {len(entries):,} runs.")
    return section


def failed(sweep: Sweep) -> Section:
    """The runs that failed, with their last words."""
    rows = [(entry.name, entry.error) for entry in sweep.entries if entry.error is not None]
    section = Section("failed", "Failed runs")
    section.tables += [Table(("run", "why"), rows)] if rows else []
    return section


def overlaid(sweep: Sweep) -> Section:
    """The curves of all runs over each other."""
    entries = [entry for entry in best_lib.ranked(sweep.entries) if entry.members][:DRAWN]
    section = Section("curves", "Curves")
    found = {name for e in entries for run in e.members.values() for name in run.metrics}
    scores = [name for name in sorted(found) if name.startswith("eval/") and _is_shown(name)]
    first = best_lib.score_of(entries)
    scores.sort(key=lambda name: name != first)
    titles = {n: SCORES.get(n.removeprefix("eval/"), _title(n)) for n in scores}
    for i, (name, title) in enumerate({**titles, **LOSSES}.items()):
        section.plots += run_parts.present([_plot(entries, f"curve{i}", name, title)])
    if section.plots and any(len(entry.members) > 1 for entry in entries):
        section.text.append("Bold: the mean of the seeds; pale: every seed.")
    if len(entries) < sum(bool(entry.members) for entry in sweep.entries):
        section.text.append(f"The {len(entries)} runs with the best scores are drawn.")
    return section


def _plot(entries: list[Entry], slug: str, name: str, title: str) -> Plot | None:
    """One metric of all runs; None where no run has two values of it."""
    pale, bold, told = [], [], {}
    for i, entry in enumerate(entries):
        style = curves.COLORS[i % len(curves.COLORS)]
        dash = run_parts.GREYS[i // len(curves.COLORS) % len(run_parts.GREYS)]
        curve = entry.curve(name)
        if curve is None or not len(curve.steps):
            continue
        own = [run.metrics[name] for run in entry.members.values() if name in run.metrics]
        for one in own if len(own) > 1 else ():
            pale.append(curves.Line(entry.name, one.steps, one.values, style, dash, pale=True))
        bold.append(curves.Line(entry.name, curve.steps, curve.values, style, dash))
        told[entry.name] = curve
    if not any(len(line.steps) > 1 for line in bold):
        return None
    svg = curves.svg(slug, [*pale, *bold], y=_axis(name))
    legend = [(line.label[:60], line.color, line.dash) for line in bold]
    alt = run_parts.described(title, told, {key: key for key in told})
    return Plot(title, svg, alt, legend)


def samples(sweep: Sweep) -> Section:
    """Samples of every run of the same latents and classes."""
    section = Section("samples", "Samples")
    entries = [entry for entry in best_lib.ranked(sweep.entries) if entry.members]
    sizes = set()
    for entry in entries[:SAMPLED]:
        found = _picture(entry, sweep.notes)
        if found is not None:
            section.pictures.append(found[0])
            sizes.add(found[1])
    if not section.pictures:
        return section
    what = "Averaged weights; the same latents and classes at the same place of every picture"
    if len(sizes) > 1:
        what = "Averaged weights; pictures have the same latents where dim_z is the same"
    more = f", of the first {SAMPLED} runs" if len(entries) > SAMPLED else ""
    section.text.append(f"{what}{more}.")
    return section


def _picture(entry: Entry, notes: run_files.Notes) -> tuple[Picture, int] | None:
    """(samples of the first member that has weights, dim_z); None, and a note, without any."""
    seed, run = next(iter(entry.members.items()))
    try:
        generator = load.load_generator(run.directory)
        k = generator.num_classes
        rows = np.linspace(0, k - 1, min(k, ROWS) if k > 1 else ROWS).round().astype(np.int32)
        z = generator.sample_z(SEED, len(rows) * COLUMNS)
        images = generator(z, np.repeat(rows, COLUMNS))
        names = names_of(generator.config)
        labels = {}
        if k > 1:
            labels["row_labels"] = [described(int(c), names) for c in rows]
            labels["row_fallbacks"] = [f"class {c}" for c in rows]
        picture = grids.grid(images, COLUMNS, **labels)
        uri, (width, height) = embedded.data_uri(grids.png(picture))
    except (UserError, OSError, ValueError) as error:
        notes.add(f"no samples of {entry.name}: {run_files.reason(error)}")
        return None
    which = "" if seed is None else f", seed {seed}"
    step = "" if generator.step is None else f", step {generator.step:,}"
    caption = f"{entry.name}{which}{step}"
    alt = f"Samples of {caption}, a class a row"
    return Picture(caption, alt, uri, width, height), generator.dim_z


def _of_seeds(sweep: Sweep) -> Best:
    """What stands in place of the best run where the runs are the seeds of one config."""
    score = best_lib.score_of(sweep.entries)
    number = counts(len(sweep.entries), "seed", "seeds")
    if score is None:
        return Best(None, None, f"{number} of one config, none of which has been scored")
    values = [entry.scores[score] for entry in sweep.entries if score in entry.scores]
    both = spread.over([{score: value["mean"]} for value in values])[score]
    return Best(None, score, f"{number} of one config: {_words(score)} {spread.text_of(both)}")


def _is_shown(name: str) -> bool:
    return not (SPREAD_OF.fullmatch(name) or name.startswith("eval/best_") or name == "eval/step")


def _words(name: str) -> str:
    return SCORES.get(name.removeprefix("eval/"), _title(name)).partition(" (")[0]


def _title(name: str) -> str:
    return name.removeprefix("eval/").replace("_", " ").capitalize()[:80]


def _axis(name: str) -> str:
    return "score" if name.startswith("eval/") else "loss"
