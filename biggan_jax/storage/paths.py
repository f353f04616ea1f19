"""Where a run lives: a local folder, or one in a bucket (gs://bucket/run), see `data.buckets`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biggan_jax.data.buckets import is_remote, workdir_path, write_bytes
from biggan_jax.storage import published


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """A context for loading TensorFlow, which reads these at its import and greets otherwise."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    own = {name: value for name, value in quiet.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def absolute(path: str | os.PathLike) -> Any:
    """`workdir_path` of a path that no longer depends on the current directory."""
    path = workdir_path(path)
    return path if is_remote(path) else path.absolute()


def cache_folder(directory: str | os.PathLike) -> Path:
    """Where what can be computed again is kept for a run: always on a local disk.

    Args:
      directory: the workdir or model directory.

    Returns:
      `directory/cache`; for a bucket and a published model a folder of its own in
      ~/.cache/biggan_jax.
    """
    if not is_remote(directory) and published.is_published(directory):
        return Path.home() / ".cache" / "biggan_jax" / published.name(directory)
    if not is_remote(directory):
        return workdir_path(directory) / "cache"
    name = os.fspath(directory).partition("://")[2].strip("/").replace("/", "_")
    return Path.home() / ".cache" / "biggan_jax" / name


def same(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Whether two paths are one folder."""
    if is_remote(a) or is_remote(b):
        return os.fspath(a).rstrip("/") == os.fspath(b).rstrip("/")
    return workdir_path(a).resolve() == workdir_path(b).resolve()


def append_text(path: str | os.PathLike, text: str) -> None:
    """Adds text at the end of a file; in a bucket by writing all of it anew."""
    path = workdir_path(path)
    if is_remote(path):
        before = path.read_bytes() if path.exists() else b""
        write_bytes(path, before + text.encode())
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
