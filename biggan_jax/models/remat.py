"""Recomputing blocks in the backward pass instead of keeping their activations."""

import inspect
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from biggan_jax.errors import UserError
from biggan_jax.models.settings import LayerSettings

ALL = "all"
_KEPT = "kept"


def block(cls: type[nn.Module], settings: LayerSettings, resolution: int) -> type[nn.Module]:
    """`cls`, or its recomputed form when the settings ask for blocks of this resolution.

    Parameters, their names and all results are the same either way. What `keep` marks inside is
    kept.

    Args:
      cls: a block whose call ends with `train`.
      settings: what every layer of the model shares; its `remat` decides.
      resolution: the larger one of the block's input and output, in pixels.
    """
    if ALL not in settings.remat and resolution not in settings.remat:
        return cls
    last = len(inspect.signature(cls.__call__).parameters) - 1  # `train`, counted from self
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return nn.remat(cls, static_argnums=(last,), policy=policy)


def keep(x: Any) -> Any:
    """Marks small results that a recomputed block keeps.

    Batch statistics cost an all-reduce and sigma the reading of a weight, for a few numbers each.
    """
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, _KEPT), x)


def check(settings: LayerSettings, resolutions: set[int]) -> None:
    """Raises UserError unless `remat` names only resolutions that the players' blocks have."""
    if settings.remat and not resolutions:
        raise UserError('remat is set, but this model has no blocks: set --config.remat="()"')
    for entry in settings.remat:
        if entry != ALL and entry not in resolutions:
            known = ", ".join(map(str, sorted(resolutions)))
            raise UserError(
                f"remat is {settings.remat}, but no block works at {entry}: set --config.remat to "
                f"some of {known}, or to all"
            )
