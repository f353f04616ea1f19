"""BigGAN-PyTorch's names, shapes and memory layout for our tensors, and ours for theirs.

A tensor of ours is named by its path: `params/block_0/conv1/kernel`, `spectral/linear/u`,
`batch_stats/bn_out/norm/mean`. Convolutions are OIHW there and HWIO here, matrices [out, in] there
and [in, out] here; G's 4x4 input is (C, H, W) there and (H, W, C) here.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from biggan_jax import models

MODULES = {"shortcut": "conv_sc", "stem": "input_conv", "bn_out": "output_layer.0",
           "rgb": "output_layer.2"}  # fmt: skip
# Where running statistics lie: F.batch_norm's, those of `--mybn`, those of `--cross_replica`.
STATISTICS = ("stored_", "bn.stored_", "bn.running_")
BOTTOM = 16  # pixels of G's first feature map


def stage_ends(model: Any, player: str) -> list[int]:
    """Pixels at the end of every stage: of every block, or of every two of BigGAN-deep."""
    family = models.REGISTRY[model.name]
    if player == "g":
        return [4 * 2**i for i in range(1, len(family.G_WIDTHS[model.resolution]))]
    widths, num_down = family.D_WIDTHS[model.resolution]
    stages = len(widths) - (model.name == "biggan_deep")  # entry 0 of its table is the stem
    return [model.resolution >> min(i + 1, num_down) for i in range(stages)]


def block_names(model: Any, player: str) -> dict[str, str]:
    """{our module: the peer's} of every residual and attention block.

    Args:
      model: the `model` section of a config.
      player: 'g' or 'd'.
    """
    deep, names = model.name == "biggan_deep", {}
    for i, resolution in enumerate(stage_ends(model, player)):
        if not deep:
            names[f"block_{i}"], attention = f"blocks.{i}.0", f"blocks.{i}.1"
        elif player == "g":  # one list a block, attention in that of the stage's second
            names |= {f"block_{j}": f"blocks.{j}.0" for j in (2 * i, 2 * i + 1)}
            attention = f"blocks.{2 * i + 1}.1"
        else:  # one list a stage
            names |= {f"block_{2 * i + j}": f"blocks.{i}.{j}" for j in (0, 1)}
            attention = f"blocks.{i}.2"
        # Where several blocks end at one resolution our attention stands after the first.
        names.setdefault(f"attention_{resolution}", attention)
    return names


def key_of(path: str, blocks: dict[str, str], statistics: str = STATISTICS[0]) -> str:
    """The peer's name of a tensor of ours.

    Args:
      path: our name.
      blocks: as `block_names` gives them.
      statistics: one of STATISTICS.
    """
    collection, *modules, leaf = path.split("/")
    names = [blocks.get(m) or MODULES.get(m, m) for m in modules if m != "norm"]
    if collection == "batch_stats":
        return ".".join(names) + f".{statistics}{leaf}"
    leaf = {"kernel": "weight", "embedding": "weight", "u": "u0"}.get(leaf, leaf)
    return ".".join([*names, leaf])


def keys_of(
    paths: Iterable[str], model: Any, player: str, statistics: str = STATISTICS[0]
) -> dict[str, str]:
    """{our name: the peer's} of all tensors of one player."""
    blocks = block_names(model, player)
    return {path: key_of(path, blocks, statistics) for path in paths}


def to_peer(path: str, value: np.ndarray, player: str) -> np.ndarray:
    """A tensor of ours in the peer's layout (a view where that is possible)."""
    if player == "g" and "/linear/" in path:
        value = _permute(value, (BOTTOM, -1))
    leaf = path.rpartition("/")[2]
    if leaf == "kernel":
        return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return value[None] if leaf == "u" else value


def to_ours(path: str, value: np.ndarray, player: str) -> np.ndarray:
    """A tensor of the peer in our layout (a view where that is possible)."""
    leaf = path.rpartition("/")[2]
    if leaf == "kernel":
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    elif leaf == "u":
        value = value.reshape(-1)
    elif leaf == "gamma":
        value = value.reshape(())
    if player == "g" and "/linear/" in path:
        value = _permute(value, (-1, BOTTOM))
    return value


def right_vector(value: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """The v of a peer's spectral norm in our order.

    Args:
      value: one number for each column of the weight as a matrix, [out, in * h * w] there and
        [out, h * w * in] here.
      kernel: our shape of the weight.
    """
    window = math.prod(kernel[:2]) if len(kernel) == 4 else 1
    return value.reshape(-1, window).T.reshape(-1)


def peer_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The peer's shape of a tensor of ours with this shape."""
    leaf = path.rpartition("/")[2]
    if leaf == "kernel":
        return (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return (1, *shape) if leaf == "u" else tuple(shape)


def _permute(value: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Exchanges the two factors of the last axis: (H, W, C) and (C, H, W)."""
    lead = value.shape[:-1]
    return value.reshape(*lead, *shape).swapaxes(-1, -2).reshape(value.shape)
