"""Import of PyTorch-StudioGAN's checkpoints of BigGAN and BigGAN-deep: G, G_ema and D.

References:
  Kang et al., github.com/POSTECH-CVLab/PyTorch-StudioGAN: utils/ckpt.py, utils/ops.py, worker.py.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.interop import convert, layout, players
from biggan_jax.interop import studiogan_tensors as tensors
from biggan_jax.interop.files import Tensors

FILE = re.compile(
    r"model=(?P<network>G_ema|G|D)-(?P<copy>\w+)-weights-step=\d+\.(?:pth|pt|safetensors)"
)
# Of every model: torch's spectral norm divides by the stored u and v, an activation in place also
# changes what the skip of a D's block takes, and the epsilons stand in utils/ops.py.
MODEL = {"sn_eval": "stored", "d_skip": "activated", "bn_eps": 1e-4, "sn_eps": 1e-6}


def import_weights(
    sources: list[Path],
    out: Path,
    *,
    suffix: str | None = None,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
    overrides: list[str] | None = None,
) -> dict:
    """Imports checkpoints of PyTorch-StudioGAN into a model directory.

    The backbones are `big_resnet`, `big_resnet_deep_legacy` and `big_resnet_deep_studiogan`. The
    stored u and v of the spectral norm are kept and used as they are.

    Args:
      sources: files `model=G-best-weights-step=N.pth`, of `G_ema` or of `D`, or their folder.
      out: the model directory.
      suffix: which of a folder's copies, 'best' (the default) or 'current'.
      bn_eps, sn_eps: instead of 1e-4 and 1e-6.
      overrides: `--config.model.KEY=VALUE` over what the tensors say.

    Returns:
      See `convert.write`.

    Raises:
      UserError: for unusable or contradicting files, tensors that are missing or misshapen, or a
        network that none here is like.
    """
    eps = {"bn_eps": bn_eps, "sn_eps": sn_eps}
    return players.import_weights(PEER, sources, out, suffix, eps, overrides or [])


def network(name: str, source: Tensors, model: Any, wanted: dict[str, Any]) -> convert.Network:
    """One network of the peer as ours; `wanted` is what `convert.target` says of it."""
    player = name[0]
    keys = tensors.keys_of(wanted, model, player)

    def read(path: str) -> np.ndarray:
        value = source.read(keys[path])
        if not path.endswith("/v"):
            return layout.to_ours(path, value, player)
        kernel = wanted.get(path.replace("spectral/", "params/")[:-1] + "kernel")
        return layout.right_vector(value, kernel.shape if kernel else ())

    def shape(path: str) -> tuple[int, ...]:
        ours = wanted[path].shape
        return ours if path.startswith("spectral/") else layout.peer_shape(path, ours)

    shapes = {path: shape(path) for path in wanted}

    def is_buffer(key: str) -> bool:
        return key.endswith(".num_batches_tracked")

    return convert.Network(name, source, keys, shapes, read, is_buffer)


PEER = players.Peer(
    name=tensors.PEER,
    file=FILE,
    files="model=G-*.pth, model=G_ema-*.pth or model=D-*.pth",
    first="best",
    player_of=tensors.player_of,
    generator=tensors.generator,
    discriminator=tensors.discriminator,
    network=network,
    model=MODEL,
)
