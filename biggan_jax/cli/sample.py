"""`biggan sample` and `biggan look`: pictures of a trained model."""

import argparse
import os
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import counts
from biggan_jax.parallel import devices

HELD_OUT = "D's judgement of training and of held-out images over training, of one run or several"
SPECTRA = "singular values of all layers over training, as the monitors wrote them"


def add(command) -> None:
    """Adds both commands."""
    sub = command("sample", run_sample, "make images with a trained generator")
    options.add_source(sub)
    sub.add_argument(
        "--out",
        type=target,
        required=True,
        metavar="F.png|F.npz|FOLDER/",
        help="a picture (.png, .jpg, .jpeg, .webp), arrays (.npz), or a new or empty folder of "
        "single files CLASS/00001.png",
    )
    add_classes(sub, "all (a picture: 10 at most)")
    sub.add_argument(
        "--per-class", type=int, default=options.UNSET, metavar="N", help="of the images; 10"
    )
    options.add_latents(sub)
    options.add_weights(sub)
    options.add_standing(sub)
    add_truncation_statistics(sub)
    sub.add_argument(
        "--interpolate", action="store_true", help="each row goes from one z to another"
    )

    sub = command("look", run_look, "pictures of a trained model at work: attention, bn")
    kinds = sub.add_subparsers(dest="kind", required=True, metavar="KIND")
    add_attention(
        add_kind(kinds, "attention", "where chosen points of an image attend to (SAGAN's figure 5)")
    )
    add_bn(
        add_kind(kinds, "bn", "the same samples in every batch-norm mode, averaged and raw weights")
    )
    for name, help, add in (
        ("spectra", SPECTRA, add_spectra),
        ("held-out", HELD_OUT, add_held_out),
    ):
        one = kinds.add_parser(name, help=help, description=help)
        one.add_argument("--json", action="store_true", default=options.UNSET)
        add(one)


def target(text: str) -> str:
    """The value of `sample --out`: a path that keeps the slash at its end, which means a folder."""
    return options.path(text) + "/" * text.endswith(("/", os.sep))


