"""BigGAN: generator and discriminator for 16 to 512 pixels.

References:
  Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix
  B, tables 4 to 6 (`models/widths.py`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.errors import UserError
from biggan_jax.models import activation, attention, checks, conditioning, heads, layers, remat
from biggan_jax.models.settings import LayerSettings, of_section
from biggan_jax.models.widths import WIDTH_TABLES

G_WIDTHS, D_WIDTHS = WIDTH_TABLES["biggan_pytorch"]
BOTTOM = 4  # pixels of the generator's first feature map


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution (Brock et al., figure 15b).

    Attributes:
      features: output channels.
      settings: what every layer shares.
      num_classes: rows of the lookup tables when the condition is class ids.
    """

    features: int
    settings: LayerSettings
    num_classes: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C], condition (see `conditioning.batch_norm`) -> [N, 2H, 2W, features]."""
        s = self.settings

        def activate(name: str, x: jax.Array) -> jax.Array:
            return nn.relu(conditioning.batch_norm(s, condition, self.num_classes, name)(x, train))

        def conv(name: str, x: jax.Array, size: int, up: str) -> jax.Array:
            layer = layers.Conv(
                s, s.spectral_norm, self.features, kernel_size=size, resample=up, name=name
            )
            return layer(x, train)

        h = conv("conv1", activate("bn1", x), 3, "up")
        h = conv("conv2", activate("bn2", h), 3, "none")
        return h + conv("shortcut", x, 1, "up")


class Generator(nn.Module):
    """BigGAN's generator.

    With hierarchical z, z is split into one chunk per block plus one for the first linear layer,
    which sees its chunk only; block i is conditioned on chunk i + 1 besides the class. Without, the
    first layer sees all of z and the blocks the class alone.

    Attributes:
      resolution: pixels, a key of G_WIDTHS.
      ch: channel multiplier.
      channels: image channels, 1 or 3.
      num_classes: 1 means unconditional: no embedding, blocks are conditioned on their chunk of z
        alone; without hierarchical z on nothing, and their batch norms are plain ones.
      dim_z: length of z, divisible by the number of chunks when hierarchical.
      shared_dim: width of the shared class embedding.
      attention: resolutions after whose block self-attention (or its control) stands.
      cond_order: 'embedding_z' (BigGAN-PyTorch, StudioGAN) or 'z_embedding' (compare_gan, TF-Hub).
      rgb_width: output channels of the last convolution, of which the first `channels` are kept.
      shared_embedding: False: lookup tables of gains and biases per class in every batch norm.
      hierarchical_z: whether z is split over the blocks.
      width_table: a key of WIDTH_TABLES.
      settings: what every layer shares.
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
    shared_embedding: bool
    hierarchical_z: bool
    width_table: str
    settings: LayerSettings

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
        first, *widths = (self.ch * m for m in self._multiples())
        z = z.astype(s.dtype)
        nothing = z[:, :0]
        chunks = [z] + [nothing] * len(widths)
        if self.hierarchical_z:
            chunks = jnp.split(z, len(widths) + 1, axis=-1)
        embedding = nothing
        if self.shared_embedding:
            embedding = conditioning.class_embedding(
                labels, train, s, self.num_classes, self.shared_dim
            )
        linear = layers.Dense(s, s.spectral_norm, BOTTOM * BOTTOM * first, name="linear")
        # (H, W, C) order, as the paper's own code; the PyTorch peers reshape to (C, H, W).
        h = linear(chunks[0], train).reshape(-1, BOTTOM, BOTTOM, first)
        for i, width in enumerate(widths):
            condition = conditioning.join(embedding, chunks[i + 1], self.cond_order)
            if not self.shared_embedding and self.num_classes > 1:
                condition = labels
            block = remat.block(GeneratorBlock, s, 2 * h.shape[1])
            h = block(width, s, self.num_classes, name=f"block_{i}")(h, condition, train)
            if h.shape[1] in self.attention:
                h = attention.insert(h, s, train)
        return heads.image(h, train, s, self.channels, self.rgb_width)

    def _multiples(self) -> tuple[int, ...]:
        return WIDTH_TABLES[self.width_table][0][self.resolution]

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        widths = self._multiples()
        return {BOTTOM * 2**i: self.ch * widths[i] for i in range(1, len(widths))}


