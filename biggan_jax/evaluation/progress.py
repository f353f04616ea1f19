"""How far a measurement is: one line, and a bar on a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import jax
from tqdm import tqdm

from biggan_jax.parallel import devices


@contextlib.contextmanager
def progress_bar(unit: str, text: str) -> Iterator[Callable[[int, int], None]]:
    """A context of a progress callback (done, total): one line, and a bar on a terminal."""
    bars: list[tqdm] = []

    def update(done: int, total: int) -> None:
        if not bars and jax.process_index() == 0:
            devices.tell()
            print(f"{text}: {total:,} {unit}s", file=sys.stderr, flush=True)
            bars.append(tqdm(total=total, unit=unit, disable=None, leave=False))
        for bar in bars:
            bar.update(done - bar.n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
