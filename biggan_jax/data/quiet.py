"""Loggers of other libraries that say what is of no matter here."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def loggers(*names: str) -> Iterator[None]:
    """A context in which loggers of these names write errors alone."""
    found = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
