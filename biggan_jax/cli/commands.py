"""The table of commands, and the parser that they make."""

import argparse

from biggan_jax.cli import evaluate, planning, prepare, sample, train, weights
from biggan_jax.errors import UserError

# Each `add(command)` calls `command(NAME, FUNCTION, HELP)` for every command of its group and puts
# the options into the parser that it gets. FUNCTION takes (args, overrides) and returns (the JSON
# object, the exit code). The order is that of `biggan --help`.
GROUPS = (train, sample, evaluate, planning, weights, prepare)
# What they compile is kept for the next time. Not `plan`, which tells how long compiling takes.
KEPT = ("train", "sample", "look", "evaluate", "bench")
# They compute for minutes.
HEAVY = ("train", "evaluate", "bench")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The command line of the contract in the README."""
    top = Parser(
        prog="biggan",
        description="Train and sample SAGAN and BigGAN on JAX.",
        epilog="Compiled programs are kept in ~/.cache/biggan_jax/programs; BIGGAN_CACHE=FOLDER "
        "keeps them elsewhere, BIGGAN_CACHE=off nowhere.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return sub

    for group in GROUPS:
        group.add(command)
    return top
