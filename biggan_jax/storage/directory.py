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
    except FileNotFoundError:
        why = "no such directory" if not directory.is_dir() else "it holds no config.json"
        raise UserError(f"{directory} is no workdir or model directory: {why}") from None
    except (ValueError, NotADirectoryError) as e:
        raise UserError(f"{path} cannot be read: {e}") from e
    try:
        config = config_lib.from_saved(saved)
        domains.check(config_lib.flatten(config))
        models.build(config.model)
    except UserError as e:
        # What reads this file takes no overrides of it: the file is what can be mended.
        raise UserError(f"{path}: {str(e).replace('--config.', '')}") from e
    return directory, config
