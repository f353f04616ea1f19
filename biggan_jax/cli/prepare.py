"""`biggan prepare`: any source of images -> sharded records."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.data import kinds
from biggan_jax.errors import UserError, some

if TYPE_CHECKING:
    from biggan_jax.data import Source


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
    sub.add_argument(
        "--encode",
        default="raw",
        metavar="E",
        help="how images are stored: raw (fastest), webp (lossless, half the size) or jpeg (a "
        "quarter); raw",
    )
    sub.add_argument("--quality", type=int, metavar="Q", help="of --encode jpeg, 1 to 100; 95")
    sub.add_argument(
        "--lanes",
        type=int,
        metavar="L",
        help="lay the records in L lanes, of which each host of a run reads its own; L is a "
        "multiple of the hosts; 0: none; default: 1024 from 32 GiB of pixels on, else 0",
    )
    sub.add_argument(
        "--worker",
        type=_worker,
        metavar="I/N",
        help="write part I of N (0/N to N-1/N) of the lanes and go on after a kill; the last of "
        "the N finishes",
    )
    sub.add_argument(
        "--out",
        required=True,
        type=options.path,
        metavar="DIR",
        help="local, or gs://BUCKET/FOLDER",
    )


def _worker(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no I/N, such as 0/8")
    return int(number), int(count)


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan prepare`."""
    options.no_overrides(overrides)
    import numpy as np
    from tqdm import tqdm

    from biggan_jax import data
    from biggan_jax.config import domains
    from biggan_jax.data import buckets, findings
    from biggan_jax.data.encoding import asked
    from biggan_jax.data.files import shown
    from biggan_jax.data.listing import counts
    from biggan_jax.evaluation import folders

    domains.check_option("--resolution", "model.resolution", args.resolution)
    domains.check_option("--max-pixels", "data.max_pixels", args.max_pixels)
    encoding = asked(args.encode, args.quality)
    if not args.out.strip(" ."):
        raise UserError(f"--out {args.out!r} is no folder to make; give it a name")
    out = buckets.workdir_path(args.out)
    buckets.reach(args.out, write=True)
    folders.check_writable(out.parent, "--out in")
    names = ("resolution", "channels", "on_bad_record", "class_order", "max_pixels")
    source = data.open_source(args.source, option="--source", **options.given(args, *names))
    num_lanes = _lanes(args, source)
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

        info = data.prepare(
            source,
            out,
            lanes=num_lanes,
            worker=args.worker,
            reduced_jpeg=args.reduced_jpeg,
            encoding=encoding,
            progress=progress,
        )
    if info.get("finished") is False:
        number, count = args.worker
        say(
            args,
            f"worker {number}/{count}: its {info['written']:,} of {num_lanes:,} lanes are in {out};"
            " the last of the workers to end finishes it",
        )
        return info | {"out": str(out)}, 0
    if info["dropped"]:
        number = counts(info["dropped"], "unreadable image was", "unreadable images were")
        names = info["dropped_names"]
        more = f" and {info['dropped'] - 3:,} more" if info["dropped"] > 3 else ""
        print(f"{number} left out: {', '.join(names[:3])}{more}", file=sys.stderr)
    images = counts(info["count"], "image", "images")
    classes = counts(info["num_classes"], "class", "classes")
    names = some(map(shown, info["class_names"]), 20)
    in_lanes = f" in {counts(num_lanes, 'lane', 'lanes')}" if num_lanes else ""
    say(args, f"{images} of {classes} in {out}{in_lanes}: {names}")
    return info | {"out": str(out)}, 0


def _lanes(args: argparse.Namespace, source: "Source") -> int:
    """How many lanes are written."""
    from biggan_jax.data import lanes
    from biggan_jax.data.records import record_dtype

    if args.lanes is not None:
        return args.lanes
    raw_bytes = len(source) * record_dtype(source.resolution, source.channels).itemsize
    return lanes.default_count(len(source), raw_bytes, args.worker[1] if args.worker else 0)
