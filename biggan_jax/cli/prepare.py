"""`biggan prepare`: any source of images -> sharded records."""

import argparse
import sys
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.data import kinds
from biggan_jax.errors import UserError


def add(command) -> None:
    """Adds the command."""
    sub = command("prepare", run, "turn any image source into sharded records")
    sub.add_argument("--source", required=True, metavar="SPEC", help=kinds.described())
    sub.add_argument("--resolution", required=True, type=int, metavar="R", help="pixels")
    sub.add_argument("--channels", type=int, choices=(1, 3), default=3)
    sub.add_argument("--on-bad-record", choices=("error", "skip"), default=options.UNSET)
    sub.add_argument(
        "--reduced-jpeg",
        action="store_true",
        help="decode JPEGs at 1/2, 1/4 or 1/8 of their size where that is at least twice "
        "--resolution: up to twice as fast, pixels differ by 4 to 7 of 255 (rms)",
    )
    sub.add_argument("--out", required=True, type=Path, metavar="DIR")


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan prepare`."""
    options.no_overrides(overrides)
    from tqdm import tqdm

    from biggan_jax import data

    if args.resolution < 1:
        raise UserError(f"--resolution is {args.resolution}; set it to 1 or more pixels")
    names = ("resolution", "channels", "on_bad_record")
    source = data.open_source(args.source, option="--source", **options.given(args, *names))
    with tqdm(total=len(source), unit="image", disable=None) as bar, writing(args.out):

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        info = data.prepare(source, args.out, reduced_jpeg=args.reduced_jpeg, progress=progress)
    if source.bad_records:
        print(f"{source.bad_records} bad records were replaced", file=sys.stderr)
    say(args, f"{info['count']:,} images of {info['num_classes']} classes in {args.out}")
    return info | {"out": str(args.out)}, 0
