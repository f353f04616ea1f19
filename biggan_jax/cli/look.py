"""`biggan look`: pictures of a trained model at work."""

import argparse
import dataclasses
import importlib
import time
from collections.abc import Callable
from pathlib import Path

from biggan_jax.cli import look_options as own
from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.parallel import devices, telling

SILENT_SECONDS = 10.0  # after which it says what it does


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
      help: what it shows.
      module: of biggan_jax, with `draw(directory, out, *, rows, size, ...)`, which returns what the
        JSON object holds, and perhaps `text(result)`, which says it to a person.
      count: what --count counts, and its default; None where the picture shows no samples.
      options: adds its other options, whose values `draw` gets by their names.
      moves: whether it can be an animation.
      given: what `draw` gets in place of these values.
    """

    help: str
    module: str
    count: str | None = "samples"
    options: Callable[[argparse.ArgumentParser], None] | None = None
    moves: bool = False
    given: Callable[[argparse.Namespace], dict] | None = None


KINDS = {
    "grid": Kind(
        "samples, a class a row", "sampling.look.grid", "samples of each class; 8", own.add_grid
    ),
    "truncation": Kind(
        "fidelity against variety: one z a row, along truncation thresholds",
        "sampling.look.truncation",
        "rows; one a class of --classes, or 6",
        own.add_truncation,
    ),
    "interpolate": Kind(
        "from one z, one class or both to another; moving in a .gif or .webp",
        "sampling.look.interpolation",
        "rows; one a class of --classes, or 6",
        own.add_interpolate,
        moves=True,
    ),
    "attention": Kind(
        "where chosen points of an image attend to (SAGAN's figure 5)",
        "sampling.look.attention",
        "rows; one a class of --classes, or 6",
        own.add_attention,
    ),
    "neighbours": Kind(
        "the nearest training images beside each sample; needs data",
        "evaluation.nearest",
        "rows; one a class of --classes, or 6",
        own.add_neighbours,
    ),
    "chunks": Kind(
        "what each chunk of a hierarchical z changes",
        "sampling.look.chunks",
        "samples, each with a row for every chunk; 1",
        own.add_chunks,
    ),
    "directions": Kind(
        "what the principal directions of the first layer change, each from -3 to 3",
        "sampling.look.directions",
        "samples, each with a row for every direction; 1",
        own.add_directions,
    ),
    "progress": Kind(
        "the same z and classes over the steps of a run; moving in a .gif or .webp",
        "sampling.look.progress",
        "columns; 8",
        own.add_progress,
        moves=True,
    ),
    "bn": Kind(
        "the same samples in every batch-norm mode, averaged and raw weights",
        "sampling.look.bn",
        "samples of each class; 5",
        own.add_bn,
        given=lambda args: {"standing": options.standing(args)},
    ),
    "spectra": Kind(
        "singular values of all layers over training, as the monitors wrote them",
        "sampling.spectra",
        None,
        own.add_spectra,
    ),
    "held-out": Kind(
        "D's judgement of training and of held-out images over training, of one run or several",
        "sampling.held_out",
        None,
    ),
}


def add(command) -> None:
    """Adds the command."""
    sub = command("look", run, f"pictures of a trained model at work: {', '.join(KINDS)}")
    kinds = sub.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        add_kind(kinds, name, kind)


def add_kind(kinds, name: str, kind: Kind) -> None:
    """The options of one kind: those of all kinds first, its own behind them."""
    one = kinds.add_parser(name, help=kind.help, description=kind.help)
    options.add_json(one)
    own.add_source(one, name)
    own.add_picture(one, kind.moves)
    if kind.count is not None:
        own.add_samples(one, name, kind.count)
    before = {action.dest for action in one._actions}
    if kind.options is not None:
        kind.options(one)
    one.set_defaults(own=[a.dest for a in one._actions if a.dest not in before])


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan look`."""
    options.no_overrides(overrides)
    from biggan_jax.pictures import size as size_lib

    start, kind = time.perf_counter(), KINDS[args.kind]
    size = size_lib.parse(args.width, args.dpi)
    check_target(args.out, args.kind, kind.moves)
    given = options.given(args, *args.own) if kind.given is None else kind.given(args)
    if kind.count is not None:
        given["rows"] = rows_of(args)
    module = importlib.import_module(f"biggan_jax.{kind.module}")
    what = "reading what the picture needs, compiling and drawing"
    with writing(args.out), telling.told_if_slow(what, SILENT_SECONDS):
        found = module.draw(args.source, args.out, size=size, **given)
    seconds = time.perf_counter() - start
    result = {"out": str(args.out), "kind": args.kind, **found, "seconds": seconds}
    devices.tell()
    if hasattr(module, "text"):
        say(args, module.text(found))
    say(args, str(args.out))
    return result, 0


def rows_of(args: argparse.Namespace):
    """Which samples the options of `look_options.add_samples` ask for."""
    from biggan_jax.sampling.look.rows import Rows

    names = ("classes", "count", "seed", "truncation", "truncation_kind", "bn_mode")
    return Rows(step=args.step, ema=options.ema(args), **options.given(args, *names))


def check_target(out: Path, kind: str, moves: bool) -> None:
    """Raises UserError unless a picture can be written there, before minutes are spent on it."""
    from biggan_jax.errors import UserError
    from biggan_jax.evaluation import folders
    from biggan_jax.pictures import formats

    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it, such as {out / kind}.png")
    formats.suffix(out, tuple(s for s in formats.ANIMATIONS if moves))
    problem = folders.unwritable(out.parent)
    if problem is not None:
        raise UserError(f"--out {out} cannot be written ({problem}): name another file")