class DiscriminatorBlock(nn.Module):
    """Residual block that may halve the resolution (Brock et al., figure 15c).

    Attributes:
      features: output channels.
      down: whether it halves the resolution.
      first: whether its input is the image itself.
      settings: what every layer shares.
      thin: hidden channels as many as the input's (SNGAN) instead of the output's.
      skip: 'input': the skip takes x; 'activated': relu(x), except in the first block.
    """

    features: int
    down: bool
    first: bool
    settings: LayerSettings
    thin: bool = False
    skip: str = "input"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H/2, W/2, features] (or the same size without `down`)."""
        s = self.settings
        resample = "down" if self.down else "none"

        def conv(name: str, x: jax.Array, features: int, size: int, down: str) -> jax.Array:
            layer = layers.Conv(
                s, s.spectral_norm, features, kernel_size=size, resample=down, name=name
            )
            return layer(x, train)

        # The first block sees the image itself: no activation before its first convolution.
        h = x if self.first else nn.relu(x)
        x = h if self.skip == "activated" else x  # StudioGAN's ReLU is in place
        # BigGAN-PyTorch's --D_thin: the first block's hidden width is the image's 3 channels too
        # (Miyato and Koyama's first block is wide).
        hidden = x.shape[-1] if self.thin else self.features
        h = conv("conv1", h, hidden, 3, "none")
        h = conv("conv2", activation.relu(h, s.mesh), self.features, 3, resample)
        # Identity where nothing changes (BigGAN-PyTorch; compare_gan has no skip there at all).
        if self.down or x.shape[-1] != self.features:
            x = conv("shortcut", x, self.features, 1, resample)
        return h + x


class Discriminator(nn.Module):
    """BigGAN's projection discriminator.

    Attributes:
      resolution: pixels, a key of D_WIDTHS.
      ch: channel multiplier.
      num_classes: 1 means unconditional: no projection.
      attention: resolutions after whose block self-attention (or its control) stands; where several
        blocks end at one resolution, after the first (BigGAN-PyTorch: after every one of them).
      thin: hidden width of the blocks, see `DiscriminatorBlock`.
      width_table: a key of WIDTH_TABLES.
      d_skip: what the skips take, see `DiscriminatorBlock`.
      settings: what every layer shares.

    References:
      Miyato and Koyama 2018, "cGANs with Projection Discriminator", figure 1d.
    """

    resolution: int
    ch: int
    num_classes: int
    attention: tuple[int, ...]
    thin: bool
    width_table: str
    d_skip: str
    settings: LayerSettings

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
        widths, num_down = self._blocks()
        h = images.astype(s.dtype)
        seen = set()
        for i, multiple in enumerate(widths):
            block = remat.block(DiscriminatorBlock, s, h.shape[1])
            down, first = i < num_down, i == 0
            how = (self.thin, self.d_skip)
            h = block(self.ch * multiple, down, first, s, *how, name=f"block_{i}")(h, train)
            if h.shape[1] in self.attention and h.shape[1] not in seen:
                h = attention.insert(h, s, train)
            seen.add(h.shape[1])
        return heads.projection(h, labels, train, s, self.num_classes)

    def _blocks(self) -> tuple[tuple[int, ...], int]:
        """Multiples of ch of every block's output, and how many blocks halve the resolution."""
        return WIDTH_TABLES[self.width_table][1][self.resolution]

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        widths, num_down = self._blocks()
        places, resolution = {}, self.resolution
        for i, multiple in enumerate(widths):
            resolution //= 2 if i < num_down else 1
            places.setdefault(resolution, self.ch * multiple)
        return places


def check(model: Any) -> None:
    """Raises UserError for a `model` section that BigGAN cannot be built from."""
    checks.choice("model.width_table", model.width_table, WIDTH_TABLES)
    checks.resolution(model, G_WIDTHS)
    if model.hierarchical_z:
        if not model.shared_embedding and model.num_classes != 1:
            raise UserError(
                "model.hierarchical_z needs the shared class embedding (per-class tables take no "
                "z): set --config.model.hierarchical_z=False or "
                "--config.model.shared_embedding=True"
            )
        checks.chunks(model, len(G_WIDTHS[model.resolution]))


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    generator = of_section(
        Generator, model, attention=tuple(model.g_attention), settings=g_settings
    )
    discriminator = of_section(
        Discriminator,
        model,
        attention=tuple(model.d_attention),
        thin=model.d_thin,
        settings=d_settings,
    )
    return generator, discriminator
