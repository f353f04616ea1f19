"""Ends a piece of code in front of any of its changes of the disk, as a kill would."""

import contextlib
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir")


class Killed(BaseException):
    """The end of a process, which no `except Exception` sees."""


def _write_object(path: Any, data: bytes) -> None:
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_bytes(data)
    os.replace(fresh, path)


# What `storage.replacement` asks of a path, for folders that it shall take for a bucket's.
BUCKET = types.SimpleNamespace(is_remote=lambda path: True, write_bytes=_write_object)


def instants() -> Iterator[int]:
    """Numbers of changes: the first ones, then fewer, since removals and copies are many."""
    yield from range(1, 8)
    yield from (14 * 2**i for i in range(20))


@contextlib.contextmanager
def killed_at(number: int, monkeypatch: Any, within: Any = None, *names: str) -> Iterator[list]:
    """Raises `Killed` in place of change number `number` and of all later ones.

    Args:
      number: counted from 1.
      monkeypatch: of pytest.
      within: a module; with it only changes inside its functions `names` count.
      *names: these functions.

    Yields:
      The changes asked for so far; the code ran to its end where they are fewer than `number`.
    """
    changes: list[str] = []
    inside = [within is None]

    def counted(name: str, change: Callable) -> Callable:
        def call(*args, **options):
            if inside[-1]:
                changes.append(f"{name} {args[0]}")
                if len(changes) >= number:
                    raise Killed(changes[-1])
            return change(*args, **options)

        return call

    def watched(function: Callable) -> Callable:
        def call(*args, **options):
            inside.append(True)
            try:
                return function(*args, **options)
            finally:
                inside.pop()

        return call

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in CHANGES:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        for name in names:
            patch.setattr(within, name, watched(getattr(within, name)))
        yield changes
