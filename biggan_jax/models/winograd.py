"""3x3 convolutions as few matrix products, for CPUs: Winograd's minimal filtering.

XLA's CPU backend multiplies matrices faster than it convolves, and far faster than it computes a
convolution's weight gradient. m outputs of a 3-tap filter along one axis are a bilinear algorithm
`y = A ((G w) * (B x))` over m + 2 inputs, built from values of polynomials at m + 1 points and at
infinity (Toom and Cook). A and B cost additions, so what is left is one matrix product over
channels for every entry of G w, and the square of that in two dimensions. Per axis:

                  products for outputs   directly   error beside a convolution's
    CONV          4            2         6          1
    CONV_WIDE     6            4         12         3
    UP            3            2         6          1
    DOWN          3            1         6          1
    DOWN_WIDE     5            2         12         4

Upsampling is nearest, downsampling the mean of pairs, as in `models/resample.py`. Of an image that
is upsampled, B x is zero at the point -1, and of means A is: one product less. Wider tiles have
larger coefficients and so a larger error in float32. Of the points that were tried these have the
smallest one; those of CONV_WIDE are symmetric about 0, and with a there is 1 / a.

References:
  Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.
  Barabasz et al. 2020, "Error analysis and improving the accuracy of Winograd convolution for
  deep neural networks": which points.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Parts = list[jax.Array]
Matrix = tuple[tuple[float, ...], ...]


class Form(NamedTuple):
    """One bilinear algorithm along one axis, of t products a tile.

    Attributes:
      analysis: B [t, s + 2]; a tile is s places of x and reads one more on either side.
      synthesis: A [outputs, t].
      taps: G [t, 3].
    """

    analysis: Matrix
    synthesis: Matrix
    taps: Matrix

    @property
    def places(self) -> int:
        """s, the places of x in a tile: what its sides must be multiples of."""
        return len(self.analysis[0]) - 2


def _form(outputs: int, points: Sequence[float], resample: str = "none") -> Form:
    """The algorithm for `outputs` outputs of the convolution, by its finite points.

    Args:
      outputs: of the convolution: twice the tile of what is upsampled or downsampled.
      points: outputs + 1 of them.
      resample: 'none', 'up' (before the convolution) or 'down' (after it).
    """
    powers = lambda n: np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1]])
    analysis, synthesis, taps = np.linalg.inv(powers(outputs + 2)).T, powers(outputs).T, powers(3)
    if resample == "up":  # places -1, 0, 0, 1, 1, ... of what was upsampled
        places = (np.arange(outputs + 2) + 1) // 2
        analysis = analysis @ np.eye(outputs // 2 + 2)[places]
    if resample == "down":
        synthesis = np.kron(np.eye(outputs // 2), [[0.5, 0.5]]) @ synthesis
    # The last digits of an inverse are the linear algebra library's, and zeros are not quite zero.
    analysis, synthesis = np.round(analysis, 14), np.round(synthesis, 14)
    kept = analysis.any(1) & synthesis.any(0)
    analysis, synthesis, taps = analysis[kept], synthesis[:, kept], taps[kept]
    # Coefficients of 1 cost no multiplication: what they are divided by goes to the taps.
    largest = np.take_along_axis(analysis, np.abs(analysis).argmax(1)[:, None], 1)
    first = np.take_along_axis(synthesis, (synthesis != 0).argmax(0)[None], 0)
    matrices = analysis / largest, synthesis / first, taps * largest * first.T
    return Form(*(tuple(map(tuple, matrix.tolist())) for matrix in matrices))


_ROOT = 0.5**0.5
CONV = _form(2, (0, 1, -1))
CONV_WIDE = _form(4, (0, _ROOT, -_ROOT, 1 / _ROOT, -1 / _ROOT))
UP = _form(2, (0, 1, -1), "up")
DOWN = _form(2, (0, 1, -1), "down")
DOWN_WIDE = _form(4, (0, -1, 0.5, 1.75, -0.75), "down")


def _shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """x moved by one place along an axis, zero where nothing moves in."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _split(x: jax.Array, places: int, axis: int) -> Parts:
    """Every place of the tiles along an axis."""
    if places == 1:
        return [x]
    tiles = x.reshape(*x.shape[:axis], x.shape[axis] // places, places, *x.shape[axis + 1 :])
    return [lax.index_in_dim(tiles, i, axis + 1, keepdims=False) for i in range(places)]


def _merge(parts: Parts, axis: int) -> jax.Array:
    if len(parts) == 1:
        return parts[0]
    tiles = jnp.stack(parts, axis + 1)
    return tiles.reshape(*tiles.shape[:axis], -1, *tiles.shape[axis + 2 :])


def _sums(matrix: Matrix, parts: Sequence[jax.Array]) -> Parts:
    """The product of a matrix with few, simple entries and a vector of arrays."""

    def row(coefficients: tuple[float, ...]) -> jax.Array:
        total = None
        for c, part in zip(coefficients, parts, strict=True):
            if c:
                term = part if abs(c) == 1 else abs(c) * part
                if total is None:
                    total = term if c > 0 else -term
                else:
                    total = total + term if c > 0 else total - term
        assert total is not None  # a row of zeros is no part of any form
        return total

    return [row(coefficients) for coefficients in matrix]


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _analyse(form: Form, x: jax.Array, axis: int) -> Parts:
    """B x, as t arrays."""
    tile = _split(x, form.places, axis)
    return _sums(form.analysis, [_shift(tile[-1], 1, axis), *tile, _shift(tile[0], -1, axis)])


def _analyse_transposed(form: Form, parts: Parts, axis: int) -> jax.Array:
    """B^T of t arrays."""
    before, *tile, after = _sums(_transposed(form.analysis), parts)
    tile[-1] = tile[-1] + _shift(before, -1, axis)
    tile[0] = tile[0] + _shift(after, 1, axis)
    return _merge(tile, axis)


def _synthesise(form: Form, parts: Parts, axis: int) -> jax.Array:
    """A of t arrays."""
    return _merge(_sums(form.synthesis, parts), axis)


def _synthesise_transposed(form: Form, y: jax.Array, axis: int) -> Parts:
    """A^T y, as t arrays."""
    return _sums(_transposed(form.synthesis), _split(y, len(form.synthesis), axis))


# Two axes: t arrays of t rows each, [t, N, H', W', C]. One axis is finished before the other is
# begun (the barriers): fused, each of the t * t sums would repeat its rows' own sums. That rows are
# one array keeps the programs short, t instructions in place of t * t, and compiles in a third of
# the time.
_H, _W = 1, 2


def _both(f, form: Form, x: jax.Array) -> Parts:
    """An analysis along H and W of x [N, H, W, C]."""
    rows = lax.optimization_barrier(jnp.stack(f(form, x, _H)))
    return f(form, rows, 1 + _W)


def _back(f, form: Form, parts: Parts) -> jax.Array:
    """A synthesis along W and H."""
    rows = lax.optimization_barrier(f(form, parts, 1 + _W))
    return f(form, list(rows), _H)


def _transform(kernel: jax.Array, form: Form) -> Parts:
    """G w G^T of a kernel [3, 3, C, K], as t rows [t, C, K].

    Each row is one product with both G at once, of which nothing has to be transposed or put
    together: for 6 x 6 x 256 x 256 all take 0.3 ms, and the gradient as much, where one axis after
    the other takes 4.6 and 8 ms.
    """
    taps = kernel.reshape(9, -1)
    rows = (jnp.dot(row, taps) for row in _both_taps(form, kernel.dtype))
    return [row.reshape(-1, *kernel.shape[2:]) for row in rows]


def _transform_transposed(parts: Parts, form: Form) -> jax.Array:
    """The kernel's gradient [3, 3, C, K] by those of the t rows."""
    rows = zip(_both_taps(form, parts[0].dtype), parts, strict=True)
    taps = sum(jnp.dot(row.T, part.reshape(len(row), -1)) for row, part in rows)
    return taps.reshape(3, 3, *parts[0].shape[1:])


def _both_taps(form: Form, dtype: np.dtype) -> jax.Array:
    """G for columns and rows together, [t, t, 9]."""
    g = np.array(form.taps)
    return jnp.asarray(np.einsum("ai,bj->baij", g, g).reshape(len(g), len(g), 9), dtype)


def _products(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """One matrix product for each of t rows."""
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((0,), (0,))))


