"""`biggan verify`: our layers against the activations that another implementation recorded."""

import argparse
from pathlib import Path
from typing import Any

from biggan_jax.cli import options
from biggan_jax.cli.output import say
from biggan_jax.errors import EXIT_FAILED


def add(command) -> None:
    """Adds the command."""
    sub = command("verify", run, "name the first layer that differs from recorded activations")
    options.add_source(sub)
    add = sub.add_argument
    add(
        "--against",
        type=Path,
        required=True,
        metavar="FILE",
        help="an .npz or .safetensors of z and labels, or images and labels, and of outputs of "
        "layers by the names of the modules that gave them",
    )
    add(
        "--map",
        type=Path,
        metavar="FILE.json",
        help="the layer of ours for each recorded name that is of no known implementation: an "
        'object such as {"conv_in": "block_0/conv1"}',
    )
    add(
        "--tolerance",
        type=float,
        default=options.UNSET,
        metavar="T",
        help="the largest difference relative to the largest value of a layer; 2e-5",
    )
    group = sub.add_argument_group("of a generator")
    group.add_argument("--bn-mode", choices=("running", "batch"), default=options.UNSET)
    options.add_which(group, "raw weights instead of the average")
    group.add_argument(
        "--truncation-statistics",
        type=float,
        metavar="T",
        help="of an import of pretrained-biggan: statistics for this truncation; 1",
    )
    group.add_argument(
        "--hf-interpolation",
        action="store_true",
        help="interpolate them reversed, as pytorch-pretrained-BigGAN",
    )


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict[str, Any], int]:
    """`biggan verify`; its exit code is 1 where a layer differs."""
    options.no_overrides(overrides, "verify")
    from biggan_jax.interop import verify

    result = verify.verify(
        args.source,
        args.against,
        step=args.step,
        ema=options.ema(args),
        truncation_statistics=args.truncation_statistics,
        hf_interpolation=args.hf_interpolation,
        names=args.map,
        **options.given(args, "bn_mode", "tolerance"),
    )
    say(args, "\n".join(verify.lines(result)))
    return result, 0 if result["first_difference"] is None else EXIT_FAILED
