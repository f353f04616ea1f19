"""Self-attention over the pixels of a feature map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.models import resample
from biggan_jax.models.layers import Conv, LayerSettings, at_least_float32


class SelfAttention(nn.Module):
    """x + gamma * o, the non-local block of SAGAN with gamma = 0 at init.

    Keys and values are max-pooled by 2, as every published implementation does: K = H * W / 4 keys
    for Q = H * W queries. No 1/sqrt(d). The map is sown as `attention/map` [N, Q, K] (queries and
    keys in row-major order) when that collection is mutable.

    Attributes:
      settings: what every layer of the model shares.

    References:
      Zhang et al. 2019, "Self-Attention GANs", equations 1 to 3.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Attends within x [N, H, W, C]; C at least 8, H and W even."""
        s = self.settings
        n, h, w, c = x.shape
        if c < 8:
            raise ValueError(f"self-attention needs at least 8 channels, got {c}; raise model.ch")
        project = lambda name, features: Conv(
            s, s.spectral_norm, features, kernel_size=1, use_bias=False, name=name
        )
        theta_NQD = project("theta", c // 8)(x, train).reshape(n, h * w, c // 8)
        phi_NKD = resample.max_pool(project("phi", c // 8)(x, train)).reshape(n, -1, c // 8)
        g_NKD = resample.max_pool(project("g", c // 2)(x, train)).reshape(n, -1, c // 2)
        logits_NQK = at_least_float32(jnp.einsum("nqd,nkd->nqk", theta_NQD, phi_NKD))
        beta_NQK = jax.nn.softmax(logits_NQK, axis=-1)
        self.sow("attention", "map", beta_NQK)
        o_NQD = jnp.einsum("nqk,nkd->nqd", beta_NQK.astype(g_NKD.dtype), g_NKD)
        o = project("o", c)(o_NQD.reshape(n, h, w, c // 2), train)
        gamma = self.param("gamma", nn.initializers.zeros, (), s.param_dtype)
        return x + gamma.astype(x.dtype) * o
