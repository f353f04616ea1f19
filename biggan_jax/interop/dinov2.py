"""Import of the published weights of DINOv2, in either of the two layouts that they come in."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from biggan_jax.errors import UserError
from biggan_jax.interop.files import Tensors, open_tensors
from biggan_jax.metrics import network_files
from biggan_jax.metrics.dinov2 import FILE, PUBLISHED, RESOLUTION
from biggan_jax.metrics.dinov2_vit import HEAD, NAMES, PATCH, shapes
from biggan_jax.storage import paths

_WANTED = f"import {PUBLISHED}; or the files of ViT-S/14 and ViT-B/14"
# Names of facebookresearch's state_dict by our own, and of transformers'; {i} is a layer.
_FACEBOOK = {
    "patch": "patch_embed.proj",
    "cls": "cls_token",
    "positions": "pos_embed",
    "norm": "norm",
    "qkv": "blocks.{i}.attn.qkv",
    "proj": "blocks.{i}.attn.proj",
    "fc1": "blocks.{i}.mlp.fc1",
    "fc2": "blocks.{i}.mlp.fc2",
    "norm1": "blocks.{i}.norm1",
    "norm2": "blocks.{i}.norm2",
    "gamma1": "blocks.{i}.ls1.gamma",
    "gamma2": "blocks.{i}.ls2.gamma",
}
_TRANSFORMERS = {
    "patch": "embeddings.patch_embeddings.projection",
    "cls": "embeddings.cls_token",
    "positions": "embeddings.position_embeddings",
    "norm": "layernorm",
    "qkv": "encoder.layer.{i}.attention.attention.{which}",  # three tensors
    "proj": "encoder.layer.{i}.attention.output.dense",
    "fc1": "encoder.layer.{i}.mlp.fc1",
    "fc2": "encoder.layer.{i}.mlp.fc2",
    "norm1": "encoder.layer.{i}.norm1",
    "norm2": "encoder.layer.{i}.norm2",
    "gamma1": "encoder.layer.{i}.layer_scale1.lambda1",
    "gamma2": "encoder.layer.{i}.layer_scale2.lambda1",
}
_QKV = ("query", "key", "value")
_LEAF = {"kernel": ".weight", "scale": ".weight", "bias": ".bias"}
_UNUSED = re.compile(r"(embeddings\.)?mask_token")  # of training alone


def convert(tensors: Tensors) -> tuple[dict[str, Any], str]:
    """Turns a published state_dict into parameters of `VisionTransformer`.

    Args:
      tensors: with the names of facebookresearch (`blocks.0.attn.qkv.weight`) or of transformers
        (`encoder.layer.0.attention.attention.query.weight`).

    Returns:
      (nested dict of float32 arrays, the rule of `dinov2_vit.POSITIONS` that code of these names
      interpolates positions by).

    Raises:
      UserError: a tensor is missing, of another shape, not finite, or none of this network.
    """
    if any("dinov2.embeddings." in name for name in tensors.shapes):
        tensors = tensors.below("dinov2.")  # of a model with a head, which has no part in features
    facebook = _FACEBOOK["cls"] in tensors.shapes
    if any("register_tokens" in name for name in tensors.shapes):
        raise UserError(f"{tensors.path} is of DINOv2 with registers: {_WANTED}")
    if any(".mlp.w12." in name or ".mlp.weights_in." in name for name in tensors.shapes):
        raise UserError(f"{tensors.path} is of ViT-g/14, whose MLP is another: {_WANTED}")
    names = _FACEBOOK if facebook else _TRANSFORMERS
    width, depth, patches = _architecture(tensors, names)
    flat = traverse_util.flatten_dict(shapes(width, depth, RESOLUTION), sep="/")
    params, unused = {}, {name for name in tensors.shapes if not _UNUSED.fullmatch(name)}
    for path, leaf in flat.items():
        shape = (1 + patches, width) if path == "positions" else leaf.shape
        keys = _keys(path, names)
        value = [
            tensors.checked(
                key, _peer_shape(path, shape, len(keys)), "and the rest of it says", _WANTED
            )
            for key in keys
        ]
        params[path] = _ours(path, np.concatenate(value) if len(value) > 1 else value[0], shape)
        unused -= set(keys)
    if unused:
        raise UserError(f"{tensors.path} has {min(unused)}, DINOv2 has not: {_WANTED}")
    return traverse_util.unflatten_dict(params, sep="/"), "offset" if facebook else "size"


def _architecture(tensors: Tensors, names: dict[str, str]) -> tuple[int, int, int]:
    """(width, depth, patches of the position embeddings), read off the shapes."""
    for name in ("cls", "positions"):
        if names[name] not in tensors.shapes:
            raise UserError(f"{tensors.path} has no tensor {names[name]}: {_WANTED}")
    cls, positions = (tensors.shapes[names[name]] for name in ("cls", "positions"))
    width = cls[-1] if len(cls) == 3 else 0
    patches = positions[1] - 1 if len(positions) == 3 else 0
    if not width or width % HEAD or patches < 1 or round(patches**0.5) ** 2 != patches:
        raise UserError(
            f"{tensors.path} has {names['cls']} {list(cls)} and {names['positions']} "
            f"{list(positions)}; DINOv2 has [1, 1, {HEAD} * heads] and [1, 1 + a square number, "
            f"{HEAD} * heads]: {_WANTED}"
        )
    pattern = re.compile(re.escape(names["norm1"]).replace(r"\{i\}", r"(\d+)") + r"\.weight")
    layers = {int(found[1]) for key in tensors.shapes if (found := pattern.fullmatch(key))}
    return width, max(layers, default=0) + 1, patches


def _keys(path: str, names: dict[str, str]) -> list[str]:
    """The peer's names of a parameter of ours: 'block3/fc1/bias' -> ['blocks.3.mlp.fc1.bias']."""
    block = re.match(r"block(\d+)/", path)
    i = block[1] if block else ""
    name, _, leaf = path.removeprefix(f"block{i}/").partition("/")
    which = _QKV if "{which}" in names[name] else ("",)
    return [names[name].format(i=i, which=each) + _LEAF.get(leaf, "") for each in which]