def add_classes(sub: argparse.ArgumentParser, default: str) -> None:
    """--classes."""
    sub.add_argument(
        "--classes",
        metavar="cat,dog|0-9",
        help="names as they are written (case counts), ids or ranges of ids; name:10 or id:10 "
        "where 10 could be either, double quotes around a name with a comma; default: " + default,
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


def add_kind(kinds, name: str, help: str) -> argparse.ArgumentParser:
    """One kind of `biggan look`, with the options that all of them take."""
    one = kinds.add_parser(name, help=help, description=help)
    # A default here would undo a --json before KIND.
    one.add_argument("--json", action="store_true", default=options.UNSET)
    options.add_source(one)
    one.add_argument(
        "--out", required=True, type=Path, metavar="F.png", help="or .jpg, .jpeg, .webp"
    )
    options.add_latents(one)
    return one


def add_attention(one: argparse.ArgumentParser) -> None:
    """The options of `look attention`."""
    one.set_defaults(draw=attention)
    one.add_argument("--layer", metavar="NAME", help="default: that of the highest resolution")
    add_classes(one, "spread over all; of the rows in turn")
    one.add_argument("--count", type=int, metavar="N", help="rows; default: one a class, or 6")
    one.add_argument("--points", metavar="'R,C;R,C'", help="image pixels, from the top left")
    one.add_argument("--num-points", type=int, metavar="K", help="points to pick; 5")
    options.add_weights(one)
    one.add_argument("--discriminator", action="store_true", help="look into D instead of G")
    one.add_argument(
        "--images", nargs="+", type=Path, default=[], metavar="PATH", help="for D: files, folders"
    )


def add_bn(one: argparse.ArgumentParser) -> None:
    """The options of `look bn`."""
    one.set_defaults(draw=bn)
    options.add_which(one, "raw weights alone; default: the average and the raw ones")
    add_classes(one, "5, spread over all")
    one.add_argument(
        "--per-class", type=int, default=options.UNSET, metavar="N", help="of the images; 5"
    )
    options.add_standing(one)


def add_spectra(one: argparse.ArgumentParser) -> None:
    """The options of `look spectra`, which looks at metrics.jsonl and makes no samples."""
    one.set_defaults(draw=spectra)
    add = one.add_argument
    add("--from", dest="source", type=options.path, required=True, metavar="DIR", help="a workdir")
    add("--out", required=True, type=Path, metavar="F.png", help="or .jpg, .jpeg, .webp")
    add(
        "--value",
        default=options.UNSET,
        metavar="NAME",
        help="of the layers: raw_sigma0 (also 1, 2), the largest singular value before spectral "
        "normalisation; sigma0 (1, 2) after it; ratio, weight_norm; default: raw_sigma0",
    )


def add_held_out(one: argparse.ArgumentParser) -> None:
    """The options of `look held-out`, which looks at metrics.jsonl of several runs at once."""
    one.set_defaults(draw=held_out)
    add, several = one.add_argument, {"nargs": "+", "metavar": "DIR", "help": "workdirs"}
    add("--from", dest="sources", type=options.path, required=True, **several)
    add("--out", required=True, type=Path, metavar="F.png", help="or .jpg, .jpeg, .webp")


def run_sample(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan sample`."""
    options.no_overrides(overrides)
    from biggan_jax.sampling import files

    with writing(args.out):
        result = files.write(
            args.source,
            args.out,
            step=args.step,
            **options.given(args, "classes", "per_class", "seed", "bn_mode", "interpolate"),
            **options.given(args, "truncation", "truncation_kind", "truncation_statistics"),
            hf_interpolation=args.hf_interpolation,
            standing=options.standing(args),
            ema=options.ema(args),
        )
    samples = counts(result["count"], "sample", "samples")
    took = f"{result['seconds']:.1f} s on {devices.describe()}"
    say(args, f"{samples} in {result['out']} ({took})")
    return result, 0


def run_look(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan look`."""
    options.no_overrides(overrides)
    with writing(args.out):
        result, text = args.draw(args)
    devices.tell()
    say(args, text)
    return result, 0


def attention(args: argparse.Namespace) -> tuple[dict, str]:
    """`biggan look attention`: (its JSON object, what it says to a person)."""
    from biggan_jax.sampling import look

    names = ("classes", "seed", "truncation", "truncation_kind", "count", "bn_mode")
    result = look.attention(
        args.source,
        args.out,
        step=args.step,
        rows=look.Rows(**options.given(args, *names), ema=options.ema(args)),
        **options.given(args, "layer", "points", "num_points", "discriminator", "images"),
    )
    return result, look.text(result)


def bn(args: argparse.Namespace) -> tuple[dict, str]:
    """`biggan look bn`: (its JSON object, what it says to a person)."""
    from biggan_jax.sampling import files

    names = ("classes", "per_class", "seed", "truncation", "truncation_kind")
    result = files.bn_matrix(
        args.source,
        args.out,
        step=args.step,
        **options.given(args, *names),
        standing=options.standing(args),
        ema=options.which(args),
    )
    return result, f"{' and '.join(result['weights'])} weights in {result['out']}"


def spectra(args: argparse.Namespace) -> tuple[dict, str]:
    """`biggan look spectra`: (its JSON object, what it says to a person)."""
    from biggan_jax.sampling import spectra as spectra_lib

    result = spectra_lib.draw(args.source, args.out, **options.given(args, "value"))
    first, last = result["steps"]
    return result, f"{result['value']} of steps {first:,} to {last:,} in {result['out']}"


def held_out(args: argparse.Namespace) -> tuple[dict, str]:
    """`biggan look held-out`: (its JSON object, what it says to a person)."""
    from biggan_jax.sampling import held_out as held_out_lib

    result = held_out_lib.draw(args.sources, args.out)
    return result, held_out_lib.text(result)
