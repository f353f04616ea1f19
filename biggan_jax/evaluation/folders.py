"""Where an evaluation may write, known before its expensive work."""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from biggan_jax.errors import UserError
from biggan_jax.storage import paths


def cache(directory: str | os.PathLike, given: Path | None = None) -> Path:
    """Folder of fitted classifiers and measured real images, one that can be written.

    Args:
      directory: the workdir or model directory that is evaluated.
      given: what the user named, if anything.

    Returns:
      `given`; otherwise the directory's own cache, or where that cannot be written a folder of its
      own in ~/.cache/biggan_jax with what the other one holds.

    Raises:
      UserError: it cannot be written, and neither can the folder in ~/.cache.
    """
    if given is not None:
        check_writable(given, "--cache")
        return given
    own = paths.cache_folder(directory)
    problem = unwritable(own)
    if problem is None:
        return own
    name = Path(directory).absolute()
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    away = Path.home() / ".cache" / "biggan_jax" / f"{name.name}-{digest}"
    if unwritable(away) is not None:
        raise UserError(
            f"{own} cannot be written ({problem}): name a folder for what is measured once with "
            "--cache DIR"
        )
    if own.is_dir() and not away.exists():
        shutil.copytree(own, away, copy_function=shutil.copyfile)
        away.chmod(0o755)  # copytree gives it the mode of a folder that cannot be written
    print(f"{own} cannot be written ({problem}): using {away}", file=sys.stderr)
    return away


def check_writable(folder: str | os.PathLike, option: str) -> None:
    """Raises UserError, naming the option that gave it, unless a folder can be written."""
    problem = unwritable(folder)
    if problem is not None:
        raise UserError(f"{option} {folder} cannot be written ({problem}): name another folder")


def unwritable(folder: str | os.PathLike) -> str | None:
    """Why files cannot be written into a folder, which need not exist yet.

    Args:
      folder: local; one in a bucket is not looked at.

    Returns:
      The system's reason; None where they can.
    """
    if paths.is_remote(folder):
        return None
    at = Path(folder).absolute()
    try:
        while not at.exists():
            at = at.parent
        with tempfile.TemporaryFile(dir=at):
            return None
    except OSError as error:
        return error.strerror
