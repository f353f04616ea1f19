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
import jax.numpy as jnp

from biggan_jax.models import attention, biggan, checks, heads, remat
from biggan_jax.models.settings import LayerSettings

TABLE = "studiogan"
G_WIDTHS, D_WIDTHS = biggan.WIDTH_TABLES[TABLE]
D_WIDTHS = D_WIDTHS | {64: ((1, 2, 4, 8, 16), 5)}  # here the last block halves as well


def glorot_relu(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Glorot-uniform with gain sqrt(2) for kernels over several pixels, 1 for all others.

    The authors' choice for every convolution inside a block, against 1x1 shortcuts and linear
    layers. The last convolution of G, to the image, has gain 1 there and sqrt(2) here.

    Args:
      key: PRNG key.
      shape: [h, w, in, out] or [in, out].
      dtype: of the result.

    References:
      Glorot and Bengio 2010, equation 16.
    """
    gain = 2.0 if len(shape) == 4 and shape[0] > 1 else 1.0
    return nn.initializers.variance_scaling(gain, "fan_avg", "uniform")(key, shape, dtype)


class Discriminator(biggan.Discriminator):
    """SNGAN's projection discriminator: as BigGAN's, but for its first block and its head.

    Attributes:
      thin: hidden channels of all blocks but the first as many as the input's; the first has as
        many as its output.
      head_bias: of the last linear layer.
    """

    head_bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Judges images; see `biggan.Discriminator`."""
        s = self.settings
        widths, num_down = self._plan()
        h = images.astype(s.dtype)
        seen = set()
        for i, multiple in enumerate(widths):
            thin = self.thin and i > 0
            block = remat.block(biggan.DiscriminatorBlock, s, h.shape[1])
            name = f"block_{i}"
            h = block(self.ch * multiple, i < num_down, i == 0, s, thin, name=name)(h, train)
            if h.shape[1] in self.attention and h.shape[1] not in seen:
                h = attention.insert(h, s, train)
            seen.add(h.shape[1])
        return heads.projection(h, labels, train, s, self.num_classes, self.head_bias)

    def _plan(self) -> tuple[tuple[int, ...], int]:
        return D_WIDTHS[self.resolution]


def check(model: Any) -> None:
    """Raises UserError for a `model` section that SNGAN cannot be built from."""
    checks.resolution(model, G_WIDTHS)


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[biggan.Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    generator = biggan.Generator(
        resolution=model.resolution,
        ch=model.ch,
        channels=model.channels,
        num_classes=model.num_classes,
        dim_z=model.dim_z,
        attention=tuple(model.g_attention),
        rgb_width=model.rgb_width,
        shared_embedding=False,
        hierarchical_z=False,
        width_table=TABLE,
        # Gain 1 and bias 0 for every class at init.
        settings=dataclasses.replace(g_settings, table_init=nn.initializers.zeros),
    )
    discriminator = Discriminator(
        resolution=model.resolution,
        ch=model.ch,
        num_classes=model.num_classes,
        attention=tuple(model.d_attention),
        thin=model.d_thin,
        width_table=TABLE,
        head_bias=model.resolution != 32,  # the authors' 32-pixel head is the one without
        settings=d_settings,
    )
    return generator, discriminator
