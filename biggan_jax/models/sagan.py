"""SAGAN: SNGAN's generator with spectral norm in both players and self-attention in the middle.

The layers are BigGAN's (which came out of SAGAN's): wide residual blocks, a first linear layer that
sees all of z, and a gain and bias per class, 1 and 0 at init, in every batch norm of G's blocks.
`model.shared_embedding`, `hierarchical_z`, `shared_dim` and `cond_order` mean nothing here. The
paper's ablations are settings: `g_attention` and `d_attention`, `attention_kind`,
`attention_reduction`, `g_spectral_norm` and the two learning rates.

References:
  Zhang et al. 2019, "Self-Attention Generative Adversarial Networks". 128 pixels as in the authors'
  TensorFlow code, brain-research/self-attention-gan; other resolutions have BigGAN's widths.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from biggan_jax.models import biggan, checks
from biggan_jax.models.settings import LayerSettings
from biggan_jax.models.widths import WIDTH_TABLES

G_WIDTHS, D_WIDTHS = biggan.G_WIDTHS, biggan.D_WIDTHS


def check(model: Any) -> None:
    """Raises UserError for a `model` section that SAGAN cannot be built from."""
    checks.choice("model.width_table", model.width_table, WIDTH_TABLES)
    checks.resolution(model, G_WIDTHS)


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[biggan.Generator, biggan.Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    g_settings = dataclasses.replace(g_settings, table_init=nn.initializers.zeros)
    generator, discriminator = biggan.build(model, g_settings, d_settings)
    return generator.clone(shared_embedding=False, hierarchical_z=False), discriminator
