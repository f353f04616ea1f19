"""What a data-parallel step must exchange, from its parameters and batch norms alone."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.models import layers
from biggan_jax.step import TrainStep

# Sums over the batch for each channel of a batch norm: mean and variance forward; gain or scale,
# and the two paths of the mean, backward.
_FORWARD_SUMS = 2
_BACKWARD_SUMS = 3
_D_METRICS = 5
_G_METRICS = 1


def all_reduce_bytes(train_step: TrainStep) -> int:
    """Bytes that the all-reduces of one data-parallel step take part with.

    Every microbatch sums its gradients over the devices, every training forward of G its batch
    statistics, and the backward of G what flows through them.

    Args:
      train_step: the bound step.

    Returns:
      Bytes per device, independent of the number of devices.
    """
    g, d = train_step.generator, train_step.discriminator
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    size = (1, g.resolution, g.resolution, g.channels)
    g_bytes, channels = _gradients(g, jax.ShapeDtypeStruct((1, g.dim_z), jnp.float32), labels)
    d_bytes, _ = _gradients(d, jax.ShapeDtypeStruct(size, jnp.float32), labels)
    wide = 4 * channels
    d_update = d_bytes + _FORWARD_SUMS * wide + 4 * _D_METRICS
    g_update = g_bytes + (_FORWARD_SUMS + _BACKWARD_SUMS) * wide + 4 * _G_METRICS
    return train_step.accumulation_steps * (train_step.num_d_steps * d_update + g_update)


def _gradients(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> tuple[int, int]:
    """(bytes of the partial gradients, channels of all batch norms) of one player."""
    channels = 0
    extra = 0  # beyond the size of the parameters

    def record(call, args, kwargs, context):
        nonlocal channels, extra
        m = context.module
        if context.method_name == "__call__":
            if isinstance(m, layers.BatchNorm):
                channels += args[0].shape[-1]
            # The sums run over what is convolved: four 2x2 kernels, or one 4x4, for a 3x3.
            elif isinstance(m, layers.Conv) and m.kernel_size == 3 and m.resample != "none":
                extra += (16 - 9) * m.settings.fused * args[0].shape[-1] * m.features
        return call(*args, **kwargs)

    def forward(key, *inputs) -> Any:
        with nn.intercept_methods(record):
            return module.init(key, *inputs)

    variables = jax.eval_shape(forward, jax.random.key(0), *inputs)
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))
    return 4 * (count + extra), channels
