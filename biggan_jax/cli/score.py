"""`biggan score`."""

import argparse
import json
from pathlib import Path
from typing import Any

from biggan_jax.cli import options
from biggan_jax.cli.output import say
from biggan_jax.data import kinds

_SIDE = f"{kinds.described()}; or a folder, an .npz of images, an .npz of statistics (mu, sigma)"


def add(command) -> None:
    """Adds the command."""
    sub = command("score", run, "compare any two sets of images: FID, KID, precision, recall")
    sub.add_argument("real", metavar="REAL", help=_SIDE)
    sub.add_argument("fake", metavar="FAKE", help="the same, for what is scored")
    add = sub.add_argument
    options.add_features(sub, options.UNSET)
    options.add_resize(sub)
    add("--resolution", type=int, metavar="R", default=options.UNSET, help="pixels; default: own")
    add("--channels", type=int, choices=(1, 3), default=options.UNSET)
    add("--on-bad-record", choices=("error", "skip"), default=options.UNSET)
    add("--no-intra-fid", action="store_true", help="where a class has too few images")
    add("--out", type=Path, metavar="F.json", help="the result, for `evaluate --compare`")
    cache = "where classifiers and measured real images are kept"
    add("--cache", type=Path, metavar="FOLDER", default=options.UNSET, help=cache)


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict[str, Any], int]:
    """`biggan score`."""
    options.no_overrides(overrides)
    from biggan_jax.errors import UserError
    from biggan_jax.evaluation import folders, score
    from biggan_jax.storage import paths

    names = (
        "features",
        "inception",
        "dinov2",
        "resize",
        "resolution",
        "channels",
        "on_bad_record",
        "cache",
    )
    settings = score.Settings(**options.given(args, *names), intra_fid=not args.no_intra_fid)
    if args.out is not None:
        if args.out.suffix != ".json":
            raise UserError(f"--out {args.out}: the result is a .json; name it so")
        folders.check_writable(args.out.parent, "--out in")
    result = score.score_images(args.real, args.fake, settings)
    text = score.lines(result)
    if args.out is not None:
        paths.write_bytes(args.out, json.dumps(result, indent=2).encode() + b"\n")
        text.append(f"written: {args.out}")
    say(args, "\n".join(text))
    return result, 0
