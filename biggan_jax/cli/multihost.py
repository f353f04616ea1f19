"""Options of the commands that several hosts run together."""

import argparse
import contextlib

from biggan_jax.cli import options

NAMES = ("coordinator", "num_processes", "process_id", "heartbeat_timeout", "connect_timeout")


def add(sub: argparse.ArgumentParser) -> None:
    """How the processes of one run find each other, where no cluster tells them."""
    group = sub.add_argument_group(
        "several hosts (the same command on each; automatic on TPU slices and in Slurm steps)"
    )
    add = group.add_argument
    add("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    add("--num-processes", type=int, metavar="N", help="of the run")
    add("--process-id", type=int, metavar="I", help="of this process, from 0")
    silent = "seconds after which a silent process counts as dead, which ends the others; 20"
    add("--heartbeat-timeout", type=int, default=options.UNSET, metavar="S", help=silent)
    add(
        "--connect-timeout",
        type=int,
        default=options.UNSET,
        metavar="S",
        help="to find each other; 60",
    )


def session(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """A context in which this process is one of those that the options name."""
    from biggan_jax.parallel import distributed

    return distributed.session(distributed.Options(**options.given(args, *NAMES)))
