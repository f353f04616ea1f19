"""Command-line options that several commands share, and those of `biggan look`."""

import argparse
from pathlib import Path


def add_source(sub: argparse.ArgumentParser) -> None:
    """--from."""
    sub.add_argument("--from", dest="source", required=True, metavar="DIR")


def add_latents(sub: argparse.ArgumentParser) -> None:
    """--truncation, --truncation-kind and --seed."""
    sub.add_argument("--truncation", type=float, metavar="T", help="redraw every |z_i| > T")
    sub.add_argument("--truncation-kind", choices=("resample", "scale"), default="resample")
    sub.add_argument("--seed", type=int, default=0)


def add_weights(sub: argparse.ArgumentParser) -> None:
    """--bn-mode and --raw."""
    sub.add_argument("--bn-mode", choices=("running", "batch", "standing"), default="running")
    sub.add_argument("--raw", action="store_true", help="raw weights instead of the average")


def add_standing(sub: argparse.ArgumentParser) -> None:
    """The forwards behind standing statistics."""
    group = sub.add_argument_group("standing statistics (bn mode 'standing')")
    add = group.add_argument
    add("--standing-batches", type=int, metavar="N", help="forwards to average over; 16")
    add("--standing-batch-size", type=int, metavar="B", help="samples of a forward; 64")
    add(
        "--standing-truncation",
        type=float,
        metavar="T",
        help="of their latents; default: as the samples'",
    )


def add_truncation_statistics(sub: argparse.ArgumentParser) -> None:
    """--truncation-statistics and --hf-interpolation."""
    sub.add_argument(
        "--truncation-statistics",
        type=float,
        metavar="T",
        help="of an import of pretrained-biggan: statistics for this truncation; default: "
        "--truncation",
    )
    sub.add_argument(
        "--hf-interpolation",
        action="store_true",
        help="interpolate them reversed, as pytorch-pretrained-BigGAN",
    )


def standing(args: argparse.Namespace) -> dict:
    """The options of `add_standing` that were given, as arguments of `set_bn_mode`."""
    names = ("batches", "batch_size", "truncation")
    values = {name: getattr(args, f"standing_{name}") for name in names}
    return {name: value for name, value in values.items() if value is not None}


def add_multihost(sub: argparse.ArgumentParser) -> None:
    """How the processes of one run find each other, where no cluster tells them."""
    group = sub.add_argument_group(
        "several hosts (the same command on each; automatic on TPU slices and in Slurm steps)"
    )
    add = group.add_argument
    add("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    add("--num-processes", type=int, metavar="N", help="of the run")
    add("--process-id", type=int, metavar="I", help="of this process, from 0")
    silent = "seconds after which a silent process counts as dead, which ends the others; 20"
    add("--heartbeat-timeout", type=int, default=20, metavar="S", help=silent)
    add("--connect-timeout", type=int, default=60, metavar="S", help="to find each other; 60")


def multihost(args: argparse.Namespace) -> dict:
    """The options of `add_multihost`, as fields of `distributed.Options`."""
    names = ("coordinator", "num_processes", "process_id", "heartbeat_timeout", "connect_timeout")
    return {name: getattr(args, name) for name in names}


def add_look(sub: argparse.ArgumentParser) -> None:
    """The kinds of `biggan look` and their options."""
    kinds = sub.add_subparsers(dest="kind", required=True, metavar="KIND")

    def kind(name: str, help: str) -> argparse.ArgumentParser:
        one = kinds.add_parser(name, help=help, description=help)
        # Suppressed: a default here would undo a --json before KIND.
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
        add_source(one)
        one.add_argument("--out", required=True, type=Path, metavar="F.png")
        add_latents(one)
        return one

    one = kind("attention", "where chosen points of an image attend to (SAGAN's figure 5)")
    one.add_argument("--layer", metavar="NAME", help="default: that of the highest resolution")
    one.add_argument("--classes", metavar="0,3", help="of the rows in turn; default: spread")
    one.add_argument("--count", type=int, metavar="N", help="rows; default: one a class, or 6")
    one.add_argument("--points", metavar="'R,C;R,C'", help="image pixels, from the top left")
    one.add_argument("--num-points", type=int, metavar="K", help="points to pick; 5")
    add_weights(one)
    one.add_argument("--discriminator", action="store_true", help="look into D instead of G")
    one.add_argument(
        "--images", nargs="+", type=Path, default=[], metavar="PATH", help="for D: files, folders"
    )

    one = kind("bn", "the same samples in every batch-norm mode, averaged and raw weights")
    one.add_argument("--classes", metavar="0,3", help="default: 5, spread over all")
    one.add_argument("--per-class", type=int, default=5, metavar="N")
    add_standing(one)


def look(args: argparse.Namespace) -> tuple[dict, str]:
    """Draws what the options of `add_look` ask for.

    Returns:
      (the JSON object of `biggan look`, what it says to a person).
    """
    from biggan_jax.sampling import files, look

    def given(*names: str) -> dict:
        return {name: getattr(args, name) for name in names}

    latents = given("classes", "seed", "truncation", "truncation_kind")
    if args.kind == "bn":
        result = files.bn_matrix(
            args.source, args.out, **latents, **given("per_class"), standing=standing(args)
        )
        return result, f"{' and '.join(result['weights'])} weights in {result['out']}"
    result = look.attention(
        args.source,
        args.out,
        samples=look.Samples(**latents, **given("count", "bn_mode"), ema=not args.raw),
        **given("layer", "points", "num_points", "discriminator", "images"),
    )
    return result, look.text(result)


def add_sweep(sub: argparse.ArgumentParser, help: str) -> None:
    """--sweep KEY=A,B, as often as there are axes; `grid.parse` reads it."""
    sub.add_argument("--sweep", action="append", default=[], metavar="KEY=A,B", help=help)


def add_plan(sub: argparse.ArgumentParser) -> None:
    """The options of `biggan plan`."""
    add = sub.add_argument
    add("--topology", required=True, metavar="GEN:SHAPE", help="of one slice, such as v4:4x4x4")
    add("--slices", type=int, default=1, metavar="N", help="joined by the data-center network")
    add("--usd-per-chip-hour", type=float, metavar="X", help="price, for the cost of the run")
    add_sweep(sub, "one table over all values, such as batch_size=512,1024; repeat it for a grid")
    add(
        "--fast",
        action="store_true",
        help="compile with little effort, 5 times quicker: HBM traffic is that of a slower program",
    )


def plan(args: argparse.Namespace) -> dict:
    """The options of `add_plan`, as arguments of `plan.run`."""
    keys = ("topology", "slices", "usd_per_chip_hour", "sweep", "fast")
    return {key: getattr(args, key) for key in keys}
