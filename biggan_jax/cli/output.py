"""What a command says, and how it names the file that it could not write."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


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
