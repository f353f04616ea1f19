"""The convolutions that everything else is written in: plain forms, for every platform.

All activations are NHWC, all kernels HWIO.
"""

import jax
import jax.numpy as jnp
from jax import lax

from biggan_jax.models.settings import at_least_float32

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Of a transposed 4-tap convolution: output 2i reads pixels i-1 and i by taps 0 and 2, output 2i+1
# pixels i and i+1 by taps 1 and 3.
_PHASE_PADDING = ((1, 0), (0, 1))
# Where a 3x3 kernel lies in a 4x4 one.
_CORNERS = tuple((a, b) for a in range(2) for b in range(2))


def general(x: jax.Array, kernel: jax.Array, stride: int = 1, padding="SAME") -> jax.Array:
    """XLA's own convolution of x [N, H, W, C] with kernel [h, w, C, K]."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 2 and padding 1, for a 4x4 kernel: [N, H, W, C] -> [N, H/2, W/2, K]."""
    return general(x, kernel, stride=2, padding=((1, 1), (1, 1)))


def dilated(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transpose of `strided`, as one convolution over x with zeros between its pixels.

    Args:
      x: [N, H, W, C].
      kernel: [4, 4, C, K], not flipped.

    Returns:
      [N, 2H, 2W, K].
    """
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
    )


def phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`dilated` as four 2x2 convolutions, one for each phase of the output."""
    n, h, w, _ = x.shape
    pad = _PHASE_PADDING
    found = [
        [general(x, kernel[a::2, b::2], padding=(pad[a], pad[b])) for b in range(2)]
        for a in range(2)
    ]
    rows = [jnp.stack(row, axis=3) for row in found]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, kernel.shape[-1])


def transposed(kernel: jax.Array) -> jax.Array:
    """The kernel [h, w, K, C] of the transpose of a convolution with kernel [h, w, C, K]."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def spread(kernel: jax.Array) -> jax.Array:
    """The 4x4 kernel [4, 4, C, K] whose taps are sums over 2x2 of those of a 3x3 kernel.

    Added up in float32: bfloat16 would round after each of the three additions.
    """
    if kernel.dtype == jnp.bfloat16:
        return _spread_in_bfloat16(kernel)
    return sum(jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a, b in _CORNERS)


@jax.custom_vjp
def _spread_in_bfloat16(kernel: jax.Array) -> jax.Array:
    # Moved first and widened after: the other way round the whole kernel is written in float32, and
    # so is its gradient.
    shifted = (jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a, b in _CORNERS)
    return sum(map(at_least_float32, shifted)).astype(kernel.dtype)


def _spread_forward(kernel: jax.Array) -> tuple[jax.Array, None]:
    return _spread_in_bfloat16(kernel), None


def _spread_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    parts = (gradient[a : a + 3, b : b + 3] for a, b in _CORNERS)
    return (sum(map(at_least_float32, parts)).astype(gradient.dtype),)


_spread_in_bfloat16.defvjp(_spread_forward, _spread_backward)
