"""The table of commands, and the parser that they make."""

import argparse
import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biggan_jax import __version__
from biggan_jax.cli import (
    configs,
    doctor,
    evaluate,
    explore,
    init,
    look,
    options,
    planning,
    prepare,
    report,
    sample,
    score,
    train,
    verify,
    weights,
)
from biggan_jax.cli.output import Help, say
from biggan_jax.errors import UserError, did_you_mean

# Each `add(command)` calls `command(NAME, FUNCTION, HELP)` for every command of its group and puts
# the options into the parser that it gets. FUNCTION takes (args, overrides) and returns (the JSON
# object, the exit code). The order is that of `biggan --help`.
GROUPS = (train, sample, look, evaluate, score, report, explore, init, doctor)
GROUPS += (planning, weights, verify, prepare, configs)
# What they compile is kept for the next time. Not `plan`, which tells how long compiling takes.
KEPT = ("train", "sample", "look", "explore", "evaluate", "score", "bench", "init", "verify")
# They compute for minutes.
HEAVY = ("train", "evaluate", "score", "bench", "init")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line that names the nearest right word."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.register("type", Path, options.local_path)
        self._given: list[str] = []
        # Required options -> says of the arguments whether they do without it.
        self.unless: dict[str, Callable[[list[str]], bool]] = {}
        # They are read as the values of settings are.
        self.register("type", int, options.whole)
        self.register("type", float, options.number)

    def error(self, message: str):
        """Raises a UserError in place of printing the usage."""
        unknown = self._unknown(self._given) if "required" in message else []
        raise UserError("; ".join([f"{message} (see {self.prog} --help)", *unknown]))

    def print_help(self, file=None):
        """Hands the text to `output.ended`, which knows where it belongs."""
        raise Help(self.format_help())

    def parse_known_args(self, args=None, namespace=None):
        """As its base, which calls it for the parser of a command too; no unknown option passes."""
        self._given = list(args or ())
        for option, do_without in self.unless.items():
            self._option_string_actions[option].required = not do_without(self._given)
        namespace, rest = super().parse_known_args(args, namespace)
        for problem in self._unknown(rest):
            raise UserError(problem)
        return namespace, rest

    def _unknown(self, words: list[str]) -> list[str]:
        """What is said of the words that are neither options nor overrides of a setting."""
        known, said = self._option_string_actions, []
        for i, word in enumerate(words):
            name = word.partition("=")[0]
            if not name.startswith("--") or name in (*known, "--") or options.is_override(name):
                continue
            setting = "--config" in known and options.as_setting(words[i : i + 2])
            unknown = f"unknown option {name!r}{did_you_mean(name, known)}"
            said.append(setting or f"{unknown} (see {self.prog} --help)")
        return said

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        name, known = "/".join(action.option_strings), [str(choice) for choice in action.choices]
        what = f"{name} {value!r} is unknown" if name else f"unknown {action.dest} {value!r}"
        hint = did_you_mean(str(value), known)
        self.error(f"{what}{hint}: choose from {', '.join(known)}")


def parser() -> Parser:
    """The command line of the contract in the README."""
    top = Parser(
        prog="biggan",
        description="Train and sample SAGAN and BigGAN on JAX.",
        epilog="Compiled programs are kept in ~/.cache/biggan_jax/programs; BIGGAN_CACHE=FOLDER "
        "keeps them elsewhere, BIGGAN_CACHE=off nowhere.",
    )
    top.set_defaults(json=False)
    top.add_argument("--version", action="store_true", help="of this package, JAX and Python")
    options.add_json(top)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        options.add_json(sub)
        return sub

    for group in GROUPS:
        group.add(command)
    return top


def without_command(args: argparse.Namespace, rest: list[str]) -> tuple[dict[str, str], int]:
    """`biggan --version`, and the help where there is nothing else to do.

    Raises:
      Help: there was no argument.
      UserError: there was one that only a command takes.
    """
    if rest:
        raise UserError(f"{rest[0]!r} stands before a command (see biggan --help)")
    if not args.version:
        parser().print_help()
    versions = {"biggan_jax": __version__, "jax": importlib.metadata.version("jax")}
    versions["python"] = platform.python_version()
    say(args, "biggan_jax {biggan_jax} (jax {jax}, Python {python})".format(**versions))
    return versions, 0
