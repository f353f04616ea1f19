"""All networks of a model directory in one file, `model.safetensors`, as models are handed on.

A tensor is named as `g_ema/params/block_0/conv1/kernel`. Half precision is read as float32.
"""

import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401 (numpy learns bfloat16 from it)
import numpy as np
from flax import traverse_util

from biggan_jax.errors import UserError, some
from biggan_jax.storage import paths, published
from biggan_jax.storage.digest import named_leaves
from biggan_jax.storage.hub import WEIGHTS

# transformers and accelerate read no file whose metadata names no framework that they know.
METADATA = {"format": "pt", "library": "biggan_jax"}


def path_in(directory: Any) -> Any | None:
    """The file of a model directory; None where there is none, or what counts are checkpoints."""
    folder = paths.workdir_path(directory)
    if (folder / "checkpoints").is_dir():  # of a workdir, into which one was exported
        return None
    file = folder / WEIGHTS
    return file if file.is_file() else None


def names(file: Any) -> list[str]:
    """The networks that a file holds, in alphabetical order.

    Raises:
      UserError: it cannot be read.
    """
    with _opened(file) as tensors:
        return sorted({key.partition("/")[0] for key in tensors.keys()})  # noqa: SIM118


def load(file: Any, name: str, target: Any = None) -> Any:
    """Reads one network.

    Args:
      file: the file.
      name: of the network.
      target: its arrays as a tree of `jax.ShapeDtypeStruct` with their shardings; None gives a
        nested dict on one device.

    Returns:
      The arrays.

    Raises:
      UserError: the file cannot be read, holds NaN, infinity or whole numbers, or does not fit the
        target.
    """
    with _opened(file) as tensors:
        keys = [key for key in tensors.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        arrays = {key.removeprefix(f"{name}/"): _array(tensor(file, tensors, key)) for key in keys}
    other = [f"{name}/{key}" for key, x in arrays.items() if x.dtype.kind != "f"]
    if other:
        dtype = arrays[other[0].removeprefix(f"{name}/")].dtype
        raise UserError(
            f"{file} holds {dtype}, no floating-point numbers, in {some(other)}: take other weights"
        )
    broken = [f"{name}/{key}" for key, x in arrays.items() if not np.isfinite(x).all()]
    if broken:
        raise UserError(f"{file} holds NaN or infinity in {some(broken)}: take other weights")
    if target is None:
        return traverse_util.unflatten_dict({k: jnp.asarray(x) for k, x in arrays.items()}, sep="/")
    wanted = named_leaves(target)
    check_shapes(file, arrays, wanted)
    placed = [jax.device_put(arrays[k].astype(x.dtype), x.sharding) for k, x in wanted.items()]
    return jax.tree.structure(target).unflatten(placed)


def check_shapes(file: Any, arrays: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UserError unless arrays have the names and the shapes that a model wants."""
    held, meant = ({name: tuple(x.shape) for name, x in of.items()} for of in (arrays, wanted))
    differing = [name for name in held | meant if held.get(name) != meant.get(name)]
    if differing:
        first, *others = differing
        shown = [str(of.get(first, "missing")) for of in (held, meant)]
        raise UserError(
            f"{file} does not fit config.json: {first} is {shown[0]} there and {shown[1]} by the "
            f"config" + (f" (also {some(others)})" if others else "") + "; put back the config "
            "that it was made with"
        )


def encode(
    networks: dict[str, dict[str, Any]], metadata: dict[str, Any], half: bool = False
) -> bytes:
    """The bytes of a file.

    Args:
      networks: {network: {name: array}}.
      metadata: JSON values that are kept beside the tensors.
      half: keep what is float32 as float16.

    Raises:
      UserError: a value is too large for float16.
    """
    from safetensors.numpy import save

    flat = {}
    for network, leaves in networks.items():
        for name, leaf in leaves.items():
            x = np.array(leaf, order="C", copy=None)
            if half and x.dtype == np.float32:
                with np.errstate(over="ignore"):
                    x = x.astype(np.float16)
                if not np.isfinite(x).all():
                    raise UserError(
                        f"{network}/{name} is too large for float16: leave out --float16"
                    )
            flat[f"{network}/{name}"] = x
    return save(flat, metadata=METADATA | {k: json.dumps(v) for k, v in metadata.items()})


def is_pickle(start: bytes) -> bool:
    """Whether a file that safetensors does not read is a pickle, or PyTorch's archive of one.

    Args:
      start: its first bytes. A safetensors file begins with the length of its header, whose third
        byte is below every opcode that can follow a protocol's unless the header has megabytes.
    """
    protocol = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[:2] == b"PK" or (protocol and start[2:3] >= b"(")


def tensor(path: Any, opened: Any, name: str) -> np.ndarray:
    """One tensor of an open file.

    Raises:
      UserError: it holds complex numbers, or such as numpy has no type for, as of 8 bits.
    """
    try:
        found = opened.get_tensor(name)
        if found.dtype.kind != "c":
            return found
        what = str(found.dtype)
    except (AttributeError, KeyError, TypeError) as error:
        what = " ".join(str(error).split())[:80]
    raise UserError(
        f"{os.fspath(path)}: {name} holds numbers that are not read ({what}): convert it to float32"
    )


def _array(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def _opened(file: Any) -> Any:
    import safetensors

    if paths.is_remote(file):
        return _Bytes(file)
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        with open(file, "rb") as opened:
            raise _damaged(file, opened.read(4), error) from error


class _Bytes:
    """A file of a bucket, read whole; with the methods of one that safetensors opens."""

    def __init__(self, file: Any):
        import safetensors.numpy

        data = file.read_bytes()
        try:
            self._arrays = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise _damaged(file, data[:4], error) from error
        self.keys, self.get_tensor = self._arrays.keys, self._arrays.__getitem__

    def __enter__(self) -> "_Bytes":
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.clear()


def _damaged(file: Any, start: bytes, error: Exception) -> UserError:
    if is_pickle(start):
        return UserError(
            f"{os.fspath(file)} is a pickle under the name of a safetensors file; a pickle can run "
            "code and is not read: convert it by `biggan import`"
        )
    reason = " ".join(str(error).split())[:200]
    cure = published.cure(file, "fetch or copy it again")
    return UserError(
        f"{os.fspath(file)} is no safetensors file, or is truncated ({reason}): {cure}"
    )
