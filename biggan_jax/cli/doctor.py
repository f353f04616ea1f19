"""`biggan doctor`: what would stop a run or surprise, before it starts."""

import argparse
import dataclasses
import time
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say
from biggan_jax.data import kinds
from biggan_jax.errors import EXIT_USAGE, UserError

# Options that stand for settings where there is no config.
_WITH_DATA = {
    "resolution": "model.resolution",
    "channels": "model.channels",
    "on_bad_record": "data.on_bad_record",
}


def add(command) -> None:
    """Adds the command."""
    sub = command("doctor", run, "look for what would stop a run or surprise, before it starts")
    options.add_config(sub, required=False)
    add = sub.add_argument
    add(
        "--data",
        metavar="SPEC",
        help=f"images alone, or in place of the config's: {kinds.described()}",
    )
    add("--resolution", type=int, metavar="R", help="pixels, with --data alone; 64")
    add("--channels", type=int, choices=(1, 3), help="with --data alone; 3")
    add("--on-bad-record", choices=("error", "skip"), help="with --data alone; error")
    add(
        "--workdir",
        type=options.path,
        metavar="DIR",
        help="where the run shall be kept; default: the disk of the current folder is looked at",
    )


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan doctor`."""
    if args.config is None and args.data is None:
        raise UserError("doctor takes --config FILE, --data SPEC, or both")
    start = time.perf_counter()
    from biggan_jax.planning import doctor

    found = doctor.Examination()
    if args.config is None:
        options.no_overrides(overrides, "doctor")
        _look_at_data(found, args)
    else:
        for name, key in _WITH_DATA.items():
            if getattr(args, name) is not None:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is for --data alone: give --config.{key} instead")
        if args.data is not None:
            overrides = [*overrides, f"--config.data.source={args.data}"]
        config = options.load_config(args, overrides, need_classes=False)
        doctor.of_config(found, config, args.workdir and Path(args.workdir))
    problems = found.sorted()
    stops = sum(problem.stops for problem in problems)
    say(args, "\n".join([*found.facts, *map(str, problems), _verdict(len(problems), stops)]))
    result = {
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "images": found.images,
        "classes": found.classes,
        "seconds": time.perf_counter() - start,
    }
    return result, EXIT_USAGE if stops else 0


def _look_at_data(found, args: argparse.Namespace) -> None:
    from biggan_jax import data
    from biggan_jax.config import domains
    from biggan_jax.planning import doctor

    domains.check_option("--resolution", "model.resolution", args.resolution)
    settings = {"resolution": 64, "channels": 3}
    settings |= {key: value for key in _WITH_DATA if (value := getattr(args, key)) is not None}
    source = found.attempt(args.data, data.open_source, args.data, option="--data", **settings)
    if source is not None:
        doctor.of_data(found, source)


def _verdict(problems: int, stops: int) -> str:
    if not problems:
        return "no problems found"
    found = "1 problem" if problems == 1 else f"{problems} problems"
    if not stops:
        return f"{found} found, none of which stops a run"
    return f"{found} found, {stops} of which {'stops' if stops == 1 else 'stop'} a run"
