"""What was measured once for a run in a bucket, kept there beside it: a new machine finds it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.metrics import archives
from biggan_jax.parallel import processes
from biggan_jax.storage import paths

# Of `evaluation.reference` and `metrics.classifier`; their names say of what data they are.
PATTERNS = ("reference-*.npz", "features-*.npz", "training-*.npz", "classifier-*/*.npz")


@contextlib.contextmanager
def kept(directory: str | os.PathLike, cache: Path) -> Iterator[None]:
    """A context in which real sides and classifiers are measured, or found.

    What the bucket of a run has and this machine lacks is copied before, what is new there is
    copied back after; a bucket that refuses costs a line and nothing else. For a local directory
    nothing is done.

    Args:
      directory: the workdir or model directory.
      cache: where they are looked for; nothing is done for a folder of the user's own.
    """
    if not paths.is_remote(directory) or cache != paths.cache_folder(directory):
        yield
        return
    origin = paths.workdir_path(directory) / "cache"
    with _told(origin, "read"):
        _fetch(origin, cache)
    yield
    if processes.is_main():
        with _told(origin, "written"):
            _send(cache, origin)


def _fetch(origin: Any, cache: Path) -> None:
    for pattern in PATTERNS:
        for path in origin.glob(pattern):
            local = cache / os.fspath(path).removeprefix(os.fspath(origin)).lstrip("/")
            if local.exists():
                continue
            buckets.write_bytes(local, buckets.read_bytes(path))
            try:
                archives.read(local)
            except archives.DamagedError:
                local.unlink()  # it is measured again


def _send(cache: Path, origin: Any) -> None:
    for pattern in PATTERNS:
        for local in sorted(cache.glob(pattern)):
            path = origin / local.relative_to(cache).as_posix()
            if not path.exists():
                buckets.retried(
                    path, lambda p=path, f=local: buckets.write_bytes(p, f.read_bytes())
                )


@contextlib.contextmanager
def _told(origin: Any, what: str) -> Iterator[None]:
    """A context in which an error of the bucket is a line of process 0."""
    try:
        with buckets.bucket_errors(origin):
            yield
    except FileNotFoundError:
        pass  # nothing is kept yet
    except OSError as error:
        if processes.is_main():
            print(f"{origin} cannot be {what} ({error}): going on without", file=sys.stderr)
