"""Import of pytorch-pretrained-BigGAN: the generators of BigGAN-deep 128, 256 and 512 of TF-Hub.

References:
  Hugging Face, github.com/huggingface/pytorch-pretrained-BigGAN: model.py, config.py.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.config import config_file, default_config
from biggan_jax.errors import UserError, some
from biggan_jax.interop import convert, layout
from biggan_jax.interop.files import Tensors, open_tensors
from biggan_jax.storage import json_file, truncation_statistics

CONFIG = re.compile(r"(.*)config\.json")
WEIGHTS = re.compile(r"(.*?)(?:pytorch_model|model)\.(?:bin|safetensors)")
ATTENTION = {"theta": "snconv1x1_theta", "phi": "snconv1x1_phi", "g": "snconv1x1_g",
             "o": "snconv1x1_o_conv"}  # fmt: skip
MODULES = {"linear": "generator.gen_z", "bn_out": "generator.bn", "rgb": "generator.conv_to_rgb"}


def import_weights(
    sources: list[Path],
    out: Path,
    *,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
    overrides: list[str] | None = None,
) -> dict:
    """Imports a generator of pytorch-pretrained-BigGAN into a model directory.

    The stored u and v are kept and used as they are, and so are all rows of the batch-norm
    statistics (see `storage.truncation_statistics`). The weights are averaged ones: they become
    `g_ema`.

    Args:
      sources: config.json and pytorch_model.bin (or .safetensors), or the folder that holds them.
      out: the model directory.
      bn_eps, sn_eps: instead of the config's `eps`, which both are.
      overrides: `--config.model.KEY=VALUE`.

    Returns:
      See `convert.write`.

    Raises:
      UserError: for unusable files, or tensors that are missing or misshapen.
    """
    config_path, weights_path = choose(sources)
    theirs = read_config(config_path)
    config = settings(theirs, config_path, bn_eps, sn_eps, overrides or [])
    source = open_tensors(weights_path)
    return convert.write(config, networks(source, config.model, theirs), out)


def choose(sources: list[Path]) -> tuple[Path, Path]:
    """(config, weights) among the given files or in the given folder; UserError unless one each."""
    files = [f for path in sources for f in (sorted(path.iterdir()) if path.is_dir() else [path])]
    configs = [path for path in files if path.suffix == ".json" and CONFIG.fullmatch(path.name)]
    weights = [path for path in files if WEIGHTS.fullmatch(path.name)]
    if len(configs) == 1 and not weights:  # files of any name
        weights = [path for path in sources if path.is_file() and path not in configs]
    if len(configs) != 1 or len(weights) != 1:
        raise UserError(
            "pretrained-biggan takes one config.json and one pytorch_model.bin (or the folder of "
            f"these two); found {some(configs) or 'no config'} and {some(weights) or 'no weights'}"
        )
    return configs[0], weights[0]


def read_config(path: Path) -> dict[str, Any]:
    """The peer's config; UserError when it is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        config = json_file.read(path)
        layers = [(bool(up), int(before), int(after)) for up, before, after in config["layers"]]
        numbers = ("output_dim", "z_dim", "class_embed_dim", "channel_width", "num_classes",
                   "attention_layer_position", "n_stats")  # fmt: skip
        return {key: int(config[key]) for key in numbers} | {
            "layers": layers,
            "eps": float(config["eps"]),
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is no config of pytorch-pretrained-BigGAN ({type(error).__name__}: {error})"
        ) from error


