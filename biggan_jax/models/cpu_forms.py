"""The form in which a CPU computes a 3x3 convolution: the fastest exact one for its shapes.

Every form equals XLA's convolution up to rounding. They were timed forward and in both gradients at
16 to 256 channels and 4 to 64 pixels, with AVX-512 and with AVX2, without YNNPACK
(`parallel/compiler_options.py`): docs/performance.md has the figures. The choice depends on shapes
alone, not on the processor: a run that is resumed elsewhere must not change its rounding.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import convolution, winograd

XLA = "xla"
PATCHES = "patches"  # one product of gathered patches: few input channels
TAPS = "taps"  # one product for all taps, then shifted and added: few output channels
PHASES = "phases"  # resampled: dense convolutions in place of one with zeros between its pixels
MINIMAL = "minimal filtering"  # fewer products for more additions: many channels
# In training forwards, still fewer: the error of wide tiles in float32 is 3 times a convolution's,
# which is nothing to a gradient, but samples by running statistics shall equal the peers' as
# closely as they can.
WIDE = "minimal filtering, wide tiles"

FEW_CHANNELS = 4


class Range(NamedTuple):
    """Where a form is the fastest one.

    Attributes:
      form: MINIMAL or WIDE.
      channels: from which on, of input and output.
      products: multiplications of the unfused convolution, from which on.
      below: as many, at which it ends: what is transformed leaves the caches.
      pixels: of the whole batch for each channel, from which on: the kernel is transformed too.
    """

    form: str
    channels: int
    products: float
    below: float = math.inf
    pixels: float = 0


# Below, minimal filtering's additions cost what its fewer products save, or the step is too short
# for its longer compilation. The first that fits counts.
ALWAYS = {
    "none": (Range(MINIMAL, 64, 1e9), Range(MINIMAL, 128, 5e8)),
    "up": (Range(MINIMAL, 128, 5e8),),
    "down": (Range(MINIMAL, 64, 1e9), Range(MINIMAL, 128, 5e8)),
}
# In training forwards, before those. A layer compiles for 0.4 to 0.7 s with wide tiles, for 0.3 to
# 0.4 s without, for 0.1 to 0.5 s in the plain form.
IN_TRAINING = {
    "none": (Range(WIDE, 32, 7e7, pixels=2), Range(MINIMAL, 32, 7e7)),
    # Wide tiles of it save less than their additions cost.
    "up": (Range(MINIMAL, 128, 7e7), Range(MINIMAL, 48, 1.5e7, below=2e8)),
    "down": (Range(WIDE, 32, 3e8, pixels=5), Range(MINIMAL, 48, 7e7)),
}


def choose(
    resample: str,
    x_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike,
    train: bool,
) -> str:
    """The form for a 3x3 convolution.

    Args:
      resample: 'none', 'up' (nearest, before it) or 'down' (mean, after it).
      x_shape: [N, H, W, C] of what is convolved; N may be a symbol.
      kernel_shape: [3, 3, C, K].
      dtype: of both.
      train: a training forward.

    Returns:
      XLA, PATCHES, TAPS, PHASES, MINIMAL or WIDE.
    """
    plain = XLA if resample == "none" else PHASES
    channels, features = kernel_shape[-2:]
    if not isinstance(x_shape[0], int):  # an exported program of any batch, for other machines
        return plain
    if resample == "none" and min(channels, features) <= FEW_CHANNELS:
        return PATCHES if channels <= features else TAPS
    if dtype == jnp.bfloat16:  # sums and differences would lose bits
        return plain
    products = 9 * math.prod(x_shape) * features
    pixels = math.prod(x_shape[:3]) / max(channels, features)
    for r in (IN_TRAINING[resample] if train else ()) + ALWAYS[resample]:
        if (
            min(channels, features) >= r.channels
            and r.products <= products < r.below
            and r.pixels <= pixels
            and all(side % _FILTERS[resample, r.form].places == 0 for side in x_shape[1:3])
        ):
            return r.form
    return plain


def _with_gradients(forward: Callable, of_x: Callable, of_kernel: Callable) -> Callable:
    """`forward(x, kernel)` whose gradients are computed in forms of their own.

    Args:
      forward: (x, kernel) -> y.
      of_x, of_kernel: (x, kernel, dy) -> the gradient of either.
    """
    function = jax.custom_vjp(forward)

    def backward(residuals, dy: jax.Array):
        return of_x(*residuals, dy), of_kernel(*residuals, dy)

    function.defvjp(lambda x, kernel: (forward(x, kernel), (x, kernel)), backward)
    return function


def _of_kernel(forward: Callable) -> Callable:
    """The gradient of a form's kernel, as JAX derives it."""

    def gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        _, transpose = jax.vjp(functools.partial(forward, x), kernel)
        return transpose(dy)[0]

    return gradient


