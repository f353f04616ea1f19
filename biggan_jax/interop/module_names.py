"""The peers' names of modules for ours, derived from what the importers know of their tensors.

A peer's tensor `blocks.0.0.conv1.weight` belongs to its module `blocks.0.0.conv1`, ours
`params/block_0/conv1/kernel` to `block_0/conv1`: these two modules give the same output. A module
that holds others, such as a block, has what the names of its tensors begin with in common.
"""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from biggan_jax.errors import nearest
from biggan_jax.interop import convert, layout, pretrained_biggan, studiogan, studiogan_tensors

OUTPUT = "output"  # what the player itself gives: the image of G, the logit of D


@dataclasses.dataclass(frozen=True)
class Names:
    """How one implementation names the modules of a player, and what its outputs are like.

    Attributes:
      peer: for messages.
      modules: {its name: our path, joined by '/'}.
      nchw: whether channels stand before the pixels.
      chw: whether G's first linear layer gives (C, H, W) order, ours being (H, W, C).
      plain_norm: whether what is inside a conditional batch norm gives x before gain and bias.
      alike: whether the settings of the model are those of this peer's models.
    """

    peer: str
    modules: dict[str, str]
    nchw: bool = True
    chw: bool = True
    plain_norm: bool = False
    alike: bool = True


def of_peers(model: Any, player: str) -> list[Names]:
    """The names that the peers have for the modules of a model, as far as they have such a model.

    Args:
      model: the `model` section of a config.
      player: 'g' or 'd'.
    """
    if model.name not in ("biggan", "biggan_deep"):
        return []
    paths = convert.target(model, player)
    # Of `--mybn`: where the statistics are no module of their own the name is that of its parent.
    keys = layout.keys_of(paths, model, player, layout.STATISTICS[1])
    ours_stored = model.sn_eval == "stored"
    found = [Names("BigGAN-PyTorch", modules_of(keys), alike=not ours_stored)]
    keys = studiogan_tensors.keys_of(paths, model, player)
    alike = all(model[key] == value for key, value in studiogan.MODEL.items())
    found.append(Names(studiogan_tensors.PEER, modules_of(keys), plain_norm=True, alike=alike))
    attention = list(model.g_attention)
    if player == "g" and model.name == "biggan_deep" and len(attention) < 2:
        position = pretrained_biggan.layer_of_attention(attention[0]) if attention else len(paths)
        if model.attention_kind == "attention" and model.deep_blocks == "paper":
            keys = {path: pretrained_biggan.key_of(path, position) for path in paths}
            peer = "pytorch-pretrained-BigGAN"
            alike = ours_stored and model.cond_order == "z_embedding"
            found.append(Names(peer, modules_of(keys), chw=False, alike=alike))
    return found


def modules_of(keys: dict[str, str]) -> dict[str, str]:
    """{a peer's module: our path} of the names of the tensors of one player.

    Args:
      keys: {our name: the peer's}.

    Returns:
      Of ours that share a name of the peer, the outermost.
    """
    below: dict[str, list[list[str]]] = {}
    for path, key in keys.items():
        _, *modules, _ = path.split("/")
        for depth in range(1, len(modules) + 1):
            below.setdefault("/".join(modules[:depth]), []).append(key.split(".")[:-1])
    found: dict[str, str] = {}
    for ours in sorted(below, key=lambda path: path.count("/")):
        found.setdefault(".".join(os.path.commonprefix(below[ours])), ours)
    found.pop("", None)
    return found


def own(paths: Iterable[str]) -> dict[str, str]:
    """{a way to write it: our path} of our own modules, and of the player's output."""
    paths = list(paths)
    dotted = {path.replace("/", "."): path for path in paths}
    return {"": OUTPUT, OUTPUT: OUTPUT} | dotted | {path: path for path in paths}


@dataclasses.dataclass
class Resolved:
    """What became of recorded names.

    Attributes:
      ours: {recorded name: our path}.
      names: those of the peer that most of them are of; None where all are our own.
      unknown: {recorded name that no layer of ours has: the nearest name of one, or None}.
    """

    ours: dict[str, str]
    names: Names | None
    unknown: dict[str, str | None]


def resolve(
    recorded: Iterable[str], peers: list[Names], own_names: dict[str, str], given: dict[str, str]
) -> Resolved:
    """Finds the module of ours for each recorded name.

    Args:
      recorded: names of recorded activations.
      peers: from `of_peers`.
      own_names: from `own`.
      given: {recorded name: our path}, which go before all others.

    Returns:
      The modules. Names are read as those of the peer that knows most of them; of several, of the
      one whose models are like this one.
    """
    plain = {name: name.removeprefix("module.") for name in recorded}

    def known(names: Names) -> int:
        # Not those that ours have as well, such as `linear`: they do not tell whose they are.
        return sum(name in names.modules and name not in own_names for name in plain.values())

    best = max(peers, key=lambda names: (known(names), names.alike), default=None)
    if best is not None and not known(best):
        best = None
    table = own_names | (best.modules if best else {})
    table |= {plain.get(name, name): path for name, path in given.items()}
    ours = {name: table[short] for name, short in plain.items() if short in table}
    near = [*(key for names in peers for key in names.modules if best in (names, None)), *own_names]
    unknown = {
        name: nearest(short, filter(None, near))
        for name, short in plain.items()
        if name not in ours
    }
    return Resolved(ours, best, unknown)
