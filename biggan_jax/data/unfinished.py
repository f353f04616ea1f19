"""A folder in the making, which takes its name when all of it is there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None

from biggan_jax.data import buckets
from biggan_jax.data.record_info import INFO_FILE
from biggan_jax.errors import UserError


@contextlib.contextmanager
def folder(out: Any) -> Iterator[Path]:
    """A local folder for what becomes `out` when the context ends, and vanishes where it fails.

    Args:
      out: of records; local, or in a bucket. There is nothing at it, or an empty folder.

    Raises:
      UserError: another process is writing it; the remains of one that was killed are removed.
    """
    remote = buckets.is_remote(out)
    if remote:
        partial = Path(tempfile.mkdtemp(prefix="biggan-prepare-"))
    else:
        partial = out.with_name(f".{out.name}.unfinished")
        if partial.exists():
            with _locked(partial, out):
                shutil.rmtree(partial)
        partial.mkdir(parents=True)
    try:
        with _locked(partial, out):
            yield partial
            if not remote:
                partial.replace(out)
                return
            # The info file last: without it there are no records.
            for path in sorted(partial.iterdir(), key=lambda path: path.name == INFO_FILE):
                buckets.move(path, out / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(partial: Path, out: Any) -> Iterator[None]:
    """Holds a folder for this process, as long as it lives; the system forgets it with it."""
    if fcntl is None:
        yield
        return
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is writing {out}; wait for it, or choose another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
