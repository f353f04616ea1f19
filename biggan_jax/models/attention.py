"""Self-attention over the pixels of a feature map, and its attention-free control."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.models import (
    blocked_attention,
    cudnn_attention,
    dot_product_attention,
    layout,
    resample,
)
from biggan_jax.models.layers import Conv, spread
from biggan_jax.models.settings import LayerSettings

KINDS = ("attention", "residual")
FORMS = ("published", "paper")
REDUCTIONS = (1, 2, 4, 8)  # Zhang et al. 2019, section 3


def insert(h: jax.Array, settings: LayerSettings, train: bool) -> jax.Array:
    """Adds the block that the settings ask for after h [N, H, W, C], inside a compact method.

    Its module is named after the resolution: `attention_64`, or `residual_64` for the control.
    """
    block = {"attention": SelfAttention, "residual": ResidualControl}[settings.attention_kind]
    return block(settings, name=f"{settings.attention_kind}_{h.shape[1]}")(h, train)


def widths(channels: int, settings: LayerSettings) -> tuple[int, int]:
    """(channels of queries and keys, channels of values) of attention within `channels`."""
    keys = channels // settings.attention_reduction
    return keys, keys if settings.attention_form == "paper" else channels // 2


def least_channels(settings: LayerSettings) -> int:
    """Channels that the block of the settings needs: one query channel, one value channel."""
    if settings.attention_kind == "residual":
        return 1
    return next(channels for channels in itertools.count(1) if min(widths(channels, settings)))


class SelfAttention(nn.Module):
    """x + gamma * o, the non-local block of SAGAN with gamma = 0 at init, in one of two forms.

    Both have queries `theta`, keys `phi` and values `g`, 1x1 convolutions of x, and a 1x1
    convolution `o` back to C channels; no bias and no 1/sqrt(d). Queries and keys have C / k
    channels.

    - published, as every published implementation has it: values of C / 2 channels for every k;
      keys and values are max-pooled by 2, so that Q = H * W queries attend to K = H * W / 4 keys.
    - paper, as equations 1 to 3 have it: values of C / k channels and no pooling, K = Q. There
      `phi` is f, `theta` g, `g` h and `o` v. Its map has 4 times the size of the other form's.

    The map is sown as `attention/map` [N, Q, K] (queries and keys in row-major order) when that
    collection is mutable.

    Attributes:
      settings: what every layer of the model shares; the form is its `attention_form`, k its
        `attention_reduction`.

    References:
      Zhang et al. 2019, "Self-Attention GANs", equations 1 to 3.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Attends within x [N, H, W, C]; H and W even in the published form."""
        s = self.settings
        n, h, w, c = x.shape
        if c < least_channels(s):
            raise ValueError(
                f"self-attention with C/{s.attention_reduction} key channels needs at least "
                f"{least_channels(s)} channels, got {c}; raise model.ch"
            )

        def project(name: str, inputs: jax.Array, features: int, scale=None) -> jax.Array:
            conv = Conv(s, s.spectral_norm, features, kernel_size=1, use_bias=False, name=name)
            return conv(inputs, train, scale)

        keys, values = widths(c, s)
        theta_NQD = project("theta", x, keys).reshape(n, h * w, keys)
        phi, g = project("phi", x, keys), project("g", x, values)
        if s.attention_form == "published":
            phi, g = resample.max_pool(phi), resample.max_pool(g)
        phi_NKD, g_NKD = phi.reshape(n, -1, keys), g.reshape(n, -1, values)
        beta_NQK = jax.nn.softmax(dot_product_attention.logits(theta_NQD, phi_NKD), axis=-1)
        self.sow("attention", "map", beta_NQK)
        gamma = self.param("gamma", nn.initializers.zeros, (), s.param_dtype)
        if x.dtype == beta_NQK.dtype:
            if train and s.mesh is not None and blocked_attention.fits(theta_NQD, phi_NKD, s.mesh):
                o_NQD = blocked_attention.attend(theta_NQD, phi_NKD, g_NKD, s.mesh)
            else:
                o_NQD = jnp.einsum("nqk,nkd->nqd", beta_NQK, g_NKD)
            return x + spread(gamma, x) * project("o", o_NQD.reshape(n, h, w, values), c)
        # The map is made for whoever looks at it: nothing else reads it. gamma scales the kernel,
        # and o is not kept for its gradient.
        o_NQD = attend_in_bfloat16(theta_NQD, phi_NKD, g_NKD, s.mesh)
        return x + project("o", o_NQD.reshape(n, h, w, values), c, gamma)


def attend_in_bfloat16(
    theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh | None
) -> jax.Array:
    """softmax(theta phi^T) g of bfloat16 arrays [N, Q, D], [N, K, D] and [N, K, V] -> [N, Q, V].

    On the TPUs and NVIDIA GPUs of a mesh the map stays in on-chip memory where its shape allows it;
    elsewhere it is stored once.
    """
    if mesh is not None and layout.platform(mesh) == "tpu":
        from biggan_jax.models import flash_attention  # Pallas: 0.4 s that only TPUs need

        if flash_attention.fits(theta_NQD, phi_NKD, g_NKV, mesh):
            return flash_attention.attend(theta_NQD, phi_NKD, g_NKV, mesh)
    if mesh is not None and cudnn_attention.fits(theta_NQD, phi_NKD, g_NKV, mesh):
        return cudnn_attention.attend(theta_NQD, phi_NKD, g_NKV, mesh)
    return dot_product_attention.attend(theta_NQD, phi_NKD, g_NKV)


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
        hidden = control_width(c, s)

        def conv(name: str, inputs: jax.Array, features: int, size: int) -> jax.Array:
            layer = Conv(s, s.spectral_norm, features, kernel_size=size, use_bias=False, name=name)
            return layer(nn.relu(inputs), train)

        h = conv("conv1", x, hidden, 1)
        h = conv("conv2", h, hidden, 3)
        return x + conv("conv3", h, c, 1)


def control_width(channels: int, settings: LayerSettings) -> int:
    """Hidden width of the bottleneck whose parameters are nearest to the attention block's."""
    keys, values = widths(channels, settings)
    attention = 2 * channels * (keys + values) + 1

    def difference(hidden: int) -> int:
        return abs(2 * channels * hidden + 9 * hidden**2 - attention)

    return min(range(1, channels + 1), key=difference)
