"""Import of the published weights of the FID Inception."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from biggan_jax.errors import UserError
from biggan_jax.interop.files import Tensors, open_tensors
from biggan_jax.metrics import network_files
from biggan_jax.metrics.inception import FILE, PUBLISHED_DIGEST, PUBLISHED_NAME, RESOLUTION, URL
from biggan_jax.metrics.inception_v3 import InceptionV3
from biggan_jax.storage import paths
from biggan_jax.storage.digest import named_leaves

_WANTED = f"import {PUBLISHED_NAME}; torchvision's Inception is another network"
_PEER_LEAF = {
    "kernel": "conv.weight",
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "var": "bn.running_var",
}


@functools.cache
def _abstract() -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, RESOLUTION, RESOLUTION, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), images)["params"]


def peer_key(path: str) -> str:
    """PyTorch's name of a parameter: 'Mixed_5b/branch1x1/scale' -> 'Mixed_5b.branch1x1.bn.weight'.

    Args:
      path: names in the tree of `InceptionV3`'s parameters, joined by '/'.
    """
    if path == "fc_bias":
        return "fc.bias"
    *modules, leaf = path.split("/")
    return ".".join([*modules, "weight" if modules == ["fc"] else _PEER_LEAF[leaf]])


def convert(tensors: Tensors) -> dict[str, Any]:
    """Turns PyTorch's state_dict of the FID network into parameters of `InceptionV3`.

    Args:
      tensors: names of torch-fidelity and pytorch-fid; convolutions are [out, in, h, w].

    Returns:
      Nested dict of float32 arrays; convolutions are [h, w, in, out].

    Raises:
      UserError: a tensor is missing, of another shape, not finite, or none of this network.
    """
    # Batch norm's own counter, which some files carry and no forward pass reads.
    unused = {key for key in tensors.shapes if not key.endswith("num_batches_tracked")}
    params: dict[str, np.ndarray] = {}
    for name, leaf in named_leaves(_abstract()).items():
        key, order = peer_key(name), (3, 2, 0, 1) if leaf.ndim == 4 else range(leaf.ndim)[::-1]
        expected = tuple(leaf.shape[i] for i in order)
        value = tensors.checked(key, expected, "the FID Inception has", _WANTED)
        params[name] = np.array(value.transpose(np.argsort(order)), np.float32, order="C")
        unused.discard(key)
    if unused:
        raise UserError(f"{tensors.path} has {min(unused)}, the FID Inception has not: {_WANTED}")
    return traverse_util.unflatten_dict(params, sep="/")


def import_inception(
    sources: Sequence[Path], out: Path, *, any_weights: bool = False
) -> dict[str, Any]:
    """Imports the FID Inception into a directory that `Inception.load` reads.

    Args:
      sources: one file, `.pth` or `.safetensors` with the same names, or a folder that holds the
        published file.
      out: the directory; created when missing.
      any_weights: take a file whose sha256 is not the published one.

    Returns:
      `out`, `digest` (sha256 of the file), `published` (whether it is the published file) and
      `parameters` (their number).

    Raises:
      UserError: the file is missing, unreadable, not the published one, or another network.
      OSError: the directory could not be written.
    """
    path = _one_file(sources)
    digest = _file_digest(path)
    published = digest.startswith(PUBLISHED_DIGEST)
    if not (published or any_weights):
        raise UserError(
            f"{path} has sha256 {digest}, the published file's begins with {PUBLISHED_DIGEST}: "
            f"download {URL}, or pass --any-weights to use these (scores will not compare)"
        )
    params = convert(open_tensors(path))
    info = {"file": path.name, "digest": digest, "published": published}
    paths.write_bytes(Path(out) / FILE, network_files.to_bytes(params, info))
    count = sum(int(leaf.size) for leaf in jax.tree.leaves(params))
    return {"out": str(out), **info, "parameters": count}


def _one_file(sources: Sequence[Path]) -> Path:
    if len(sources) != 1:
        raise UserError(f"inception-fid takes one file, got {len(sources)}: name {PUBLISHED_NAME}")
    path = Path(sources[0])
    if path.is_dir():
        path = path / PUBLISHED_NAME
    if not path.is_file():
        raise UserError(f"no file {path}: download {URL}")
    return path


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
