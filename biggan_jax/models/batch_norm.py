"""Batch normalisation over the global batch, or over groups of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import batch_sums, remat
from biggan_jax.models.batch_groups import groups_of, whole_batch
from biggan_jax.models.settings import LayerSettings


class BatchNorm(nn.Module):
    """Batch normalisation with the gain and bias given by the caller.

    A training forward normalises with the biased variance of the batch and stores the unbiased one
    in the running statistics. Under jit over a sharded batch the statistics are those of the global
    batch. With groups (ghost batch norm), consecutive examples of the global batch form one, each
    is normalised by its own statistics, and the running ones take the mean over the groups.

    References:
      Ioffe and Szegedy 2015; Hoffer et al. 2017, "Train longer, generalize better", algorithm 1.

    Attributes:
      settings: what every layer of the model shares.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, gain: jax.Array, bias: jax.Array, train: bool) -> jax.Array:
        """Normalises x over N, H, W.

        Args:
          x: [N, H, W, C].
          gain, bias: [N, C], or [1, C] for all examples alike.
          train: use and store the statistics of this batch; otherwise the running ones.

        Returns:
          [N, H, W, C] in the settings' dtype.

        Raises:
          ValueError: when the groups do not divide the batch.
        """
        s = self.settings
        channels = x.shape[-1]
        wide = np.promote_types(s.param_dtype, np.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), wide)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), wide)
        gain, bias = gain.astype(wide), bias.astype(wide)
        size = None if self.is_initializing() else s.bn_group_size
        if not train:
            moments = running_mean.value[None], running_var.value[None]
            return _apply(x, *moments, gain, bias, s)
        if size in (None, whole_batch(len(x))):
            count = whole_batch(len(x))
            split = batch_sums.split_of(len(x), s.mesh)
            y, mean, var = batch_sums.normalize(
                x, gain, bias, running_mean.value, s.bn_eps, s.dtype, split
            )
        else:
            groups = groups_of(len(x), size)
            count = size
            moments = remat.keep(groups.moments(x.astype(wide)))
            mean, var = groups.average(moments)
            y = _apply(x, *groups.to_examples(moments), gain, bias, s)
        if not self.is_initializing():
            count *= x.shape[1] * x.shape[2]
            correction = count / max(count - 1, 1) if s.bn_variance == "unbiased" else 1.0
            m = s.bn_momentum
            kept = lax.stop_gradient((mean, var * correction))
            running_mean.value = m * running_mean.value + (1 - m) * kept[0]
            running_var.value = m * running_var.value + (1 - m) * kept[1]
            # The batch's own moments, for standing statistics; dropped unless asked for.
            self.sow("moments", "mean", mean)
            self.sow("moments", "var", var)
        return y


def _apply(x, mean_GC, var_GC, gain, bias, s: LayerSettings) -> jax.Array:
    """x normalised by moments that are given, [N, C] or [1, C]."""
    scale = lax.rsqrt(var_GC + s.bn_eps) * gain
    x = x.astype(gain.dtype)
    y = (x - mean_GC[:, None, None]) * scale[:, None, None] + bias[:, None, None]
    return y.astype(s.dtype)
