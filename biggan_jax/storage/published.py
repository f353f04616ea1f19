"""Models that are read by name: those of the Hugging Face Hub, and the one that the package has."""

import os
import re
from pathlib import Path
from typing import Any

from biggan_jax.storage import hub

DEMO = "digits-demo"
_FOLDER = Path(__file__).parent / "carried"


# An absolute path, one from the home or from where a command ran, or an address; its last name.
_PLACE = re.compile(r"(?:\w+://|~?/|\.{1,2}/)(?:[^/:,]+/)*([^/:,]+)/?")


def without_places(value: Any) -> Any:
    """A config or part of it, as JSON values, whose paths and addresses keep their last names.

    Those who get a model need not know where its data lie. Models of the hub, which others find
    too, and the names of classes stay as they are.
    """
    if isinstance(value, dict):
        return {k: x if k == "class_names" else without_places(x) for k, x in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(x) for x in value]
    if not isinstance(value, str) or hub.is_address(value):
        return value
    return _PLACE.sub(r"\1", value)


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


def cure(file: str | os.PathLike, otherwise: str) -> str:
    """What to do about a damaged file of a model: of the hub, of which nothing is fetched twice.

    Args:
      file: directly in the model's folder.
      otherwise: what to do where the folder is not of huggingface_hub's cache.
    """
    folder = Path(os.fspath(file)).parent
    if _repository(folder) is None:
        return otherwise
    return (
        f"push it again, or where the hub has it whole delete {folder.parent.parent} and try again"
    )


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
