"""What a command says, how it ends, and how it names the file that it could not write."""

import argparse
import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from biggan_jax import errors

_callers_stdout: int | None = None  # a descriptor of it while `_own_stdout` has put stderr there


class Help(Exception):
    """--help was asked for; its only argument is the text."""


def say(args: argparse.Namespace, text: str) -> None:
    """Prints for a person, out of the way of the JSON line."""
    print(text, file=sys.stderr if args.json else sys.stdout)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Names `path` in an OSError that names no file, as that of a write to a full disk."""
    try:
        yield
    except OSError as e:
        if e.filename is not None or str(path) in str(e):
            raise
        raise OSError(f"{path}: {e}") from e


def ended(run: Callable[[list[str]], tuple[Any, int]], argv: Sequence[str] | None) -> int:
    """Runs a command line to its end: a result, or what went wrong.

    With `--json` among its arguments stdout gets exactly one line, one JSON object: the result,
    `{"help": ...}` or `{"error": ..., "exit_code": ...}`. All else that is printed goes to stderr.

    Args:
      run: takes the arguments and returns (what is printed as JSON, the exit code).
      argv: the arguments; those of the process where absent.

    Returns:
      The exit code.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if sys.stderr is None:  # closed: Python would print on stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A terminal of another encoding gets names of classes and files in escapes, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    if "--json" in argv:
        with _own_stdout() as write, errors.told_as_json(write):
            return _ended(run, argv, write)
    try:
        return _ended(run, argv, None)
    finally:
        # Python flushes stdout once more at its exit, and would complain there.
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ended(run: Callable, argv: list[str], write: Callable[[str], None] | None) -> int:
    try:
        try:
            result, code = run(argv)
        except Help as e:
            result, code = {"help": e.args[0]}, 0
            if write is None:
                print(e.args[0], end="")
        if write is not None:
            write(json.dumps(result))
        elif sys.stdout is not None:
            sys.stdout.flush()
        return code
    except errors.EXPECTED as e:
        return errors.tell(e)
    except Exception as e:  # a defect of this program, whose traceback helps to mend it
        if " for environment '" in str(e):  # JAX's words, which it has as it is imported
            return errors.tell(errors.UserError(f"{e}: correct this variable, or unset it"))
        if write is None:
            raise
        traceback.print_exc()
        text = " ".join(f"{type(e).__name__}: {e}".split())
        errors.end(text, errors.EXIT_FAILED)
        return errors.EXIT_FAILED


@contextlib.contextmanager
def stdout_of_caller() -> Iterator[None]:
    """Descriptor 1 as this process got it, for a program that takes its place."""
    if _callers_stdout is None:
        yield
        return
    os.dup2(_callers_stdout, 1)
    try:
        yield
    finally:
        os.dup2(sys.stderr.fileno(), 1)


@contextlib.contextmanager
def _own_stdout() -> Iterator[Callable[[str], None]]:
    """Sends to stderr what others print on stdout, C++ code too, and gives what writes on it."""
    global _callers_stdout
    stdout = sys.stdout

    def write(line: str) -> None:
        if stdout is None:
            raise OSError("stdout is closed, where --json prints its object")
        print(line, file=stdout, flush=True)

    def write_on_descriptor(line: str) -> None:
        with os.fdopen(own, "w", closefd=False) as stream:
            print(line, file=stream)

    with contextlib.redirect_stdout(sys.stderr):
        try:
            if stdout.fileno() != 1:
                raise ValueError("replaced")
            stdout.flush()
            own = os.dup(1)
            os.dup2(sys.stderr.fileno(), 1)
        except (AttributeError, OSError, ValueError):  # closed or replaced
            yield write
            return
        _callers_stdout = own
        try:
            yield write_on_descriptor
        finally:
            _callers_stdout = None
            os.dup2(own, 1)
            os.close(own)
