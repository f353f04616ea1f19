"""Self-attention over the pixels of a feature map, and its attention-free control."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.models import resample
from biggan_jax.models.layers import Conv
from biggan_jax.models.settings import LayerSettings, at_least_float32

KINDS = ("attention", "residual")
REDUCTIONS = (1, 2, 4, 8)  # Zhang et al. 2019, section 3


def insert(h: jax.Array, settings: LayerSettings, train: bool) -> jax.Array:
    """Adds the block that the settings ask for after h [N, H, W, C], inside a compact method.

    Its module is named after the resolution: `attention_64`, or `residual_64` for the control.
    """
    block = {"attention": SelfAttention, "residual": ResidualControl}[settings.attention_kind]
    return block(settings, name=f"{settings.attention_kind}_{h.shape[1]}")(h, train)


def least_channels(settings: LayerSettings) -> int:
    """Channels that the block of the settings needs: one query channel, one value channel."""
    return max(settings.attention_reduction, 2) if settings.attention_kind == "attention" else 1


class SelfAttention(nn.Module):
    """x + gamma * o, the non-local block of SAGAN with gamma = 0 at init.

    Queries and keys have C / k channels, values C / 2 for every k, as in the published code; keys
    and values are max-pooled by 2, as every published implementation does: K = H * W / 4 keys for
    Q = H * W queries. No 1/sqrt(d). The map is sown as `attention/map` [N, Q, K] (queries and keys
    in row-major order) when that collection is mutable.

    Attributes:
      settings: what every layer of the model shares; k is its `attention_reduction`.

    References:
      Zhang et al. 2019, "Self-Attention GANs", equations 1 to 3.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Attends within x [N, H, W, C]; C at least k and 2, H and W even."""
        s = self.settings
        n, h, w, c = x.shape
        keys, values = c // s.attention_reduction, c // 2
        if c < least_channels(s):
            raise ValueError(
                f"self-attention with C/{s.attention_reduction} key channels needs at least "
                f"{least_channels(s)} channels, got {c}; raise model.ch"
            )
        project = lambda name, features: Conv(
            s, s.spectral_norm, features, kernel_size=1, use_bias=False, name=name
        )
        theta_NQD = project("theta", keys)(x, train).reshape(n, h * w, keys)
        phi_NKD = resample.max_pool(project("phi", keys)(x, train)).reshape(n, -1, keys)
        g_NKD = resample.max_pool(project("g", values)(x, train)).reshape(n, -1, values)
        logits_NQK = at_least_float32(jnp.einsum("nqd,nkd->nqk", theta_NQD, phi_NKD))
        beta_NQK = jax.nn.softmax(logits_NQK, axis=-1)
        self.sow("attention", "map", beta_NQK)
        o_NQD = jnp.einsum("nqk,nkd->nqd", beta_NQK.astype(g_NKD.dtype), g_NKD)
        o = project("o", c)(o_NQD.reshape(n, h, w, values), train)
        gamma = self.param("gamma", nn.initializers.zeros, (), s.param_dtype)
        return x + gamma.astype(x.dtype) * o


class ResidualControl(nn.Module):
    """x + f(x), a residual block with about as many parameters as `SelfAttention` there.

    f is a bottleneck of convolutions, 1x1 then 3x3 then 1x1, each after a ReLU and without bias or
    gamma. The paper gives the block's size but not its layers; a bottleneck matches the size best,
    since its parameters grow in the smallest steps with the width (within 5% from 32 channels on at
    k = 8).

    Attributes:
      settings: what every layer of the model shares; k is its `attention_reduction`.

    References:
      Zhang et al. 2019, "Self-Attention GANs", table 1 (the columns "Residual").
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H, W, C]."""
        s = self.settings
        c = x.shape[-1]
        hidden = control_width(c, s.attention_reduction)
        conv = lambda name, features, size: Conv(
            s, s.spectral_norm, features, kernel_size=size, use_bias=False, name=name
        )
        h = conv("conv1", hidden, 1)(nn.relu(x), train)
        h = conv("conv2", hidden, 3)(nn.relu(h), train)
        return x + conv("conv3", c, 1)(nn.relu(h), train)


def control_width(channels: int, reduction: int) -> int:
    """Hidden width of the bottleneck whose parameters are nearest to the attention block's."""
    attention = 2 * channels * (channels // reduction) + 2 * channels * (channels // 2) + 1
    size = lambda hidden: 2 * channels * hidden + 9 * hidden**2
    return min(range(1, channels + 1), key=lambda hidden: abs(size(hidden) - attention))
