"""The registry of model families: name -> (Generator, Discriminator)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.config import domains
from biggan_jax.errors import UserError
from biggan_jax.models import (
    attention,
    biggan,
    biggan_deep,
    checks,
    conditioning,
    dcgan,
    latents,
    sagan,
    sngan,
    stages,
)
from biggan_jax.models import remat as remat_lib
from biggan_jax.models.initializers import INITIALIZERS
from biggan_jax.models.settings import LayerSettings, of_section

# A family is a module with G_WIDTHS, `check(model)` and `build(model, g_settings, d_settings)`.
REGISTRY = {
    "biggan": biggan,
    "biggan_deep": biggan_deep,
    "dcgan": dcgan,
    "sagan": sagan,
    "sngan": sngan,
}


def build(
    model: Any,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    fused: bool = True,
    remat: tuple[int | str, ...] = (),
    bn_group_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Builds the two players of one model family.

    Args:
      model: the `model` section of a config (attributes as in `config.default_config().model`).
      dtype: compute dtype of the activations.
      param_dtype: dtype of the parameters.
      fused: fuse resampling into convolutions; False only to count or check against the textbook
        form.
      remat: resolutions (pixels) of the blocks that are recomputed in the backward pass, or
        ('all',); a block's is the larger one of its input's and its output's.
      bn_group_size: examples of one group of batch norm's training statistics (ghost batch norm);
        None: all of them.
      mesh: over which the batch is split, where it is known: attention has a kernel for TPUs.

    Returns:
      (generator, discriminator), unbound Flax modules:
      `generator.apply(variables, z [N, dim_z], labels [N], train)` gives images in [-1, 1],
      `discriminator.apply(variables, images, labels, train)` gives logits [N].

    Raises:
      UserError: when the section asks for something that the family does not have.
    """
    check(model)
    settings = of_section(
        LayerSettings,
        model,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        kernel_init=INITIALIZERS[model.init],
        fused=fused,
        bn_group_size=bn_group_size,
        remat=tuple(remat),
        mesh=mesh,
    )
    generator, discriminator = REGISTRY[model.name].build(
        model,
        dataclasses.replace(settings, spectral_norm=model.g_spectral_norm),
        dataclasses.replace(settings, spectral_norm=model.d_spectral_norm),
    )
    if settings.remat:
        remat_lib.check(settings, _block_sizes(generator, discriminator, model.channels))
    for key, player in (("g_attention", generator), ("d_attention", discriminator)):
        least = attention.least_channels(settings)
        checks.attention(key, getattr(model, key), player.attention_widths(), least)
    return generator, discriminator


def _block_sizes(generator: nn.Module, discriminator: nn.Module, channels: int) -> set[int]:
    """Pixels of every residual block of both players: the larger one of its input and output."""
    of_g = stages.generator_stages(generator)
    of_d = stages.discriminator_stages(discriminator, channels)
    blocks = [stage for stage in of_g + of_d if stage.name.startswith("block_")]
    return {max(block.in_size, block.out_size) for block in blocks}


def check(model: Any) -> None:
    """Raises UserError for a `model` section with values outside their domain."""
    checks.choice("model.name", model.name, REGISTRY)
    domains.check({f"model.{key}": value for key, value in model.items()})
    REGISTRY[model.name].check(model)
    checks.choice("model.init", model.init, INITIALIZERS)
    checks.choice("model.cond_order", model.cond_order, conditioning.ORDERS)
    checks.choice("model.attention_kind", model.attention_kind, attention.KINDS)
    checks.choice("model.attention_form", model.attention_form, attention.FORMS)
    latents.check_distribution(model.z_distribution)
    checks.choice("model.attention_reduction", model.attention_reduction, attention.REDUCTIONS)
    if model.num_classes is None:
        raise UserError(
            "model.num_classes is not set and there is no data to read it from: set "
            "--config.model.num_classes=N (1 for an unconditional model)"
        )
    if model.rgb_width is not None and model.rgb_width < model.channels:
        raise UserError(
            f"model.rgb_width is {model.rgb_width} but model.channels is {model.channels}: set "
            "--config.model.rgb_width to at least the channels"
        )


def check_resolution(model: Any) -> None:
    """Raises UserError unless the family is known and defined for `model.resolution`."""
    checks.choice("model.name", model.name, REGISTRY)
    checks.resolution(model, REGISTRY[model.name].G_WIDTHS)
