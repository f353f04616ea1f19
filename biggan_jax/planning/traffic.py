"""What a data-parallel step must exchange, from its parameters and batch norms alone."""

import math

import jax.numpy as jnp
from flax import traverse_util

from biggan_jax.models import layers, walk
from biggan_jax.training.step import TrainStep

# Sums over the batch for each channel of a batch norm: mean and variance forward; gain or scale,
# and the two paths of the mean, backward.
_FORWARD_SUMS = 2
_BACKWARD_SUMS = 3
_D_METRICS = 5
_G_METRICS = 1


def all_reduce_bytes(train_step: TrainStep) -> int:
    """Bytes that the all-reduces of one data-parallel step take part with.

    Every microbatch sums its gradients over the devices, every training forward of G its batch
    statistics, and the backward of G what flows through them. A kernel that multiplies in bfloat16
    has a gradient in bfloat16, and it is summed so; those of biases are float32.

    Args:
      train_step: the bound step.

    Returns:
      Bytes per device, independent of the number of devices.
    """
    g, d = train_step.generator, train_step.discriminator
    g_bytes, channels = _gradients(walk.of_generator(g))
    d_bytes, _ = _gradients(walk.of_discriminator(d, g.channels))
    wide = 4 * channels
    d_update = d_bytes + _FORWARD_SUMS * wide + 4 * _D_METRICS
    g_update = g_bytes + (_FORWARD_SUMS + _BACKWARD_SUMS) * wide + 4 * _G_METRICS
    return train_step.accumulation_steps * (train_step.num_d_steps * d_update + g_update)


def _gradients(found: walk.Walk) -> tuple[int, int]:
    """(bytes of the partial gradients, channels of all batch norms) of one player."""
    channels = 0
    extra = 0  # bytes beyond those of the parameters
    widths = {}  # path of a layer -> bytes of one of its gradients, those of what it multiplies in
    for call in found.calls:
        m, inputs = call.module, call.inputs[0].shape[-1]
        if isinstance(m, layers.BatchNorm):
            channels += inputs
        elif isinstance(m, layers.SpectralModule) and not isinstance(m, layers.Embed):
            widths[call.path] = jnp.dtype(getattr(m, "dtype", None) or m.settings.dtype).itemsize
        # The sums run over what is convolved: one 4x4 kernel for a 3x3.
        if isinstance(m, layers.Conv) and m.kernel_size == 3 and m.resample != "none":
            extra += (16 - 9) * m.settings.fused * inputs * m.features * widths[call.path]
    leaves = traverse_util.flatten_dict(found.variables["params"]).items()
    gradients = sum(
        math.prod(x.shape) * (widths.get(path[:-1], 4) if path[-1] == "kernel" else 4)
        for path, x in leaves
    )
    return gradients + extra, channels
