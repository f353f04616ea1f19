"""`biggan report`."""

import argparse
import os
import sys

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError

SUFFIXES = (".html", ".htm")


def add(command) -> None:
    """Adds the command."""
    sub = command("report", run, "what happened in a run, as one page")
    sub.add_argument("--from", dest="source", type=options.path, required=True, metavar="DIR")
    sub.add_argument(
        "--out", type=options.path, metavar="F.html", help="default: DIR/report/index.html"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan report`."""
    options.no_overrides(overrides)
    if args.out is not None and not args.out.lower().endswith(SUFFIXES):
        raise UserError(f"--out {args.out}: the report is a page; name it F.html")
    if args.out is not None and os.path.isdir(args.out):
        raise UserError(f"--out {args.out} is a folder: name a file in it")
    from biggan_jax.evaluation import run_page

    try:
        with writing(args.out or args.source):
            result = run_page.write(args.source, args.out)
    except OSError as error:
        if args.out is not None:
            raise
        raise OSError(f"{error}; --out F.html writes the page elsewhere") from error
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    say(args, f"{result['verdict']}\n{result['out']}")
    return result, 0
