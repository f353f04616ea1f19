"""The weights of one network in a model directory: `weights/<name>`, every array checked."""

from typing import Any

from etils import epath

from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import integrity, orbax_noise, replacement, tensor_file
from biggan_jax.storage.orbax_import import ocp

# weights/<name> -> the part of a training state that it holds.
NETWORKS = {"g": "generator", "g_ema": "ema", "d": "discriminator"}


@orbax_noise.silenced()
def save_weights(
    directory: epath.PathLike, name: str, tree: Any, meta: dict[str, Any] | None = None
) -> None:
    """Saves the weights of one network into a model directory, as `weights/<name>`.

    A kill at any instant leaves the old weights of that name or the new ones whole. All processes
    of a run call it; the arrays may lie on several of them.

    Args:
      directory: the model directory; created when missing.
      name: `g`, `g_ema` or `d`.
      tree: a nested dict of arrays.
      meta: what JSON can hold; under `config` the contents of config.json, so that a damaged one is
        noticed.

    Raises:
      OSError: they could not be written; weights of that name that were there before still are.
    """
    folder = integrity.absolute(directory) / "weights"
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if processes.is_main():
            replacement.prepare(path)
        processes.barrier()
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(
                path.with_name(f"{name}.new"), args=integrity.save_args(tree, meta or {})
            )
        if processes.is_main():
            replacement.commit(path)
    except Exception as error:
        integrity.raise_as_os_error(error, f"weights {name!r} were not saved", folder)
    processes.barrier()


def saved_names(directory: epath.PathLike) -> list[str]:
    """Lists the weights that a model directory holds.

    Args:
      directory: the model directory.

    Returns:
      The names in alphabetical order: any of `g`, `g_ema`, `d` and of what lies beside them.

    Raises:
      UserError: its `model.safetensors`, where that is what it holds, cannot be read.
    """
    folder = integrity.absolute(directory) / "weights"
    if not folder.is_dir():
        file = tensor_file.path_in(directory)
        return [] if file is None else tensor_file.names(file)
    names = {replacement.name_of(path) for path in folder.iterdir()}
    return sorted(name for name in names if replacement.whole(folder / name).is_dir())


def has_weights(directory: epath.PathLike) -> bool:
    """Whether a directory is one of weights alone, in `weights/` or `model.safetensors`."""
    folder = integrity.absolute(directory)
    return (folder / "weights").is_dir() or tensor_file.path_in(folder) is not None


def load_weights(directory: epath.PathLike, name: str, target: Any = None) -> Any:
    """Loads the weights of one network from a model directory.

    Args:
      directory: the model directory.
      name: `g`, `g_ema` or `d`.
      target: the weights as a tree of `jax.ShapeDtypeStruct` with their shardings; None gives a
        nested dict on one device.

    Returns:
      The weights.

    Raises:
      UserError: they are missing or corrupt, hold NaN or infinity, or do not fit the target.
    """
    path = replacement.whole(integrity.absolute(directory) / "weights" / name)
    if not path.is_dir():
        file = tensor_file.path_in(directory)
        if file is not None and name in saved_names(directory):
            return tensor_file.load(file, name, target)
        has = some(saved_names(directory)) or "none at all"
        raise UserError(f"no weights {name!r} in {directory}: it has {has}")
    try:
        if target is None:
            target = integrity.nested_target(integrity.read_record(path))
        return integrity.read(path, target, whole=True)[0]
    except integrity.CorruptError as error:
        raise UserError(f"{path} is corrupt, import or copy it again: {error}") from error
    except integrity.NotFiniteError as error:
        names = [f"{NETWORKS.get(name, name)}/{array}" for array in error.names]
        raise UserError(
            f"{path} holds NaN or infinity in {some(names)}: import or copy other weights"
        ) from error