def _flat(a: jax.Array) -> jax.Array:
    """a [t, N, H, W, C] as t matrices over its last axis."""
    return a.reshape(a.shape[0], -1, a.shape[-1])


def _like(product: jax.Array, a: jax.Array) -> jax.Array:
    return product.reshape(*a.shape[:-1], -1)


# jit: layers of one shape are traced once, and once again for their gradients.
@functools.partial(jax.jit, static_argnums=0)
def apply(form: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x with a 3x3 kernel by one of the forms above.

    Args:
      form: the algorithm.
      x: [N, H, W, C]; H and W multiples of the form's `places`.
      kernel: [3, 3, C, K], of the same dtype.

    Returns:
      [N, H, W, K], for UP [N, 2H, 2W, K], for DOWN and DOWN_WIDE [N, H/2, W/2, K].
    """
    return _apply(form, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(form: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _forward(form, x, kernel)[0]


def _forward(form: Form, x: jax.Array, kernel: jax.Array):
    u = _transform(kernel, form)
    v = _both(_analyse, form, x)
    m = [_like(_products(_flat(a), u[i], (2, 1)), a) for i, a in enumerate(v)]
    # B x is computed again for the gradient: it is up to four times the size of x.
    return _back(_synthesise, form, m), (x, kernel)


def _backward(form: Form, residuals, dy: jax.Array):
    x, kernel = residuals
    u = _transform(kernel, form)
    v = _both(_analyse, form, x)
    dm = _both(_synthesise_transposed, form, dy)
    du = [_products(_flat(a), _flat(b), (1, 1)) for a, b in zip(v, dm, strict=True)]
    dv = [_like(_products(_flat(m), u[i], (2, 2)), m) for i, m in enumerate(dm)]
    return _back(_analyse_transposed, form, dv), _transform_transposed(du, form)


_apply.defvjp(_forward, _backward)