def _peer_shape(path: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    if path == "patch/kernel":
        return (shape[1], 3, PATCH, PATCH)
    if path == "cls":
        return (1, 1, *shape)
    if path == "positions":
        return (1, *shape)
    first, *others = shape[::-1]  # matrices are [out, in]
    return (first // parts, *others)


def _ours(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if path == "patch/kernel":
        value = value.transpose(2, 3, 1, 0)
    elif path.endswith("kernel"):
        value = value.T
    return np.array(value.reshape(shape), np.float32, order="C")


def import_dinov2(sources: Sequence[Path], out: Path) -> dict[str, Any]:
    """Imports DINOv2 into a directory that `DINOv2.load` reads.

    Args:
      sources: one file: `.pth` of facebookresearch, or `.safetensors` of Hugging Face; or the
        folder that holds one of them under its published name.
      out: the directory; created when missing.

    Returns:
      `out`, `file`, `model` (such as 'ViT-L/14'), `positions` (see `dinov2_vit.POSITIONS`),
      `digest` of the weights and `parameters` (their number).

    Raises:
      UserError: the file is missing, unreadable, or another network.
      OSError: the directory could not be written.
    """
    if len(sources) != 1:
        raise UserError(f"dinov2 takes one file, got {len(sources)}: name one")
    path = _file(Path(sources[0]))
    params, positions = convert(open_tensors(path))
    model = NAMES.get(len(params["cls"]), f"width {len(params['cls'])}")
    info = {"file": path.name, "model": model, "positions": positions}
    info["digest"] = network_files.weights_digest(params)
    paths.write_bytes(Path(out) / FILE, network_files.to_bytes(params, info))
    count = sum(int(leaf.size) for leaf in jax.tree.leaves(params))
    return {"out": str(out), **info, "parameters": count}


def _file(path: Path) -> Path:
    """The file that a source means: itself, or the published one of a folder."""
    if not path.is_dir():
        return path
    found = [*path.glob("model.safetensors"), *sorted(path.glob("dinov2_*_pretrain.pth"))]
    if len(found) != 1:
        held = f"{len(found)} files" if found else "no file"
        raise UserError(
            f"{path} holds {held} named model.safetensors or dinov2_*_pretrain.pth: name the file"
        )
    return found[0]