def _bordered(x: jax.Array) -> jax.Array:
    """x [N, H, W, C] with one pixel of zeros on every side."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _shifts(x: jax.Array) -> list[jax.Array]:
    """The 9 views of x [N, H, W, C] that the taps of a 3x3 kernel read, zero-padded, row by row."""
    _, h, w, _ = x.shape
    x = _bordered(x)
    return [x[:, a : a + h, b : b + w] for a, b in itertools.product(range(3), repeat=2)]


def _by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    _, h, w, _ = x.shape
    x = _bordered(x)
    # Columns first, one array for all three rows: half the time of nine copies of few channels.
    rows = lax.optimization_barrier(jnp.concatenate([x[:, :, b : b + w] for b in range(3)], -1))
    patches = jnp.concatenate([rows[:, a : a + h] for a in range(3)], -1)
    return jnp.dot(patches, kernel.reshape(-1, kernel.shape[-1]))


def _by_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    features = kernel.shape[-1]
    # Every tap's outputs at every pixel first, then each tap's shifted into its place and added, in
    # float32 at least, as one convolution adds its products.
    wide = np.promote_types(x.dtype, np.float32)
    rows = jnp.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1)
    shifted = _shifts(jnp.dot(x, rows, preferred_element_type=wide))
    outputs = (view[..., i * features : (i + 1) * features] for i, view in enumerate(shifted))
    return sum(outputs).astype(x.dtype)


# Few channels on one side are few on the other side of the gradient of x. The patches' own gradient
# of the kernel would multiply all of them once more, transposed: 4 times as long as XLA's.
patches = _with_gradients(
    _by_patches,
    lambda x, kernel, dy: _by_taps(dy, convolution.transposed(kernel)),
    _of_kernel(convolution.general),
)
taps = _with_gradients(
    _by_taps,
    lambda x, kernel, dy: _by_patches(dy, convolution.transposed(kernel)),
    _of_kernel(_by_taps),
)
# XLA's gradient of x is a convolution over dy with zeros between its pixels, which its CPU backend
# multiplies by all the same: 4 times the work of the four phases.
strided = _with_gradients(
    convolution.strided,
    lambda x, kernel, dy: convolution.phases(dy, convolution.transposed(kernel)),
    _of_kernel(convolution.strided),
)


def _up_by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolution.phases(x, convolution.spread(kernel))


def _down_by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return strided(x, convolution.spread(kernel) * 0.25)


_FILTERS = {
    ("none", MINIMAL): winograd.CONV,
    ("none", WIDE): winograd.CONV_WIDE,
    ("up", MINIMAL): winograd.UP,
    ("down", MINIMAL): winograd.DOWN,
    ("down", WIDE): winograd.DOWN_WIDE,
}


def _minimal(form: winograd.Form) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda x, kernel: winograd.apply(form, x, kernel)


# (resampling, form) -> function of x [N, H, W, C] and kernel [3, 3, C, K].
FORMS: dict[tuple[str, str], Callable[[jax.Array, jax.Array], jax.Array]] = {
    ("none", PATCHES): patches,
    ("none", TAPS): taps,
    ("up", PHASES): _up_by_phases,
    ("down", PHASES): _down_by_phases,
    **{key: _minimal(form) for key, form in _FILTERS.items()},
}
