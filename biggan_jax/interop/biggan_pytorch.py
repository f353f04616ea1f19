"""Import of BigGAN-PyTorch's G, G_ema and D, plain and deep.

References:
  Brock, github.com/ajbrock/BigGAN-PyTorch: BigGAN.py, BigGANdeep.py, layers.py, utils.py.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.interop import convert, infer, layout, players
from biggan_jax.interop.files import Tensors

FILE = re.compile(r"(?P<network>G_ema|G|D)(?:_(?!optim)(?P<copy>.+))?\.(?:pth|pt|safetensors)")
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
    eps = {"bn_eps": bn_eps, "sn_eps": sn_eps}
    return players.import_weights(PEER, sources, out, suffix, eps, overrides or [])


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


PEER = players.Peer(
    name="BigGAN-PyTorch",
    file=FILE,
    files="G*.pth, G_ema*.pth or D*.pth",
    first="",  # its last state; its best ones are best0, best1, ...
    player_of=infer.player_of,
    generator=infer.generator,
    discriminator=infer.discriminator,
    network=network,
)
