"""The weights of one network in a model directory: `weights/<name>`, every array checked."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from biggan_jax.errors import UserError
from biggan_jax.parallel import processes
from biggan_jax.storage import integrity


def save_weights(directory: epath.PathLike, name: str, tree: Any) -> None:
    """Saves the weights of one network into a model directory, as `weights/<name>`.

    Args:
      directory: the model directory; created when missing.
      name: `g`, `g_ema` or `d`.
      tree: a nested dict of arrays.

    Raises:
      OSError: they could not be written; weights of that name that were there before still are.
    """
    folder = integrity.absolute(directory) / "weights"
    path, fresh = folder / name, folder / f"{name}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            # Orbax's force deletes the old directory before it writes: hence the other name.
            checkpointer.save(fresh, args=integrity.save_args(tree, {}), force=True)
        if jax.process_index() == 0:
            if path.exists():
                path.rmtree()
            fresh.rename(path)
    except Exception as error:
        integrity.raise_as_os_error(error, f"weights {name!r} were not saved", folder)
    processes.barrier()


def load_weights(directory: epath.PathLike, name: str, target: Any = None) -> Any:
    """Loads the weights of one network from a model directory.

    Args:
      directory: the model directory.
      name: `g`, `g_ema` or `d`.
      target: the weights as `abstract` describes them; None gives a nested dict on one device.

    Returns:
      The weights.

    Raises:
      UserError: they are missing or corrupt, or do not fit the target.
    """
    folder = integrity.absolute(directory) / "weights"
    path = folder / name
    if not path.is_dir():
        found = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        has = integrity.some(found) or "none at all"
        raise UserError(f"no weights {name!r} in {directory}: it has {has}")
    try:
        if target is None:
            target = integrity.nested_target(integrity.read_record(path))
        return integrity.read(path, target, whole=True)[0]
    except integrity.CorruptError as error:
        raise UserError(f"{path} is corrupt, import or copy it again: {error}") from error
