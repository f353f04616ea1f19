"""Import of BigGAN-PyTorch's G, G_ema and D, plain and deep.

References:
  Brock, github.com/ajbrock/BigGAN-PyTorch: BigGAN.py, BigGANdeep.py, layers.py, utils.py.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.config import config_file, default_config
from biggan_jax.errors import UserError, some
from biggan_jax.interop import convert, infer, layout
from biggan_jax.interop.files import Tensors, open_tensors
from biggan_jax.storage import json_file
from biggan_jax.storage.weights import NETWORKS

FILE = re.compile(r"(G_ema|G|D)(?:_(?!optim)(.+))?\.(?:pth|pt|safetensors)")
NAMES = {"G": "g", "G_ema": "g_ema", "D": "d"}
# sv: logged singular values. u1, u2, ...: of the singular values that are logged only. Counters of
# `--mybn` are divided by where they are not 0.
BUFFER = re.compile(r"(^|\.)(sv\d+|u[1-9]\d*|accumulation_counter|num_batches_tracked)$")
OUTPUT_BN_EPS = 1e-5  # the last batch norm of the peer does not take its --BN_eps


def import_weights(
    sources: list[Path],
    out: Path,
    *,
    suffix: str | None = None,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
    overrides: list[str] | None = None,
) -> dict:
    """Imports weights of BigGAN-PyTorch into a model directory.

    Args:
      sources: files of state_dicts, or one folder as the peer's training leaves it.
      out: the model directory.
      suffix: which of a folder's copies: 'best0' for G_best0.pth.
      bn_eps, sn_eps: the peer's --BN_eps and --SN_eps, which no file of weights holds; by default
        those of `config.default_config`, which are the ones of its scripts.
      overrides: `--config.model.KEY=VALUE` over what the tensors say.

    Returns:
      See `convert.write`.

    Raises:
      UserError: for unusable or contradicting files, or tensors that are missing or misshapen.
    """
    sources = choose(sources, suffix)
    opened = assign([open_tensors(path) for path in sources])
    config = settings(opened, bn_eps, sn_eps, overrides or [])
    for source in opened.values():  # written by `biggan export`
        config.class_names = _class_names(source)
    players = {name[0] for name in opened}
    targets = {player: convert.target(config.model, player) for player in players}
    networks = [
        network(name, source, config.model, targets[name[0]]) for name, source in opened.items()
    ]
    return convert.write(config, networks, out)


def choose(sources: list[Path], suffix: str | None = None) -> list[Path]:
    """The files to read, those given or the newest set of a folder; UserError for no set."""
    if not any(path.is_dir() for path in sources):
        if suffix is not None:
            raise UserError("--suffix chooses within a folder; leave it out when files are given")
        return sources
    if len(sources) > 1:
        raise UserError(f"give one folder or some files, not {some(sources)}")
    (folder,) = sources
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := FILE.fullmatch(path.name):
            sets.setdefault(match[2] or "", {}).setdefault(match[1], path)
    if not sets:
        raise UserError(f"{folder} holds no G*.pth, G_ema*.pth or D*.pth; name the files")
    if suffix is None:
        # The peer writes its last state without a suffix, and its best ones as best0, best1, ...
        newest = {name: max(p.stat().st_mtime for p in sets[name].values()) for name in sets}
        suffix = "" if "" in sets else max(newest, key=newest.get)
    if suffix not in sets:
        raise UserError(f"{folder} holds no set {suffix!r}; set --suffix to {some(sets, 9)}")
    chosen = list(sets[suffix].values())
    if len(sets) > 1:
        others = ", ".join(repr(name) for name in sets if name != suffix)
        print(
            f"{folder}: taking {', '.join(p.name for p in chosen)} (--suffix: also {others})",
            file=sys.stderr,
        )
    return chosen


def assign(opened: list[Tensors]) -> dict[str, Tensors]:
    """{'g', 'g_ema' or 'd': its file}: G or D by the tensors, averaged by the file's name.

    UserError for a file that is neither, and for two files of one network.
    """
    found: dict[str, Tensors] = {}
    for source in opened:
        name = infer.player_of(source.shapes)
        if name is None:
            raise UserError(
                f"{source.path} is neither G nor D of BigGAN-PyTorch: its tensors are "
                f"{some(source.shapes, 4)}"
            )
        if name == "g" and "ema" in source.path.stem.lower():
            name = "g_ema"
        if name in found:
            raise UserError(
                f"{found[name].path} and {source.path} are both {name}; give one of them (an "
                "averaged G has 'ema' in its name)"
            )
        found[name] = source
    return {name: found[name] for name in NETWORKS if name in found}


def settings(
    opened: dict[str, Tensors],
    bn_eps: float | None,
    sn_eps: float | None,
    overrides: list[str],
) -> ConfigDict:
    """The config whose `model` section the tensors say, overrides applied.

    UserError where files contradict each other, or no model of ours is like them.
    """
    found: dict[str, tuple[Any, Path]] = {}
    for name, source in opened.items():
        read = infer.discriminator if name == "d" else infer.generator
        for key, value in read(source.shapes, str(source.path)).items():
            before, path = found.setdefault(key, (value, source.path))
            if before != value:
                raise UserError(
                    f"{path} has {key} {before}, {source.path} has {value}: they are no pair; "
                    "import them into two directories"
                )
    if found["num_classes"][0] == 1:
        raise UserError(
            "the weights are of one class with an embedding of its own; an unconditional model "
            "has none here: import weights of 2 classes or more"
        )
    config = default_config()
    values = {"g_attention": (), "d_attention": ()}
    eps = {"bn_eps": bn_eps, "sn_eps": sn_eps}
    values |= {key: value for key, value in eps.items() if value is not None}
    values |= {key: value for key, (value, _) in found.items()}
    if "dim_z" not in values:  # a lone D: any G that fits
        chunks = len(models.REGISTRY[values["name"]].G_WIDTHS[values["resolution"]])
        values["dim_z"] = 128 if values["name"] == "biggan_deep" else 20 * chunks
    config.model.update(values)
    config = config_file.override(config, overrides)
    models.check(config.model)
    return config


def network(name: str, source: Tensors, model: Any, wanted: dict[str, Any]) -> convert.Network:
    """One network of the peer as ours; `wanted` is what `convert.target` says of it."""
    player = name[0]
    statistics = infer.statistics(source.shapes)
    keys = layout.keys_of(wanted, model, player, statistics)

    def read(path: str) -> np.ndarray:
        value = layout.to_ours(path, source.read(keys[path]), player)
        if not path.startswith("batch_stats/"):
            return value
        counter = keys[path].rpartition(".")[0] + ".accumulation_counter"
        if counter in source.shapes and (count := float(source.read(counter)[0])) > 0:
            value = value / count  # `--accumulate_stats` leaves sums
        if path == "batch_stats/bn_out/norm/var":
            value = value + (OUTPUT_BN_EPS - model.bn_eps)
        return value

    shapes = {path: layout.peer_shape(path, leaf.shape) for path, leaf in wanted.items()}

    def is_buffer(key: str) -> bool:
        return BUFFER.search(key) is not None

    return convert.Network(name, source, keys, shapes, read, is_buffer)


def _class_names(source: Tensors) -> tuple[str, ...]:
    """The names that `biggan export` wrote into a file; UserError where they are damaged."""
    try:
        names = json_file.parse(source.metadata.get("class_names", "[]"))
        if not all(isinstance(name, str) for name in names):
            raise TypeError("not all of them are text")
        return tuple(names)
    except (ValueError, TypeError) as error:
        raise UserError(f"the names of classes in {source.path} cannot be read: {error}") from error
