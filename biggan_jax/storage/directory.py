"""The config of a workdir or a model directory."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax import models
from biggan_jax.config import domains
from biggan_jax.errors import UserError
from biggan_jax.storage import paths, replacement

BEST = "best"  # folder of a workdir, replaced as a whole: see `storage.best`


def open_directory(directory: str | Path) -> tuple[Path, ConfigDict]:
    """(path, config) of a workdir or model directory; UserError when it is neither."""
    directory = paths.workdir_path(directory)
    if directory.name == BEST:
        directory = replacement.whole(directory)
    paths.reach(directory, write=False)
    path = directory / "config.json"
    try:
        with paths.bucket_errors(path):
            saved = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{directory} is no workdir or model directory: {_why(directory)}"
        ) from None
    except ValueError as e:
        raise UserError(f"{path} cannot be read: {e}") from e
    try:
        config = config_lib.from_saved(saved)
        domains.check(config_lib.flatten(config))
        models.build(config.model)
    except UserError as e:
        # What reads this file takes no overrides of it: the file is what can be mended.
        raise UserError(f"{path}: {str(e).replace('--config.', '')}") from e
    return directory, config


def _why(directory: Path) -> str:
    """Why a folder is no model's, with the one that was probably meant."""
    is_file = directory.is_file()
    if not is_file and not directory.is_dir():
        return "no such directory"
    why = "it is a file" if is_file else "it holds no config.json"
    # People name a checkpoint, a file of it, or the folder of all.
    for above in directory.parents[:4]:
        if (above / "config.json").is_file():
            inside = directory.relative_to(above).parts
            step = inside[1] if inside[0] == "checkpoints" and len(inside) > 1 else ""
            return f"{why}; give {above}" + (f", step {step}" if step.isdecimal() else "")
    return why
