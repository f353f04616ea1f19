"""3x3 convolutions as few matrix products, for CPUs: Winograd's minimal filtering.

XLA's CPU backend multiplies matrices faster than it convolves, and far faster than it computes a
convolution's weight gradient. A 3-tap filter along one axis is a bilinear algorithm
`y = A ((G w) * (B x))`: the sparse sums B and A cost additions only, so what is left is one matrix
product over channels for every entry of G w. Per axis that is

    conv:        4 products for 2 outputs (6 taps)            F(2, 3) of Lavin and Gray
    upsample:    3 products for 2 outputs (6 taps unfused, 4 fused)
    downsample:  3 products for 1 output (6 taps unfused, 4 fused)

and the square of it in two dimensions. Upsampling is nearest, downsampling the mean of pairs, as in
`models/resample.py`, whose convolutions these equal up to rounding (float32: 5e-6 at unit scale).

With d_i = x_{i-1} - x_i and s = a + b + c for taps (a, b, c), upsampling gives
y_{2i} = a d_i + s x_i and y_{2i+1} = s x_i - c d_{i+1}; downsampling is its transpose.

References:
  Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Parts = list[jax.Array]


class Form(NamedTuple):
    """One bilinear algorithm along one axis, and its transposes for the gradients.

    Attributes:
      analyse: (x, axis) -> B x, as a list of t arrays.
      analyse_transposed: (t arrays, axis) -> B^T of them.
      synthesise: (t arrays, axis) -> A of them.
      synthesise_transposed: (y, axis) -> A^T y, as a list of t arrays.
      taps: G [t, 3].
    """

    analyse: Callable[[jax.Array, int], Parts]
    analyse_transposed: Callable[[Parts, int], jax.Array]
    synthesise: Callable[[Parts, int], jax.Array]
    synthesise_transposed: Callable[[jax.Array, int], Parts]
    taps: tuple[tuple[float, float, float], ...]


def _shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """x moved by one place along an axis, zero where nothing moves in."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _split(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The even and the odd places along an axis."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    return tuple(lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))


def _merge(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    shape = even.shape
    pairs = jnp.stack([even, odd], axis + 1)
    return pairs.reshape(*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def _conv_analyse(x, axis):
    even, odd = _split(x, axis)
    return [_shift(odd, 1, axis) - odd, even + odd, odd - even, even - _shift(even, -1, axis)]


def _conv_analyse_transposed(v, axis):
    even = v[1] - v[2] + v[3] - _shift(v[3], 1, axis)
    odd = v[1] + v[2] - v[0] + _shift(v[0], -1, axis)
    return _merge(even, odd, axis)


def _conv_synthesise_transposed(y, axis):
    even, odd = _split(y, axis)
    return [even, even + odd, even - odd, -odd]


def _down_analyse(x, axis):
    even, odd = _split(x, axis)
    return [_shift(odd, 1, axis) - odd, even + odd, _shift(even, -1, axis) - even]


def _down_analyse_transposed(v, axis):
    even = v[1] - v[2] + _shift(v[2], 1, axis)
    odd = v[1] - v[0] + _shift(v[0], -1, axis)
    return _merge(even, odd, axis)


def _up_analyse_transposed(v, axis):
    return v[1] - v[0] - v[2] + _shift(v[0], -1, axis) + _shift(v[2], 1, axis)


def _up_synthesise_transposed(y, axis):
    even, odd = _split(y, axis)
    return [even, even + odd, odd]


_SUMS = ((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
CONV = Form(
    _conv_analyse,
    _conv_analyse_transposed,
    lambda m, axis: _merge(m[0] + m[1] + m[2], m[1] - m[2] - m[3], axis),
    _conv_synthesise_transposed,
    ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)),
)
UP = Form(
    lambda x, axis: [_shift(x, 1, axis) - x, x, _shift(x, -1, axis) - x],
    _up_analyse_transposed,
    lambda m, axis: _merge(m[0] + m[1], m[1] + m[2], axis),
    _up_synthesise_transposed,
    _SUMS,
)
DOWN = Form(
    _down_analyse,
    _down_analyse_transposed,
    lambda m, axis: m[0] + m[1] + m[2],
    lambda y, axis: [y, y, y],
    tuple(tuple(tap / 2 for tap in row) for row in _SUMS),
)


def _both(f: Callable[[jax.Array, int], Parts], x: jax.Array) -> Parts:
    """A one-axis analysis along H and W of x [N, H, W, C]: t * t arrays, row by row."""
    return [part for row in f(x, 1) for part in f(row, 2)]


def _back(f: Callable[[Parts, int], jax.Array], parts: Parts) -> jax.Array:
    """A one-axis synthesis along W and H of t * t arrays."""
    t = round(len(parts) ** 0.5)
    return f([f(parts[i : i + t], 2) for i in range(0, t * t, t)], 1)


def _transform(kernel: jax.Array, form: Form) -> jax.Array:
    """G w G^T of a kernel [3, 3, C, K], as [t * t, C, K]."""
    g = jnp.asarray(form.taps, kernel.dtype)
    return jnp.einsum("ai,bj,ijck->abck", g, g, kernel).reshape(-1, *kernel.shape[2:])


# jit: layers of one shape are traced once, and once again for their gradients.
@functools.partial(jax.jit, static_argnums=0)
def apply(form: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x with a 3x3 kernel by one of CONV, UP or DOWN.

    Args:
      form: the algorithm.
      x: [N, H, W, C]; H and W even, except for UP.
      kernel: [3, 3, C, K], of the same dtype.

    Returns:
      [N, H, W, K], for UP [N, 2H, 2W, K], for DOWN [N, H/2, W/2, K].
    """
    return _apply(form, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(form: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    u = _transform(kernel, form)
    v = _both(form.analyse, x)
    if form is DOWN:  # every product is added up: one long product does that as well
        return jnp.dot(jnp.concatenate(v, -1), u.reshape(-1, u.shape[-1]))
    return _back(form.synthesise, [jnp.dot(v_i, u[i]) for i, v_i in enumerate(v)])


def _forward(form: Form, x: jax.Array, kernel: jax.Array):
    # B x is computed again for the gradient: it is up to four times the size of x.
    return _apply(form, x, kernel), (x, kernel)


def _flat(a: jax.Array) -> jax.Array:
    """a as one matrix over its last axis."""
    return a.reshape(-1, a.shape[-1])


def _backward(form: Form, residuals, dy: jax.Array):
    x, kernel = residuals
    u = _transform(kernel, form)
    v = _both(form.analyse, x)
    if form is DOWN:
        du = jnp.dot(_flat(jnp.concatenate(v, -1)).T, _flat(dy)).reshape(u.shape)
        dv = jnp.split(jnp.dot(dy, _flat(u).T), len(v), axis=-1)
    else:
        dm = _both(form.synthesise_transposed, dy)
        du = jnp.stack([jnp.dot(_flat(a).T, _flat(b)) for a, b in zip(v, dm, strict=True)])
        dv = [jnp.dot(m, u[i].T) for i, m in enumerate(dm)]
    _, transposed = jax.vjp(lambda kernel: _transform(kernel, form), kernel)
    return _back(form.analyse_transposed, dv), transposed(du)[0]


_apply.defvjp(_forward, _backward)
