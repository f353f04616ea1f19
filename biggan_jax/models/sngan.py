"""SNGAN-projection: a plain residual generator and a thin projection discriminator.

Widths are those of the authors' code, which PyTorch-StudioGAN shares: at 32 pixels G has 4 ch and D
2 ch throughout (256 and 128 at ch 64). 16 and 512 pixels, which the authors lack, are as in
`models.biggan`. The paper's setup needs `model.g_spectral_norm=False`, `model.d_thin=True` and
`model.init='glorot_relu'`, as configs/sngan128.py; `model.shared_embedding`, `hierarchical_z`,
`shared_dim`, `cond_order` and `width_table` mean nothing here.

References:
  Miyato and Koyama 2018, "cGANs with Projection Discriminator", appendix; Miyato et al. 2018,
  "Spectral Normalization for GANs", table 4 (32 pixels). Layers as in the authors' Chainer code,
  pfnet-research/sngan_projection.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from biggan_jax.models import attention, biggan, checks, heads, remat
from biggan_jax.models.settings import LayerSettings, of_section
from biggan_jax.models.widths import WIDTH_TABLES

TABLE = "studiogan"
G_WIDTHS, D_WIDTHS = WIDTH_TABLES[TABLE]
D_WIDTHS = D_WIDTHS | {64: ((1, 2, 4, 8, 16), 5)}  # here the last block halves as well


class Discriminator(biggan.Discriminator):
    """SNGAN's projection discriminator: as BigGAN's, but for its first block and its head.

    Attributes:
      thin: hidden channels of all blocks but the first as many as the input's; the first has as
        many as its output.
      head_bias: of the last linear layer.
    """

    head_bias: bool

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Judges images; see `biggan.Discriminator`."""
        s = self.settings
        widths, num_down = self._blocks()
        h = images.astype(s.dtype)
        seen = set()
        for i, multiple in enumerate(widths):
            thin = self.thin and i > 0
            block = remat.block(biggan.DiscriminatorBlock, s, h.shape[1])
            down, first, how = i < num_down, i == 0, (thin, self.d_skip)
            h = block(self.ch * multiple, down, first, s, *how, name=f"block_{i}")(h, train)
            if h.shape[1] in self.attention and h.shape[1] not in seen:
                h = attention.insert(h, s, train)
            seen.add(h.shape[1])
        return heads.projection(h, labels, train, s, self.num_classes, self.head_bias)

    def _blocks(self) -> tuple[tuple[int, ...], int]:
        return D_WIDTHS[self.resolution]


def check(model: Any) -> None:
    """Raises UserError for a `model` section that SNGAN cannot be built from."""
    checks.resolution(model, G_WIDTHS)


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[biggan.Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    generator = of_section(
        biggan.Generator,
        model,
        attention=tuple(model.g_attention),
        shared_embedding=False,
        hierarchical_z=False,
        width_table=TABLE,
        # Gain 1 and bias 0 for every class at init.
        settings=dataclasses.replace(g_settings, table_init=nn.initializers.zeros),
    )
    discriminator = of_section(
        Discriminator,
        model,
        attention=tuple(model.d_attention),
        thin=model.d_thin,
        width_table=TABLE,
        head_bias=model.resolution != 32,  # the authors' 32-pixel head is the one without
        settings=d_settings,
    )
    return generator, discriminator
