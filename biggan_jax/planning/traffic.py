"""What a data-parallel step must exchange, from its parameters and batch norms alone."""

import math

import jax
import jax.numpy as jnp
from flax import traverse_util

from biggan_jax.models import layers, walk
from biggan_jax.models.batch_norm import BatchNorm
from biggan_jax.training.step import TrainStep

# Sums over the batch for each channel of a batch norm: forward of the means of the devices and of
# their squares, in two parts each, and of the variance within; backward of what flows through mean
# and variance.
_FORWARD_SUMS = 5
_BACKWARD_SUMS = 2
_D_METRICS = 5
_G_METRICS = 1


def all_reduce_bytes(train_step: TrainStep) -> int:
    """Bytes that the all-reduces of one data-parallel step take part with.

    Every update sums its gradients over the devices, every training forward of G its batch
    statistics, and the backward of G what flows through them. A kernel that multiplies in bfloat16
    has a gradient in bfloat16, and it is summed so; those of biases are float32. With accumulation
    the sum over the microbatches comes first, in float32 and in the shapes of the parameters.

    Args:
      train_step: the bound step.

    Returns:
      Bytes per device, independent of the number of devices.
    """
    g, d = train_step.generator, train_step.discriminator
    g_found, d_found = walk.of_generator(g), walk.of_discriminator(d, g.channels)
    g_bytes, channels = _gradients(g_found)
    d_bytes, _ = _gradients(d_found)
    parts = train_step.accumulation_steps
    if parts > 1:
        g_bytes, d_bytes = _parameters(g_found), _parameters(d_found)
    d_part = 4 * (_FORWARD_SUMS * channels + _D_METRICS)
    g_part = 4 * ((_FORWARD_SUMS + _BACKWARD_SUMS) * channels + _G_METRICS)
    d_update, g_update = d_bytes + parts * d_part, g_bytes + parts * g_part
    return train_step.num_d_steps * d_update + g_update


def _parameters(found: walk.Walk) -> int:
    """Bytes of the parameters of one player, and of their gradients in float32."""
    return 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(found.variables["params"]))


def _gradients(found: walk.Walk) -> tuple[int, int]:
    """(bytes of the partial gradients, channels of all batch norms) of one player."""
    channels = 0
    extra = 0  # bytes beyond those of the parameters
    widths = {}  # path of a layer -> bytes of one of its gradients, those of what it multiplies in
    for call in found.calls:
        m, inputs = call.module, call.inputs[0].shape[-1]
        if isinstance(m, BatchNorm):
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
