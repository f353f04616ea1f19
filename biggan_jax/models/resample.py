"""Convolution and resampling, fused where that is exact.

Nearest upsampling by 2 followed by a 3x3 convolution reads each low-resolution pixel several times:
the two are one transposed 4x4 convolution of stride 2 (16 taps for 36). A 3x3 convolution followed
by 2x2 average pooling is one 4x4 convolution of stride 2, the same the other way round. 1x1
convolutions commute with both, so they run at the low resolution. The parameters stay 3x3; results
agree with the unfused form up to rounding (5e-7 relative).

All activations are NHWC, all kernels HWIO.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import winograd
from biggan_jax.models.settings import at_least_float32

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 4
# On a CPU, minimal filtering pays from here on (measured): below, its additions cost what its fewer
# products save, or a step is too short to make up for the longer compilation.
_MANY_CHANNELS = 128
_MANY_PRODUCTS = 5e8
# Of a transposed 4-tap convolution: output 2i reads pixels i-1 and i by taps 0 and 2, output 2i+1
# pixels i and i+1 by taps 1 and 3.
_PHASE_PADDING = ((1, 0), (0, 1))
# Where a 3x3 kernel lies in a 4x4 one.
_CORNERS = tuple((a, b) for a in range(2) for b in range(2))


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding="SAME") -> jax.Array:
    """Convolves x [N, H, W, C] with kernel [h, w, C, K].

    What XLA's CPU backend has no fast convolution for is written as a matrix product: 1x1 kernels
    (3 times faster there, the same program elsewhere), and on the CPU alone 3x3 kernels that read
    or write an image's few channels (4 times faster) or have many (minimal filtering: 1.6 times
    faster forward, 2.5 times backward).
    """
    size, _, channels, features = kernel.shape
    if stride == 1 and size == 1:
        return jnp.dot(x, kernel[0, 0])

    def general(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
        )

    if size == 3 and stride == 1 and padding == "SAME":
        if min(channels, features) <= _FEW_CHANNELS:
            by_taps = _conv_of_few_inputs if channels <= features else _conv_to_few_outputs
            return lax.platform_dependent(x, kernel, cpu=by_taps, default=general)
        return _by_platform(winograd.CONV, general, general, x, kernel)
    return general(x, kernel)


def _by_platform(form: winograd.Form, on_cpu, general, x: jax.Array, kernel: jax.Array):
    """`general(x, kernel)`; on a CPU `on_cpu` or, where that is faster, minimal filtering."""
    _, h, w, channels = x.shape
    products = math.prod(x.shape) * kernel.shape[-1]
    if (
        min(channels, kernel.shape[-1]) < _MANY_CHANNELS
        or products < _MANY_PRODUCTS / 9
        or h % 2
        or w % 2
        or x.dtype == jnp.bfloat16  # its sums and differences would lose bits
    ):
        if on_cpu is general:
            return general(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=on_cpu, default=general)
    minimal = functools.partial(winograd.apply, form)
    return lax.platform_dependent(x, kernel, cpu=minimal, default=general)


def _shifts(x: jax.Array) -> list[jax.Array]:
    """The 9 views of x [N, H, W, C] that the taps of a 3x3 kernel read, zero-padded, row by row."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, a : a + h, b : b + w] for a in range(3) for b in range(3)]


def _conv_of_few_inputs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    patches = jnp.concatenate(_shifts(x), axis=-1)
    return jnp.dot(patches, kernel.reshape(-1, kernel.shape[-1]))


def _conv_to_few_outputs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    features = kernel.shape[-1]
    # Every tap's outputs at every pixel first, then each tap's shifted into its place and added, in
    # float32 at least, as one convolution adds its products.
    wide = np.promote_types(x.dtype, np.float32)
    rows = jnp.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1)
    shifted = _shifts(jnp.dot(x, rows, preferred_element_type=wide))
    outputs = (view[..., i * features : (i + 1) * features] for i, view in enumerate(shifted))
    return sum(outputs).astype(x.dtype)


def upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def average_pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling: [N, H, W, C] -> [N, H/2, W/2, C]; H and W even."""
    n, h, w, c = x.shape
    if x.dtype == jnp.bfloat16:
        return _average_pool_in_bfloat16(x)
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


@jax.custom_vjp
def _average_pool_in_bfloat16(x: jax.Array) -> jax.Array:
    # The sum of an ordinary reduction is an instruction of its own on TPUs, for which all of x is
    # written in float32 first; with a window it is fused.
    window = (1, 2, 2, 1)
    wide = at_least_float32(x)
    sums = lax.reduce_window(wide, np.zeros((), wide.dtype), lax.add, window, window, "VALID")
    return (sums * 0.25).astype(x.dtype)


def _pool_forward(x: jax.Array) -> tuple[jax.Array, None]:
    return _average_pool_in_bfloat16(x), None


def _pool_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (upsample(gradient * 0.25),)


_average_pool_in_bfloat16.defvjp(_pool_forward, _pool_backward)


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max pooling: [N, H, W, C] -> [N, H/2, W/2, C]; H and W even."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2 and padding 1: [N, H, W, C] -> [N, 2H, 2W, K].

    Args:
      x: [N, H, W, C].
      kernel: [4, 4, C, K], not flipped: of torch's ConvTranspose2d it is the flip.
    """
    # XLA's CPU backend has no fast kernel for dilated inputs; accelerators skip the zeros between.
    return lax.platform_dependent(x, kernel, cpu=_phase_convs, default=dilated_conv)


def dilated_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`transposed_conv` as one convolution over x with zeros between its pixels."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
    )


def _phase_convs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`transposed_conv` as four 2x2 convolutions, one for each phase of the output."""
    n, h, w, _ = x.shape
    pad = _PHASE_PADDING
    phases = [
        [conv(x, kernel[a::2, b::2], padding=(pad[a], pad[b])) for b in range(2)] for a in range(2)
    ]
    rows = [jnp.stack(row, axis=3) for row in phases]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, kernel.shape[-1])


def upsample_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv(upsample(x), kernel)` for a 3x3 (one transposed convolution) or 1x1 kernel.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, K] or [1, 1, C, K].

    Returns:
      [N, 2H, 2W, K].
    """
    if kernel.shape[0] == 1:
        return upsample(conv(x, kernel))

    def by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _phase_convs(x, _spread(kernel))

    def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return dilated_conv(x, _spread(kernel))

    return _by_platform(winograd.UP, by_phases, transposed, x, kernel)


def _spread(kernel: jax.Array) -> jax.Array:
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


def conv_downsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`average_pool(conv(x, kernel))` for a 3x3 (one strided 4x4 convolution) or 1x1 kernel.

    Args:
      x: [N, H, W, C], H and W even.
      kernel: [3, 3, C, K] or [1, 1, C, K].

    Returns:
      [N, H/2, W/2, K].
    """
    if kernel.shape[0] == 1:
        return conv(average_pool(x), kernel)
    return _by_platform(winograd.DOWN, _strided_conv, _strided_conv, x, kernel)


def _strided_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv(x, _spread(kernel) * 0.25, stride=2, padding=((1, 1), (1, 1)))


def resampled_conv(x: jax.Array, kernel: jax.Array, resample: str, *, fused: bool) -> jax.Array:
    """Convolution with resampling: 'none', 'up' (before it) or 'down' (after it).

    `fused=False` is the textbook order; it exists to count what fusing saves and to test it.
    """
    if resample == "none":
        return conv(x, kernel)
    if resample == "up":
        return upsample_conv(x, kernel) if fused else conv(upsample(x), kernel)
    if resample == "down":
        return conv_downsample(x, kernel) if fused else average_pool(conv(x, kernel))
    raise ValueError(f"resample is {resample!r}; it must be 'none', 'up' or 'down'")
