"""`biggan COMMAND ...`: all of argparse, and nothing else.

With --json stdout is exactly one line, one JSON object; everything else goes to stderr. Exit codes:
0 finished, 2 bad usage or input (one line says what is wrong and what to do), 1 failure, 130 after
Ctrl-C, 75 when SIGTERM stopped an unfinished run.
"""

import contextlib
import logging
import os
import sys
from typing import Any

from biggan_jax import errors
from biggan_jax.cli import allocator, garbage, model_option
from biggan_jax.cli.commands import HEAVY, KEPT, Parser, parser, without_command
from biggan_jax.cli.output import ended
from biggan_jax.parallel import ahead, devices, signals, terminal
from biggan_jax.storage import compiled, orbax_noise

# What to do when memory runs out; `train` and `bench` know the settings.
REMEDIES = {
    "sample": "take fewer by --per-class or --classes, or write single files by --out FOLDER/",
    "look": "take fewer by --count, --per-class or --classes",
    "evaluate": "take fewer by --samples, or leave out classes by --no-intra-fid",
}

__all__ = ["Parser", "main", "parser"]


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: its arguments; those of the process where absent.

    Returns:
      The exit code.
    """

    def run(given: list[str]) -> tuple[Any, int]:
        args, overrides = parser().parse_known_args(given)
        if args.command is None:
            return without_command(args, overrides)
        if argv is None:  # else the process is somebody else's
            garbage.collect_rarely()
            if args.command in HEAVY:
                allocator.ask()
        programs = compiled.kept() if args.command in KEPT else contextlib.nullcontext()
        remedy = REMEDIES.get(args.command, "free some memory, or use a larger machine")
        named = devices.named_errors(lambda: remedy)
        with orbax_noise.silenced(), programs, devices.told_once(), named:
            model_option.find_models(args)
            return args.run(args, overrides)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow only writes event files here
    logging.getLogger("absl").setLevel(logging.WARNING)
    with terminal.survived(), signals.answered_at_once():
        code = ended(run, argv)
        if argv is None and (code == errors.EXIT_INTERRUPTED or ahead.is_compiling()):
            # No teardown: of what still computes, or at the next Ctrl-C, it would crash, and for
            # the compiler it would wait.
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(code)
    return code
