#!/usr/bin/env python3
"""Trains a config with different overrides, one workdir each, and puts the results into one table.

  .venv/bin/python launch/sweep.py --config configs/digits.py --out runs/sweep \\
      --sweep batch_size=16,32 --sweep model.ch=8,16 [--config.KEY=VALUE ...]

Runs are trained one after another; the same command continues what is unfinished. With --print it
prints one launch line each, for a scheduler, and with --collect the table of what is there.

With --json stdout is one JSON object. Exit codes: 0 done, 2 bad usage or input, 1 a run failed (the
others went on), 130 after Ctrl-C and 75 after SIGTERM.
"""

import argparse
import sys

try:
    from biggan_jax import cli, errors
    from biggan_jax.cli import options, report
    from biggan_jax.cli.output import ended, say
    from biggan_jax.errors import UserError
    from biggan_jax.sweep import launch
    from biggan_jax.sweep import results as results_lib
    from biggan_jax.sweep import runs as runs_lib
except ModuleNotFoundError as error:
    sys.exit(
        f"biggan: {error}; run it by the Python of the environment: .venv/bin/python {__file__}"
    )


def parser() -> cli.Parser:
    """The command line."""
    top = cli.Parser(
        prog="sweep.py",
        description="Train a config with different overrides and compare the results.",
        epilog="Any setting is overridden for all runs by --config.KEY=VALUE.",
    )
    add = top.add_argument
    add("--config", required=True, metavar="FILE|NAME", help="as of `biggan train`")
    add(
        "--out",
        type=options.path,
        required=True,
        metavar="DIR",
        help="of the workdirs, results.csv, results.json",
    )
    options.add_sweep(top, "values of a setting; repeat it for all combinations")
    add("--points", type=options.path, metavar="FILE", help="a line of KEY=VALUE ... for each run")
    add(
        "--command",
        default=launch.COMMAND,
        metavar="TEMPLATE",
        help="instead of `biggan train`: {config} {workdir} {overrides} {name} are filled in, and "
        "no shell reads it unless it starts one (bash -c); default: %(default)s",
    )
    add(
        "--seeds",
        type=int,
        metavar="K",
        help="train every run with K seeds (`biggan train --seeds K`): every value becomes a mean "
        "and a deviation",
    )
    how = top.add_mutually_exclusive_group()
    how.add_argument("--print", action="store_true", help="print a line for each unfinished run")
    how.add_argument("--collect", action="store_true", help="only the table of what is there")
    add("--report", action="store_true", help="write one page of all runs: OUT/report/index.html")
    add("--json", action="store_true", help="print one JSON object on stdout")
    return top


def run(argv: list[str]) -> tuple[dict, int]:
    """Runs a sweep and returns (the JSON object, the exit code)."""
    args, shared = parser().parse_known_args(argv)
    points = {"sweep": args.sweep, "points": args.points, "seeds": args.seeds}
    runs = runs_lib.make_runs(args.config, shared, args.out, **points)
    if args.print and args.report:
        raise UserError("--print starts no run, of which --report could tell: leave one out")
    if args.print:
        left = [one for one in runs if not runs_lib.is_finished(one)]
        lines = [launch.command_line(args.command, args.config, one) for one in left]
        print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", file=sys.stderr)
        if lines and not args.json:
            print("\n".join(lines))
        return {"out": args.out, "lines": lines}, 0
    if args.collect:
        runs_lib.collect(runs)
        code = 0
    else:
        code = launch.run_all(runs, args.command, args.config)
    results, text = results_lib.report(runs, args.out)
    say(args, text)
    page = _report(args) if args.report else {}
    if code in (errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED):
        print("the sweep was stopped; the same command continues", file=sys.stderr)
    return {"out": args.out, "runs": results} | page, code


def _report(args: argparse.Namespace) -> dict:
    """Writes the page of the sweep: {report, best}."""
    result = report.of_sweep(args.out)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    say(args, f"{result['verdict']}\n{result['out']}")
    return {"report": result["out"], "best": result["best"]}


def main(argv: list[str] | None = None) -> int:
    """Runs a sweep; what a user can correct is one line."""
    return ended(run, argv)


if __name__ == "__main__":
    sys.exit(main())
