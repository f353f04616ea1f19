"""`biggan prepare`: any source of images -> sharded records."""

import argparse
import dataclasses
import sys
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.data import kinds
from biggan_jax.errors import UserError, some


def add(command) -> None:
    """Adds the command."""
    sub = command("prepare", run, "turn any image source into sharded records")
    sub.add_argument("--source", required=True, metavar="SPEC", help=kinds.described())
    sub.add_argument("--resolution", required=True, type=int, metavar="R", help="pixels")
    sub.add_argument("--channels", type=int, choices=(1, 3), default=3)
    sub.add_argument(
        "--on-bad-record",
        choices=("error", "skip"),
        default=options.UNSET,
        help="what an unreadable image means: stop with its name, or leave it out",
    )
    sub.add_argument(
        "--class-order",
        choices=("natural", "text"),
        default=options.UNSET,
        help="of class folders: 'class 9' before 'class 10', or by code points as it was before",
    )
    sub.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="of the largest image that is decoded; default: Pillow's limit of 179 million",
    )
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
    import numpy as np
    from tqdm import tqdm

    from biggan_jax import data
    from biggan_jax.data import findings
    from biggan_jax.data.files import shown
    from biggan_jax.data.listing import counts

    for option, value in (("resolution", args.resolution), ("max-pixels", args.max_pixels)):
        if value is not None and value < 1:
            raise UserError(f"--{option} is {value}; set it to 1 or more pixels")
    if not str(args.out).strip(" ."):
        raise UserError(f"--out {str(args.out)!r} is no folder to make; give it a name")
    out = args.out.expanduser()
    names = ("resolution", "channels", "on_bad_record", "class_order", "max_pixels")
    source = data.open_source(args.source, option="--source", **options.given(args, *names))
    report = None
    if source.histogram_is_cheap:
        report = data.data_report(source)
        found = findings.find(source, np.array(report.histogram), thorough=True)
        report = dataclasses.replace(report, findings=tuple(found))
    lines = report.lines() if report else []
    with tqdm(total=len(source), unit="image", disable=None) as bar, writing(out):

        def progress(done: int, total: int) -> None:
            while lines:  # not before it is sure that there is work to do
                tqdm.write(lines.pop(0), file=sys.stderr)
            bar.update(done - bar.n)

        info = data.prepare(source, out, reduced_jpeg=args.reduced_jpeg, progress=progress)
    if info["dropped"]:
        number = counts(info["dropped"], "unreadable image was", "unreadable images were")
        names = info["dropped_names"]
        more = f" and {info['dropped'] - 3:,} more" if info["dropped"] > 3 else ""
        print(f"{number} left out: {', '.join(names[:3])}{more}", file=sys.stderr)
    images = counts(info["count"], "image", "images")
    classes = counts(info["num_classes"], "class", "classes")
    names = some(map(shown, info["class_names"]), 20)
    say(args, f"{images} of {classes} in {out}: {names}")
    return info | {"out": str(out)}, 0
