"""BigGAN: generator and discriminator for 16 to 512 pixels.

References:
  Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix
  B, tables 4 to 6. Widths of 32 and 64 pixels as in BigGAN-PyTorch; D at 512 as in StudioGAN. 16
  pixels is the 32-pixel plan with one stage fewer.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.models import checks, layers
from biggan_jax.models.attention import SelfAttention

# Multiples of ch: entry 0 is the width of the 4x4 input, entry i that of block i's output; every
# block doubles the resolution.
G_WIDTHS = {
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# Multiples of ch of each block's output, and how many blocks (the first ones) halve the resolution.
D_WIDTHS = {
    16: ((4, 4, 4), 2),
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 5),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}
BOTTOM = 4  # pixels of the generator's first feature map


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution (Brock et al., figure 15b)."""

    features: int
    settings: layers.LayerSettings

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C], [N, K] -> [N, 2H, 2W, features]."""
        s = self.settings
        conv = lambda name, size, up: layers.Conv(
            s, s.spectral_norm, self.features, kernel_size=size, resample=up, name=name
        )
        h = nn.relu(layers.ConditionalBatchNorm(s, name="bn1")(x, condition, train))
        h = conv("conv1", 3, "up")(h, train)
        h = nn.relu(layers.ConditionalBatchNorm(s, name="bn2")(h, condition, train))
        h = conv("conv2", 3, "none")(h, train)
        return h + conv("shortcut", 1, "up")(x, train)


class Generator(nn.Module):
    """BigGAN's generator with a shared class embedding and hierarchical z.

    z is split into one chunk per block plus one for the first linear layer, which sees its chunk
    only. Block i is conditioned on the class embedding and chunk i + 1.

    Attributes:
      resolution: pixels, a key of G_WIDTHS.
      ch: channel multiplier.
      channels: image channels, 1 or 3.
      num_classes: 1 means unconditional: no embedding, blocks are conditioned on z alone.
      dim_z: length of z, divisible by the number of chunks.
      shared_dim: width of the shared class embedding.
      attention: resolutions after whose block self-attention stands.
      cond_order: 'embedding_z' (BigGAN-PyTorch, StudioGAN) or 'z_embedding' (compare_gan, TF-Hub).
      rgb_width: output channels of the last convolution, of which the first `channels` are kept.
      settings: what every layer shares.
    """

    resolution: int
    ch: int
    channels: int
    num_classes: int
    dim_z: int
    shared_dim: int = 128
    attention: tuple[int, ...] = ()
    cond_order: str = "embedding_z"
    rgb_width: int | None = None
    settings: layers.LayerSettings = layers.LayerSettings()

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
        first, *widths = (self.ch * m for m in G_WIDTHS[self.resolution])
        chunks = jnp.split(z.astype(s.dtype), len(widths) + 1, axis=-1)
        embedding = None
        if self.num_classes > 1:
            embed = layers.Embed(s, False, self.num_classes, self.shared_dim, name="shared")
            embedding = embed(labels, train).astype(s.dtype)
        h = layers.Dense(s, s.spectral_norm, BOTTOM * BOTTOM * first, name="linear")(
            chunks[0], train
        )
        # (H, W, C) order, as the paper's own code; the PyTorch peers reshape to (C, H, W).
        h = h.reshape(-1, BOTTOM, BOTTOM, first)
        for i, width in enumerate(widths):
            condition = self._condition(embedding, chunks[i + 1])
            h = GeneratorBlock(width, s, name=f"block_{i}")(h, condition, train)
            resolution = BOTTOM * 2 ** (i + 1)
            if resolution in self.attention:
                h = SelfAttention(s, name=f"attention_{resolution}")(h, train)
        h = nn.relu(layers.AffineBatchNorm(s, name="bn_out")(h, train))
        h = layers.Conv(s, s.spectral_norm, self.rgb_width or self.channels, name="rgb")(h, train)
        return jnp.tanh(layers.at_least_float32(h[..., : self.channels]))

    def _condition(self, embedding: jax.Array | None, chunk: jax.Array) -> jax.Array:
        if embedding is None:
            return chunk
        pair = (embedding, chunk) if self.cond_order == "embedding_z" else (chunk, embedding)
        return jnp.concatenate(pair, axis=-1)

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        widths = G_WIDTHS[self.resolution]
        return {BOTTOM * 2**i: self.ch * widths[i] for i in range(1, len(widths))}


class DiscriminatorBlock(nn.Module):
    """Residual block that may halve the resolution (Brock et al., figure 15c)."""

    features: int
    down: bool
    first: bool
    settings: layers.LayerSettings

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H/2, W/2, features] (or the same size without `down`)."""
        s = self.settings
        resample = "down" if self.down else "none"
        conv = lambda name, size, down: layers.Conv(
            s, s.spectral_norm, self.features, kernel_size=size, resample=down, name=name
        )
        # The first block sees the image itself: no activation before its first convolution.
        h = x if self.first else nn.relu(x)
        h = conv("conv1", 3, "none")(h, train)
        h = conv("conv2", 3, resample)(nn.relu(h), train)
        # Identity where nothing changes (BigGAN-PyTorch; compare_gan has no skip there at all).
        if self.down or x.shape[-1] != self.features:
            x = conv("shortcut", 1, resample)(x, train)
        return h + x


