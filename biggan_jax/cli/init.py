"""`biggan init`: a config for given data on this machine, and why it is that one."""

import argparse
import contextlib
import time
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.data import kinds
from biggan_jax.errors import UserError
from biggan_jax.parallel import telling

SILENT_SECONDS = 1.0  # after which it says what it does


def add(command) -> None:
    """Adds the command."""
    sub = command("init", run, "look at data and machine, and write a config for them")
    sub.add_argument("folder", type=options.local_path, metavar="FOLDER", help="of config.py")
    sub.add_argument("--data", required=True, metavar="SPEC", help=kinds.described())
    sub.add_argument(
        "--resolution", type=int, metavar="R", help="pixels; default: by pictures and machine"
    )
    sub.add_argument(
        "--minutes", type=float, default=60.0, metavar="M", help="of the training run; 60"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan init`."""
    options.no_overrides(overrides, "init")
    if not 0 < args.minutes < float("inf"):
        raise UserError(f"--minutes is {args.minutes:g}: give the minutes of a run, such as 60")
    start = time.perf_counter()
    folder = Path(args.folder).absolute()
    place = folder / "config.py"
    _check_place(place)
    from biggan_jax.data.survey import survey
    from biggan_jax.planning import config_text, recommend

    with telling.told_if_slow(f"looking at pictures of {args.data}", SILENT_SECONDS):
        looked = survey(args.data, "--data")
    _check_apart(folder, looked.spec)
    problems, facts = [], []
    speed = contextlib.ExitStack()

    def examine(found) -> None:
        speed.close()
        with telling.told_if_slow(
            "looking for copies, and for what would stop a run", SILENT_SECONDS
        ):
            problems[:], facts[:] = _examine(found, looked)

    asked = {"minutes": args.minutes, "resolution": args.resolution}
    with speed:
        how_much = "measuring how much this machine computes in a second"
        speed.enter_context(telling.told_if_slow(how_much, SILENT_SECONDS))
        found = recommend.recommend(looked, **asked, examine=examine, measure=_told_measure)
    follow = config_text.commands(found, looked, folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = config_text.render(found, looked, follow)
    with writing(place), open(place, "x", encoding="utf-8") as file:
        file.write(text)
    settings = found.settings()
    notes = [*map(str, problems), *(f"note: {note}" for note in found.notes)]
    steps = ["the commands that follow:", *follow]
    say(args, "\n".join([*facts, *notes, f"chosen, in {place}:", *found.lines(), *steps]))
    result = {
        "config": str(place),
        "settings": settings,
        "reasons": {key: found.reasons[key] for key in settings},
        "notes": found.notes,
        "problems": [vars(problem) for problem in problems],
        "commands": follow,
        "images": looked.count,
        "classes": looked.num_classes,
        "step_seconds": found.step_seconds,
        "seconds": time.perf_counter() - start,
    }
    return result, 0


def _check_place(place: Path) -> None:
    """Refuses a place where a config is, or cannot be, before minutes are spent."""
    from biggan_jax.evaluation import folders

    if place.exists() or place.is_symlink():
        raise UserError(
            f"{place} exists already and is not overwritten: name another folder, or move it away"
        )
    if place.parent.exists() and not place.parent.is_dir():
        raise UserError(f"{place.parent} is a file: name a folder")
    problem = folders.unwritable(place.parent)
    if problem is not None:
        raise UserError(f"{place.parent} cannot be written ({problem}): name another folder")


def _check_apart(folder: Path, spec: str) -> None:
    """Refuses a folder inside that of the pictures: a run in it would become a class of them."""
    name, _, argument = spec.partition(":")
    if name != "folder":
        return
    from biggan_jax.data import folder as folder_lib

    pictures = folder_lib.split_folder(argument).resolve()
    if folder.resolve().is_relative_to(pictures):
        raise UserError(
            f"{folder} lies in the folder of the pictures, where its files would be taken for a "
            f"class: name one beside it, such as {pictures.parent / (pictures.name + '-run')}"
        )


def _told_measure(config) -> tuple[float, float]:
    from biggan_jax.planning import recommend

    m = config.model
    telling.tell(
        f"measuring a training step at {m.resolution} pixels, ch {m.ch}, batch "
        f"{config.batch_size}: about half a minute on a CPU, longer beside other work"
    )
    return recommend.measured(config)


def _examine(found, looked) -> tuple[list, list[str]]:
    """(what `doctor` finds in the data, facts about them); UserError where that stops a run."""
    from biggan_jax.data import wording
    from biggan_jax.planning import doctor
    from biggan_jax.training import run_data

    examination = doctor.Examination()
    source = run_data.opened(found.config)
    source.wording = wording.TRAIN._replace(option="--data")
    doctor.of_data(examination, source, found.images_per_step)
    problems = examination.sorted()
    for problem in problems:
        if problem.stops:
            raise UserError(f"{problem.what} ({problem.where}): {problem.remedy}")
    facts = list(examination.facts)
    if looked.transparent > 0:
        facts.append(
            f"{looked.transparent:.0%} of the pictures have transparency, which becomes white"
        )
    return problems, facts
