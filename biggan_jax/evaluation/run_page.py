"""`biggan report`: what happened in a run, as one page that needs nothing beside it.

To add a section, write a function that takes a `History` and returns a `Section`, and name it in
`SECTIONS`; an empty one is left out.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biggan_jax.evaluation import (
    run_augmentation,
    run_history,
    run_parts,
    run_plots,
    run_scores,
    run_tables,
    run_verdict,
)
from biggan_jax.evaluation.run_files import Notes
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_parts import Section
from biggan_jax.evaluation.run_verdict import Verdict
from biggan_jax.storage import paths

PLACE = "report/index.html"  # in the workdir
LARGEST = 5_000_000  # bytes of a page
# In their order on the page; the notes come last, since making the others may add some.
SECTIONS = (
    run_plots.samples,
    run_plots.losses,
    run_plots.scores,
    run_scores.section,
    run_augmentation.augmentation,
    run_tables.memorisation,
    run_plots.spectra,
    run_plots.gains,
    run_tables.guard,
    run_tables.changes,
    run_plots.throughput,
    run_plots.others,
    run_tables.settings,
    run_tables.data,
    run_tables.sessions,
)


def write(directory: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Writes the page of a run.

    Args:
      directory: a workdir.
      out: the file; by default `report/index.html` of the workdir.

    Returns:
      {out, verdict, state, step, notes}: see `run_verdict.Verdict`; the notes say what could not be
      read.

    Raises:
      UserError: the directory is no workdir.
      OSError: the page cannot be written; the one of before is still there.
    """
    run = run_history.read(directory)
    verdict = run_verdict.of(run)
    text = html(run, verdict)
    out = run.directory / PLACE if out is None else out
    # Text of damaged files may hold what no encoding has.
    paths.write_bytes(out, text.encode("utf-8", "replace"))
    return {
        "out": str(out),
        "verdict": verdict.sentence,
        "state": verdict.state,
        "step": verdict.step,
        "notes": run.notes.lines(),
    }


def html(run: History, verdict: Verdict) -> str:
    """The page of a run.

    Args:
      run: its history; gets notes about what cannot be shown.
      verdict: on it.

    Returns:
      An HTML document of less than `LARGEST` bytes.
    """
    sections = [section for make in SECTIONS if not (section := make(run)).is_empty()]
    name = run.directory.name or paths.absolute(run.directory).name
    parts = {
        "title": f"{name}: {verdict.state} at step {verdict.step}",
        "heading": f"Report of the run {name}",
        "verdict": verdict,
        "facts": run_tables.facts(run, verdict),
        "marks": [run_parts.KINDS[kind] for kind in run_parts.marked(run)],
    }
    return rendered(sections, run.notes, **parts)


def rendered(sections: Sequence[Section], notes: Notes, **parts: Any) -> str:
    """A page of sections.

    Args:
      sections: all but that of the notes.
      notes: of the last section; gets one where the pictures are left out.
      parts: what else the template names: title, heading, verdict, facts and marks.

    Returns:
      An HTML document of less than `LARGEST` bytes.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biggan_jax.evaluation", "templates"),
        autoescape=True,  # names of classes, paths and settings may hold anything
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("run_page.html")
    last = run_tables.notes(notes)
    every = [*sections, *([] if last.is_empty() else [last])]
    text = template.render(sections=every, **parts)
    if len(text) < LARGEST:
        return text
    # Far beyond what bounded pictures and curves come to: without pictures it is still a report.
    notes.add("the pictures are left out: with them the page would have more than 5 MB")
    kept = [dataclasses.replace(section, pictures=[]) for section in sections]
    return template.render(sections=[*kept, run_tables.notes(notes)], **parts)
