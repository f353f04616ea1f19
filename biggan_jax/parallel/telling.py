"""What a command says while it is silent for long."""

import contextlib
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def told_if_slow(what: str, seconds: float) -> Iterator[None]:
    """A context that says once what is being done, as soon as that takes long.

    An error before then stands alone on stderr.

    Args:
      what: is done, one line.
      seconds: of silence before it.
    """
    timer = threading.Timer(seconds, tell, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell(what: str) -> None:
    """Says at once what is begun now, and takes long."""
    if sys.stderr is not None:
        print(f"{what} ...", file=sys.stderr, flush=True)
