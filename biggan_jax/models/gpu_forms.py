"""Convolutions on NVIDIA GPUs that resample or see an image's channels, as cuDNN is fast at them.

cuDNN multiplies the zeros that a transposed convolution of stride 2 sees between its pixels: 16
products for 4. One 2x2 convolution to four times the channels makes all four phases of the output
at once, and a copy puts them side by side. A convolution of stride 2 itself is fast.

On one NVIDIA H100 in bfloat16, 128 examples, 64 x 64 x 192 to 128 x 128 x 96 (16 x 16 x 768 to
32 x 32 x 384): the transposed convolution 2.6 ms (1.7 ms), four of one phase each 1.5 ms (0.75 ms),
this form 1.0 ms (0.6 ms).

Tensor cores take channels by eights. A 3x3 convolution of an image is one 3x1 convolution of three
columns side by side (128 x 128 x 3 to 96 channels, 256 examples: 1.4 ms, this form 0.6 ms), one to
an image a product with all taps at once, whose results are shifted and added.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import convolution

FEW_CHANNELS = 4
_EIGHT = 8


def _by_shared_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution.dilated`: output 2i + a, for a of 0 or 1, reads pixels i - 1 + a and i + a."""
    n, h, w, c = x.shape
    k = kernel.shape[-1]
    # Tap 2t + a of the phase a reads pixel i - 1 + a + t: the phases differ in where they start.
    taps = kernel.reshape(2, 2, 2, 2, c, k).transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, 4 * k)
    found = convolution.general(x, taps, padding=((1, 1), (1, 1)))
    found = found.reshape(n, h + 1, w + 1, 2, 2, k)
    rows = [
        jnp.stack([found[:, a : a + h, b : b + w, a, b] for b in range(2)], axis=3)
        for a in range(2)
    ]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, k)


@jax.custom_vjp
def dilated(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution.dilated` for x [N, H, W, C] and kernel [4, 4, C, K], up to rounding."""
    return _by_shared_phases(x, kernel)


def _dilated_forward(x: jax.Array, kernel: jax.Array):
    return dilated(x, kernel), (x, kernel)


def _dilated_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    # <dy, dilated(x, kernel)> = <strided(dy, transposed(kernel)), x>, so that both gradients are
    # those of a convolution of stride 2. JAX's own one of the kernel takes 3.6 times as long.
    dx, of_kernel = jax.vjp(lambda k: convolution.strided(dy, convolution.transposed(k)), kernel)
    return dx, of_kernel(x)[0]


dilated.defvjp(_dilated_forward, _dilated_backward)


@jax.custom_vjp
def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution.strided` for x [N, H, W, C], H and W even, and kernel [4, 4, C, K]."""
    return convolution.strided(x, kernel)


def _strided_forward(x: jax.Array, kernel: jax.Array):
    return strided(x, kernel), (x, kernel)


def _strided_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    _, of_kernel = jax.vjp(lambda k: convolution.strided(x, k), kernel)
    return dilated(dy, convolution.transposed(kernel)), of_kernel(dy)[0]


strided.defvjp(_strided_forward, _strided_backward)


def _up_to_eights(x: jax.Array, axis: int) -> jax.Array:
    """x with zeros up to a multiple of 8 along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % _EIGHT)
    return jnp.pad(x, widths)


def _by_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    width = x.shape[2]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    columns = jnp.concatenate([padded[:, :, b : b + width] for b in range(3)], axis=-1)
    kernel = kernel.reshape(3, 1, -1, kernel.shape[-1])
    return convolution.general(
        _up_to_eights(columns, 3), _up_to_eights(kernel, 2), padding=((1, 1), (0, 0))
    )


def _by_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    _, h, w, _ = x.shape
    features = kernel.shape[-1]
    # Added up in float32, as one convolution adds its products.
    wide = np.promote_types(x.dtype, np.float32)
    rows = _up_to_eights(jnp.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1), 1)
    found = jnp.dot(x, rows, preferred_element_type=wide)
    found = jnp.pad(found, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = enumerate(itertools.product(range(3), repeat=2))
    shifted = (
        found[:, a : a + h, b : b + w, i * features : (i + 1) * features] for i, (a, b) in taps
    )
    return sum(shifted).astype(x.dtype)


@jax.custom_vjp
def of_image(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of few channels: x [N, H, W, C], C at most FEW_CHANNELS."""
    return _by_columns(x, kernel)


def _of_image_forward(x: jax.Array, kernel: jax.Array):
    return of_image(x, kernel), (x, kernel)


def _of_image_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    _, of_kernel = jax.vjp(lambda k: _by_columns(x, k), kernel)
    # Behind a barrier: XLA else adds up the shifted products once more inside the sum over the few
    # channels that follows it in G, at a fifteenth of the memory's speed.
    dx = lax.optimization_barrier(to_image(dy, convolution.transposed(kernel)))
    return dx, of_kernel(dy)[0]


of_image.defvjp(_of_image_forward, _of_image_backward)


@jax.custom_vjp
def to_image(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution to few channels: kernel [3, 3, C, K], K at most FEW_CHANNELS."""
    return _by_taps(x, kernel)


def _to_image_forward(x: jax.Array, kernel: jax.Array):
    return to_image(x, kernel), (x, kernel)


def _to_image_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    # As in `_dilated_backward`: x is what flows back through the transpose, of few channels.
    dx, of_kernel = jax.vjp(lambda k: of_image(dy, convolution.transposed(k)), kernel)
    return dx, of_kernel(x)[0]


to_image.defvjp(_to_image_forward, _to_image_backward)


def choose(kernel: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """The form of a 3x3 convolution without resampling, if it needs one.

    Measured in bfloat16 alone.
    """
    if kernel.dtype != jnp.bfloat16:
        return None
    if kernel.shape[2] <= FEW_CHANNELS:
        return of_image
    return to_image if kernel.shape[3] <= FEW_CHANNELS else None
