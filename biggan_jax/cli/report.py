"""`biggan report`."""

import argparse
import os
import sys

from biggan_jax.cli import model_option, options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError

SUFFIXES = (".html", ".htm")


def add(command) -> None:
    """Adds the command."""
    sub = command("report", run, "what happened in a run, or in the runs of a sweep, as one page")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--from", dest="source", type=model_option.model, metavar="DIR", help="a workdir"
    )
    which.add_argument(
        "--sweep",
        type=options.path,
        metavar="DIR",
        help="a folder of workdirs: --out of launch/sweep.py, or --workdir of `biggan train "
        "--seeds`; samples are made on the CPU",
    )
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
    if args.out is not None:
        from biggan_jax.evaluation import folders

        folders.check_writable(os.path.dirname(args.out) or ".", "--out in")
    try:
        with writing(args.out or args.source or args.sweep):
            result = _write(args)
    except OSError as error:
        if args.out is not None:
            raise
        raise OSError(f"{error}; --out F.html writes the page elsewhere") from error
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    say(args, f"{result['verdict']}\n{result['out']}")
    return result, 0


def _write(args: argparse.Namespace) -> dict:
    if args.sweep is not None:
        return of_sweep(args.sweep, args.out)
    from biggan_jax.evaluation import run_page

    return run_page.write(args.source, args.out)


def of_sweep(folder: str, out: str | None = None) -> dict:
    """`sweep.page.write` in a process that takes no accelerator: those belong to the runs."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    from biggan_jax.sweep import page

    return page.write(folder, out)
