"""BigGAN-deep: bottleneck blocks, the whole of z in every block, 16 to 512 pixels.

References:
  Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix
  B, figure 16 and tables 7 to 9. Widths of 32 and 64 pixels as in BigGAN-PyTorch; 512 as in
  compare_gan and pytorch-pretrained-BigGAN. 16 pixels is the 32-pixel table with one stage fewer.
  StudioGAN's `big_resnet_deep_legacy` is this model with `d_skip` activated, its
  `big_resnet_deep_studiogan` besides with `deep_blocks` studiogan, which has more parameters.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.errors import UserError
from biggan_jax.models import (
    activation,
    attention,
    checks,
    conditioning,
    heads,
    layers,
    remat,
    resample,
)
from biggan_jax.models.biggan import BOTTOM
from biggan_jax.models.settings import LayerSettings, of_section
from biggan_jax.models.widths import DEEP_WIDTH_TABLES as WIDTH_TABLES

# A stage is two blocks. G's: one that changes nothing, then one that doubles the resolution and
# takes the width. D's: one that takes the width and may halve the resolution, then one that keeps.
G_WIDTHS, D_WIDTHS = WIDTH_TABLES["biggan_pytorch"]
BOTTLENECK = 4  # a G block's hidden width is its input's over this, a D block's its output's


class GeneratorBlock(nn.Module):
    """Bottleneck block whose skip drops the last channels where the width shrinks.

    Attributes:
      features: output channels, at most the input's.
      up: whether it doubles the resolution.
      settings: what every layer shares.
      form: 'paper', or 'studiogan': with a 1x1 convolution as the skip of every block.

    References:
      Brock et al. 2019, figure 16 (left).
    """

    features: int
    up: bool
    settings: LayerSettings
    form: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C], [N, K] -> [N, 2H, 2W, features] (or the same size without `up`)."""
        s = self.settings
        hidden = x.shape[-1] // BOTTLENECK
        up = "up" if self.up else "none"

        def conv(i: int, x: jax.Array, features: int, size: int, up: str = "none") -> jax.Array:
            x = nn.relu(layers.ConditionalBatchNorm(s, name=f"bn{i}")(x, condition, train))
            layer = layers.Conv(
                s, s.spectral_norm, features, kernel_size=size, resample=up, name=f"conv{i}"
            )
            return layer(x, train)

        h = conv(1, x, hidden, 1)
        h = conv(2, h, hidden, 3, up)
        h = conv(3, h, hidden, 3)
        h = conv(4, h, self.features, 1)
        if self.form == "studiogan":
            shortcut = layers.Conv(
                s, s.spectral_norm, self.features, kernel_size=1, resample=up, name="shortcut"
            )
            return h + shortcut(x, train)
        x = x[..., : self.features]
        return h + (resample.upsample(x) if self.up else x)


