"""The exception that a user can act on, and how a command that failed ends."""

import contextlib
import difflib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2  # bad usage or input
EXIT_TERMINATED = 75  # SIGTERM stopped an unfinished run: launchers start it again
EXIT_INTERRUPTED = 130  # Ctrl-C


class UserError(ValueError):
    """Input or usage that the user can correct.

    The message is one line: what is wrong, with both numbers where numbers disagree, and the
    setting or file to change. `cli` prints it to stderr without a traceback and exits with code 2.
    """


class OutOfMemoryError(MemoryError):
    """Memory of a device or of the host that is not there; the message says what to change."""


# Of letters in common. Every setting with one letter wrong, missing, doubled or swapped is found
# with 0.4 as with 0.75; below 0.7 words that have nothing to do with one another are "near".
_NEAR = 0.7
_NEAR_SHORT = 0.6  # of at most `_SHORT` letters: one wrong letter of three
_SHORT = 4
_NEAR_END = 0.5  # behind the last dot, where a section in common would hide a word that is not near


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to a misspelt one; None where no known word is near."""
    plain = {_plain(other): other for other in reversed(list(known))}
    word = _plain(word)
    cutoff = _NEAR_SHORT if len(word) <= _SHORT else _NEAR
    for near in difflib.get_close_matches(word, plain, n=5, cutoff=cutoff):
        ends = [text.rpartition(".") for text in (word, near)]
        dotted = all(dot for _, dot, _ in ends)
        likeness = difflib.SequenceMatcher(None, *(end for *_, end in ends)).ratio()
        if not dotted or likeness >= _NEAR_END:
            return plain[near]
    return None


def _plain(word: str) -> str:
    """A word without what says nothing of its meaning: case and the dashes of an option."""
    return word.strip().lower().lstrip("-")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Names the known word nearest to a misspelt one, to be put behind it in a message.

    Args:
      word: what the user wrote.
      known: the words that would have been right.

    Returns:
      " (did you mean 'WORD'?)", or nothing where no known word is near.
    """
    found = nearest(word, known)
    return f" (did you mean {found!r}?)" if found else ""


def some(names: Iterable[Any], limit: int = 3) -> str:
    """Lists a few names on one line.

    Args:
      names: what to list.
      limit: how many are spelled out.

    Returns:
      'a, b, c and 5 more'.
    """
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")


def counts(number: int, one: str, many: str) -> str:
    """'1 image', '2,000 images'."""
    return f"{number:,} {one if number == 1 else many}"


def spread(mean: float, deviation: float | None) -> str:
    """'23.1 ± 7.0': a mean to the second digit of its deviation; the mean alone without one."""
    if deviation is None or not math.isfinite(deviation):
        return f"{mean:.4g}"
    places = 1 - math.floor(math.log10(deviation)) if deviation > 0 else -1
    if not 0 <= places <= 6:
        return f"{mean:.4g} ± {deviation:.2g}"
    return f"{mean:.{places}f} ± {deviation:.{places}f}"


# Whatever else is raised is a defect of this program, and shows its traceback.
EXPECTED = (UserError, KeyboardInterrupt, OSError, ArithmeticError, OutOfMemoryError)


def ending(error: BaseException) -> tuple[str | None, int]:
    """Says how a command ends that one of the `EXPECTED` errors stopped.

    Args:
      error: an instance of `EXPECTED`.

    Returns:
      (the line for a person or None for no line, exit code).
    """
    if isinstance(error, UserError):
        return str(error), EXIT_USAGE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return None, EXIT_FAILED  # whoever read stdout has gone
    # A full or read-only disk, an unreadable file (the message carries the path), a NaN, too little
    # memory.
    return str(error), EXIT_FAILED


def tell(error: BaseException) -> int:
    """Says how a command ends that one of the `EXPECTED` errors stopped.

    Returns:
      The exit code.
    """
    line, code = ending(error)
    end(line, code)
    return code


# Writes the one line of a command with --json; None without it.
_json: Callable[[str], None] | None = None


@contextlib.contextmanager
def told_as_json(write: Callable[[str], None]) -> Iterator[None]:
    """A context in which the end of a command is also said as an object on stdout."""
    global _json
    before, _json = _json, write
    try:
        yield
    finally:
        _json = before


def end(line: str | None, code: int) -> None:
    """Says how a command ends that did not finish: a line on stderr, an object on stdout.

    Args:
      line: for a person; None for no line.
      code: the exit code.
    """
    if line is not None:
        one = "\\n".join(line.splitlines())  # a path may hold whatever ends a line
        print(f"biggan: {one}", file=sys.stderr, flush=True)
    end_json(line, code)


def end_json(line: str | None, code: int) -> None:
    """The object of `end`, for a command with --json."""
    if _json is not None:
        with contextlib.suppress(OSError):  # whoever read stdout has gone
            _json(json.dumps({"error": line or "whoever read stdout has gone", "exit_code": code}))
