"""Models that are read by name: those of the Hugging Face Hub, and the one that the package has."""

import os
from pathlib import Path
from typing import Any

from biggan_jax.storage import hub

DEMO = "digits-demo"
_FOLDER = Path(__file__).parent / "carried"


def local(directory: str | os.PathLike) -> Any:
    """The folder that a name means.

    Args:
      directory: hf://USER/REPO[@REVISION]; digits-demo, where no folder has this name; or any
        workdir or model directory.

    Returns:
      The folder of a published model, fetched where that must be; anything else as it is.

    Raises:
      UserError: the hub does not give the model.
    """
    if hub.is_address(directory):
        return hub.fetch(hub.parse(directory))
    if os.fspath(directory) == DEMO and not os.path.lexists(DEMO):
        return _FOLDER / DEMO
    return directory


def is_published(directory: str | os.PathLike) -> bool:
    """Whether a folder is one of those that `local` finds, where nothing may be written."""
    path = Path(directory)
    return path.parent == _FOLDER or _repository(path) is not None


def name(directory: str | os.PathLike) -> str:
    """What a model is called: the name of its folder, or USER_REPO of one of the hub."""
    path = Path(directory).absolute()
    return _repository(path) or path.name


def _repository(path: Path) -> str | None:
    """USER_REPO of a folder such as models--USER--REPO/snapshots/COMMIT; None for all others."""
    parts = path.parts[-3:]
    if len(parts) < 3 or parts[1] != "snapshots" or not parts[0].startswith("models--"):
        return None
    return "_".join(parts[0].split("--")[1:])