class Generator(nn.Module):
    """BigGAN-deep's generator: the first layer and every batch norm see the class and all of z.

    Attributes:
      resolution: pixels, a key of G_WIDTHS.
      ch: channel multiplier.
      channels: image channels, 1 or 3.
      num_classes: 1 means unconditional: no embedding, everything is conditioned on z alone.
      dim_z: length of z.
      shared_dim: width of the shared class embedding.
      attention: resolutions after whose stage self-attention (or its control) stands. In
        pytorch-pretrained-BigGAN it stands before a given layer, which is the same place.
      cond_order: 'embedding_z' (BigGAN-PyTorch, StudioGAN) or 'z_embedding' (compare_gan, TF-Hub).
      rgb_width: output channels of the last convolution, of which the first `channels` are kept
        (pytorch-pretrained-BigGAN and compare_gan: ch).
      settings: what every layer shares.
      width_table: a key of WIDTH_TABLES.
      deep_blocks: how the skips get their width, see `GeneratorBlock`.
    """

    resolution: int
    ch: int
    channels: int
    num_classes: int
    dim_z: int
    shared_dim: int
    attention: tuple[int, ...]
    cond_order: str
    rgb_width: int | None
    settings: LayerSettings
    width_table: str = "biggan_pytorch"
    deep_blocks: str = "paper"

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Makes images.

        Args:
          z: latents [N, dim_z]; never changed here (truncation is the sampler's).
          labels: class ids [N], integers in [0, num_classes).
          train: batch statistics, advanced running statistics and u (both collections mutable).

        Returns:
          Images [N, resolution, resolution, channels] in [-1, 1], at least float32.
        """
        s = self.settings
        first, *widths = (self.ch * m for m in WIDTH_TABLES[self.width_table][0][self.resolution])
        embedding = conditioning.class_embedding(
            labels, train, s, self.num_classes, self.shared_dim
        )
        condition = conditioning.join(embedding, z.astype(s.dtype), self.cond_order)
        linear = layers.Dense(s, s.spectral_norm, BOTTOM * BOTTOM * first, name="linear")
        # (H, W, C) order, as the paper's own code; the PyTorch peers reshape to (C, H, W).
        h = linear(condition, train).reshape(-1, BOTTOM, BOTTOM, first)
        for i, width in enumerate(widths):
            same = remat.block(GeneratorBlock, s, h.shape[1])
            how = (s, self.deep_blocks)
            h = same(h.shape[-1], False, *how, name=f"block_{2 * i}")(h, condition, train)
            up = remat.block(GeneratorBlock, s, 2 * h.shape[1])
            h = up(width, True, *how, name=f"block_{2 * i + 1}")(h, condition, train)
            if h.shape[1] in self.attention:
                h = attention.insert(h, s, train)
        return heads.image(h, train, s, self.channels, self.rgb_width)

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        widths = WIDTH_TABLES[self.width_table][0][self.resolution]
        return {BOTTOM * 2**i: self.ch * widths[i] for i in range(1, len(widths))}


class DiscriminatorBlock(nn.Module):
    """Bottleneck block whose skip gains channels by a 1x1 convolution where the width grows.

    Attributes:
      features: output channels, at least the input's.
      down: whether it halves the resolution.
      settings: what every layer shares.
      form: 'paper', or 'studiogan': wherever the width or the resolution changes the skip is a 1x1
        convolution to all channels, and the last ReLU comes after the pooling.
      skip: 'input': the skip takes x; 'activated': relu(x).

    References:
      Brock et al. 2019, figure 16 (right).
    """

    features: int
    down: bool
    settings: LayerSettings
    form: str = "paper"
    skip: str = "input"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H/2, W/2, features] (or the same size without `down`)."""
        s = self.settings
        hidden = self.features // BOTTLENECK
        down = "down" if self.down else "none"

        def conv(name: str, x: jax.Array, features: int, size: int, down="none") -> jax.Array:
            layer = layers.Conv(
                s, s.spectral_norm, features, kernel_size=size, resample=down, name=name
            )
            return layer(x, train)

        h = nn.relu(x)
        x = h if self.skip == "activated" else x  # StudioGAN's ReLU is in place
        h = conv("conv1", h, hidden, 1)
        h = conv("conv2", activation.relu(h, s.mesh), hidden, 3)
        if self.form == "studiogan":
            h = conv("conv3", activation.relu(h, s.mesh), hidden, 3, down)
            h = conv("conv4", activation.relu(h, s.mesh), self.features, 1)
            changes = self.down or x.shape[-1] != self.features
            return h + (conv("shortcut", x, self.features, 1, down) if changes else x)
        h = conv("conv3", activation.relu(h, s.mesh), hidden, 3)
        h = conv("conv4", activation.relu(h, s.mesh), self.features, 1, down)
        x = resample.average_pool(x) if self.down else x
        if x.shape[-1] != self.features:
            extra = conv("shortcut", x, self.features - x.shape[-1], 1)
            x = jnp.concatenate([x, extra], axis=-1)
        return h + x


class Discriminator(nn.Module):
    """BigGAN-deep's projection discriminator.

    Attributes:
      resolution: pixels, a key of D_WIDTHS.
      ch: channel multiplier.
      num_classes: 1 means unconditional: no projection.
      attention: resolutions after whose stage self-attention (or its control) stands; where several
        stages end at one resolution, after the first (BigGAN-PyTorch: after every one of them).
      settings: what every layer shares.
      width_table: a key of WIDTH_TABLES.
      deep_blocks, d_skip: of the blocks, see `DiscriminatorBlock`.
    """

    resolution: int
    ch: int
    num_classes: int
    attention: tuple[int, ...]
    settings: LayerSettings
    width_table: str = "biggan_pytorch"
    deep_blocks: str = "paper"
    d_skip: str = "input"

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Judges images.

        Args:
          images: [N, resolution, resolution, channels] in [-1, 1].
          labels: class ids [N], integers in [0, num_classes).
          train: advance u (the collection `spectral` must be mutable).

        Returns:
          Logits [N], at least float32.
        """
        s = self.settings
        (first, *widths), num_down = WIDTH_TABLES[self.width_table][1][self.resolution]
        stem = layers.Conv(s, s.spectral_norm, self.ch * first, name="stem")
        h = stem(images.astype(s.dtype), train)
        seen = set()
        for i, multiple in enumerate(widths):
            width = self.ch * multiple
            for j, down in ((2 * i, i < num_down), (2 * i + 1, False)):
                block = remat.block(DiscriminatorBlock, s, h.shape[1])
                how = (s, self.deep_blocks, self.d_skip)
                h = block(width, down, *how, name=f"block_{j}")(h, train)
            if h.shape[1] in self.attention and h.shape[1] not in seen:
                h = attention.insert(h, s, train)
            seen.add(h.shape[1])
        return heads.projection(h, labels, train, s, self.num_classes)

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        (_, *widths), num_down = WIDTH_TABLES[self.width_table][1][self.resolution]
        places, resolution = {}, self.resolution
        for i, multiple in enumerate(widths):
            resolution //= 2 if i < num_down else 1
            places.setdefault(resolution, self.ch * multiple)
        return places


def check(model: Any) -> None:
    """Raises UserError for a `model` section that BigGAN-deep cannot be built from."""
    checks.choice("model.width_table", model.width_table, WIDTH_TABLES)
    checks.resolution(model, G_WIDTHS)
    for key, value, why in (
        ("shared_embedding", True, "every batch norm sees the shared class embedding"),
        ("hierarchical_z", True, "every batch norm sees z"),
        ("d_thin", False, "its blocks are bottlenecks"),
    ):
        if model[key] != value:
            raise UserError(
                f"model.{key} is {model[key]}, but {why} in {model.name}: set "
                f"--config.model.{key}={value}"
            )
    # Hidden widths are a quarter of the narrowest block's: 16 and 32 pixels have 4 ch throughout.
    least = BOTTLENECK // min(D_WIDTHS[model.resolution][0][1:])
    if model.ch < least:
        raise UserError(
            f"model.ch is {model.ch}; the bottlenecks of {model.name} at {model.resolution} pixels "
            f"need at least {least}: set --config.model.ch={least}"
        )


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    generator = of_section(
        Generator, model, attention=tuple(model.g_attention), settings=g_settings
    )
    discriminator = of_section(
        Discriminator, model, attention=tuple(model.d_attention), settings=d_settings
    )
    return generator, discriminator
