"""Import of a peer's G, averaged G and D together: which files, which of them, which model."""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.config import config_file, default_config
from biggan_jax.errors import UserError, some
from biggan_jax.interop import convert
from biggan_jax.interop.files import Tensors, open_tensors
from biggan_jax.storage import json_file
from biggan_jax.storage.weights import NETWORKS

Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Peer:
    """What the imports of two peers differ in.

    Attributes:
      name: for messages.
      file: matches the names of its files: groups `network` and `copy`.
      files: the same for messages.
      first: the copy that is taken from a folder where there is one; otherwise the newest.
      player_of: 'g', 'd' or None by the shapes of a file.
      generator, discriminator: (shapes, name of the file) -> {setting: value} of the tensors.
      network: (name, source, model section, `convert.target`) -> the network as ours.
      model: settings of every model of this peer.
    """

    name: str
    file: re.Pattern
    files: str
    first: str
    player_of: Callable[[Shapes], str | None]
    generator: Callable[[Shapes, str], dict[str, Any]]
    discriminator: Callable[[Shapes, str], dict[str, Any]]
    network: Callable[[str, Tensors, Any, dict[str, Any]], convert.Network]
    model: dict[str, Any] = dataclasses.field(default_factory=dict)


def import_weights(
    peer: Peer,
    sources: list[Path],
    out: Path,
    suffix: str | None,
    eps: dict[str, float | None],
    overrides: list[str],
) -> dict:
    """Imports weights of a peer into a model directory.

    Args:
      peer: whose they are.
      sources: files of state_dicts, or one folder as the peer's training leaves it.
      out: the model directory.
      suffix: which of a folder's copies.
      eps: {'bn_eps', 'sn_eps': value or None}.
      overrides: `--config.model.KEY=VALUE` over what the tensors say.

    Returns:
      See `convert.write`.

    Raises:
      UserError: for unusable or contradicting files, or tensors that are missing or misshapen.
    """
    chosen = choose(peer, sources, suffix)
    opened = assign(peer, [open_tensors(path) for path in chosen])
    config = settings(peer, opened, eps, overrides)
    for source in opened.values():  # written by `biggan export`
        config.class_names = class_names(source)
    players = {name[0] for name in opened}
    targets = {player: convert.target(config.model, player) for player in players}
    networks = [
        peer.network(name, source, config.model, targets[name[0]])
        for name, source in opened.items()
    ]
    return convert.write(config, networks, out)


def choose(peer: Peer, sources: list[Path], suffix: str | None = None) -> list[Path]:
    """The files to read, those given or the newest set of a folder; UserError for no set."""
    if not any(path.is_dir() for path in sources):
        if suffix is not None:
            raise UserError("--suffix chooses within a folder; leave it out when files are given")
        return sources
    if len(sources) > 1:
        raise UserError(f"give one folder or some files, not {some(sources)}")
    (folder,) = sources
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir(), key=_by_step):
        if match := peer.file.fullmatch(path.name):
            sets.setdefault(match["copy"] or "", {}).setdefault(match["network"], path)
    if not sets:
        raise UserError(f"{folder} holds no {peer.files}; name the files")
    if suffix is None:
        newest = {name: max(p.stat().st_mtime for p in sets[name].values()) for name in sets}
        suffix = peer.first if peer.first in sets else max(newest, key=newest.get)
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


def assign(peer: Peer, opened: list[Tensors]) -> dict[str, Tensors]:
    """{'g', 'g_ema' or 'd': its file}: G or D by the tensors, averaged by the file's name.

    UserError for a file that is neither, and for two files of one network.
    """
    found: dict[str, Tensors] = {}
    for source in opened:
        name = peer.player_of(source.shapes)
        if name is None:
            raise UserError(
                f"{source.path} is neither G nor D of {peer.name}: its tensors are "
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
    peer: Peer, opened: dict[str, Tensors], eps: dict[str, float | None], overrides: list[str]
) -> ConfigDict:
    """The config whose `model` section the tensors say, overrides applied.

    UserError where files contradict each other, or no model of ours is like them.
    """
    found: dict[str, tuple[Any, Path]] = {}
    for name, source in opened.items():
        read = peer.discriminator if name == "d" else peer.generator
        for key, value in read(source.shapes, str(source.path)).items():
            before, path = found.setdefault(key, (value, source.path))
            if before != value:
                raise UserError(
                    f"{path} has {key} {before}, {source.path} has {value}: they are no pair; "
                    "import them into two directories"
                )
    config = default_config()
    values = {"g_attention": (), "d_attention": ()} | peer.model
    values |= {key: value for key, value in eps.items() if value is not None}
    values |= {key: value for key, (value, _) in found.items()}
    if "dim_z" not in values:  # a lone D: any G that fits
        chunks = len(models.REGISTRY[values["name"]].G_WIDTHS[values["resolution"]])
        values["dim_z"] = 128 if values["name"] == "biggan_deep" else 20 * chunks
    config.model.update(values)
    config = config_file.override(config, overrides)
    models.check(config.model)
    return config


def _by_step(path: Path) -> tuple[int, str]:
    """Orders files by name, those that say `step=N` from the last one on."""
    step = re.search(r"step=(\d+)", path.name)
    return (-int(step[1]) if step else 0), path.name


def class_names(source: Tensors) -> tuple[str, ...]:
    """The names that `biggan export` wrote into a file; UserError where they are damaged."""
    try:
        names = json_file.parse(source.metadata.get("class_names", "[]"))
        if not all(isinstance(name, str) for name in names):
            raise TypeError("not all of them are text")
        return tuple(names)
    except (ValueError, TypeError) as error:
        raise UserError(f"the names of classes in {source.path} cannot be read: {error}") from error