class Discriminator(nn.Module):
    """BigGAN's projection discriminator.

    Attributes:
      resolution: pixels, a key of D_WIDTHS.
      ch: channel multiplier.
      num_classes: 1 means unconditional: no projection.
      attention: resolutions after whose (first) block self-attention stands.
      settings: what every layer shares.

    References:
      Miyato and Koyama 2018, "cGANs with Projection Discriminator", figure 1d.
    """

    resolution: int
    ch: int
    num_classes: int
    attention: tuple[int, ...] = ()
    settings: layers.LayerSettings = layers.LayerSettings()

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
        widths, num_down = D_WIDTHS[self.resolution]
        h = images.astype(s.dtype)
        seen = set()
        for i, multiple in enumerate(widths):
            block = DiscriminatorBlock(
                self.ch * multiple, down=i < num_down, first=i == 0, settings=s, name=f"block_{i}"
            )
            h = block(h, train)
            resolution = h.shape[1]
            if resolution in self.attention and resolution not in seen:
                h = SelfAttention(s, name=f"attention_{resolution}")(h, train)
            seen.add(resolution)
        # Sum, not mean, over the pixels, in float32: the head decides the scale of the loss.
        features = layers.at_least_float32(nn.relu(h)).sum((1, 2))
        head = layers.Dense(s, s.spectral_norm, 1, dtype=features.dtype, name="linear")
        logits = head(features, train)[:, 0]
        if self.num_classes > 1:
            embed = layers.Embed(
                s, s.spectral_norm, self.num_classes, features.shape[-1], name="embed"
            )
            projection = embed(labels, train).astype(features.dtype)
            logits = logits + (projection * features).sum(-1)
        return logits

    def attention_widths(self) -> dict[int, int]:
        """{resolution: channels} of every place where attention can stand."""
        widths, num_down = D_WIDTHS[self.resolution]
        places, resolution = {}, self.resolution
        for i, multiple in enumerate(widths):
            resolution //= 2 if i < num_down else 1
            places.setdefault(resolution, self.ch * multiple)
        return places


def check(model: Any) -> None:
    """Raises UserError for a `model` section that BigGAN cannot be built from."""
    checks.resolution(model, G_WIDTHS)
    checks.chunks(model, len(G_WIDTHS[model.resolution]))


def build(
    model: Any, g_settings: layers.LayerSettings, d_settings: layers.LayerSettings
) -> tuple[Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    generator = Generator(
        resolution=model.resolution,
        ch=model.ch,
        channels=model.channels,
        num_classes=model.num_classes,
        dim_z=model.dim_z,
        shared_dim=model.shared_dim,
        attention=tuple(model.g_attention),
        cond_order=model.cond_order,
        rgb_width=model.rgb_width,
        settings=g_settings,
    )
    discriminator = Discriminator(
        resolution=model.resolution,
        ch=model.ch,
        num_classes=model.num_classes,
        attention=tuple(model.d_attention),
        settings=d_settings,
    )
    return generator, discriminator
