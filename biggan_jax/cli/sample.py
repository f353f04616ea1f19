"""`biggan sample`: images of a trained generator."""

import argparse
import os

from biggan_jax.cli import look_options, options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import counts
from biggan_jax.parallel import devices


def add(command) -> None:
    """Adds the command."""
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
    look_options.add_classes(sub, "all (a picture: 10 at most)")
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


def target(text: str) -> str:
    """The value of `sample --out`: a path that keeps the slash at its end, which means a folder."""
    return options.path(text) + "/" * text.endswith(("/", os.sep))


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