def settings(
    theirs: dict[str, Any],
    path: Path,
    bn_eps: float | None,
    sn_eps: float | None,
    overrides: list[str],
) -> ConfigDict:
    """The config that the peer's own says, overrides applied; UserError for another model."""
    resolution, position = theirs["output_dim"], theirs["attention_layer_position"]
    table = models.REGISTRY["biggan_deep"].G_WIDTHS
    pairs = zip(table.get(resolution, ()), table.get(resolution, ())[1:], strict=False)
    wanted = [layer for a, b in pairs for layer in ((False, a, a), (True, a, b))]
    if theirs["layers"] != wanted or not 0 < position < len(wanted) or position % 2:
        raise UserError(
            f"{path}: its layers for {resolution} pixels, with attention before layer {position}, "
            "are not those of a BigGAN-deep"
        )
    config = default_config()
    config.model.update(
        name="biggan_deep",
        resolution=resolution,
        ch=theirs["channel_width"],
        rgb_width=theirs["channel_width"],
        num_classes=theirs["num_classes"],
        dim_z=theirs["z_dim"],
        shared_dim=theirs["class_embed_dim"],
        g_attention=(4 * 2 ** (position // 2),),  # see `layer_of_attention`
        d_attention=(),
        cond_order="z_embedding",
        sn_eval="stored",
        bn_eps=theirs["eps"] if bn_eps is None else bn_eps,
        sn_eps=theirs["eps"] if sn_eps is None else sn_eps,
        bn_variance="biased",  # of TensorFlow
    )
    config = config_file.override(config, overrides)
    models.check(config.model)
    return config


def networks(source: Tensors, model: Any, theirs: dict[str, Any]) -> list[convert.Network]:
    """The generator with the last row of its statistics, and all rows."""
    wanted = convert.target(model, "g")
    keys = {path: key_of(path, theirs["attention_layer_position"]) for path in wanted}
    rows = theirs["n_stats"]
    ours = {path: leaf.shape for path, leaf in wanted.items()}
    shapes = {path: _shape(path, shape, rows) for path, shape in ours.items()}

    def read(path: str) -> np.ndarray:
        value = _to_ours(path, source.read(keys[path]), ours)
        return value[-1] if path.startswith("batch_stats/") else value

    table = {path: key for path, key in keys.items() if path.startswith("batch_stats/")}
    return [
        convert.Network("g_ema", source, keys, shapes, read),
        convert.Network(
            truncation_statistics.NAME, source, table, shapes, lambda path: source.read(table[path])
        ),
    ]


def layer_of_attention(resolution: int) -> int:
    """The index, among the peer's layers, of attention at a resolution: before that layer."""
    return 2 * (resolution // 4).bit_length() - 2


def key_of(path: str, attention_position: int) -> str:
    """The peer's name of a tensor of ours.

    Args:
      path: our name, such as `params/block_3/bn1/gain/kernel`.
      attention_position: index, among its layers, of the attention.
    """
    collection, *modules, leaf = path.split("/")
    head, *rest = (name for name in modules if name != "norm")
    if head == "shared":
        return "embeddings.weight"
    if head.startswith("block_"):
        index = int(head.removeprefix("block_"))
        names = [f"generator.layers.{index + (index >= attention_position)}"]
        names.append(f"{rest[0][:-1]}_{int(rest[0][-1]) - 1}")  # conv1 -> conv_0
        names += [{"gain": "scale", "bias": "offset"}[name] for name in rest[1:]]
    elif head.startswith("attention_"):
        names = [f"generator.layers.{attention_position}", *(ATTENTION[name] for name in rest)]
    else:
        names = [MODULES[head]]
    if collection == "spectral":
        leaf = f"weight_{leaf}"
    elif collection == "batch_stats":
        leaf = {"mean": "running_means", "var": "running_vars"}[leaf]
    else:
        leaf = {"kernel": "weight_orig", "gain": "weight"}.get(leaf, leaf)
    return ".".join([*names, leaf])


def _shape(path: str, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    if path.startswith("batch_stats/"):
        return (rows, *shape)
    if path.endswith("/kernel") and len(shape) == 4:
        return (*shape[:1:-1], *shape[:2])
    return shape[::-1] if len(shape) == 2 else tuple(shape)


def _to_ours(path: str, value: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    if path.startswith("batch_stats/"):
        return value
    if path.endswith("/v"):
        kernel = shapes[path.replace("spectral/", "params/")[:-1] + "kernel"]
        return layout.right_vector(value, kernel)
    if len(shapes[path]) == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value.reshape(shapes[path])
