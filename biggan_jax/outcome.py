"""How a command that failed ends: one line on stderr and an exit code."""

import os
import sys

from biggan_jax import signals
from biggan_jax.errors import UserError

# Whatever else is raised is a defect of this program, and shows its traceback.
EXPECTED = (UserError, KeyboardInterrupt, OSError, ArithmeticError)


def of(error: BaseException) -> tuple[str | None, int]:
    """(the line for a person, exit code) of one of the `EXPECTED` errors; None is no line."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", signals.EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return None, 1  # whoever read stdout has gone
    # A full or read-only disk, an unreadable file (the message carries the path), a NaN.
    return str(error), 1


def tell(error: BaseException) -> int:
    """Prints the line of one of the `EXPECTED` errors and returns the exit code."""
    line, code = of(error)
    if line is not None:
        print(f"biggan: {line}", file=sys.stderr)
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more at its exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
