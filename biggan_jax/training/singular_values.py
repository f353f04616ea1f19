"""The largest singular values of a matrix, on the device and from the matrix alone.

No vector is carried from one call to the next, so that a resumed run measures what an undisturbed
one would.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WHOLE_SIDE = 128  # up to this smaller side the whole matrix costs less than a projection of it
BLOCK_SIZE = 4  # of the projection; more than are asked for: equal values are found together
BLOCKS = 16
SQUARINGS = 4  # of the Gram matrix G: G^16
POWERS = 16  # of that: G^256, after which a value is low by 1% only where 100 others are as large
_TINY = 1e-30


@jax.named_scope("singular_values")
def largest(matrix: jax.Array, count: int = 3) -> jax.Array:
    """The largest singular values.

    One after the other by power iteration on the Gram matrix, each taken off the matrix before it
    is squared again, so that small values beside large ones are found too. A large matrix is first
    projected on a block Krylov space. Products alone: LAPACK's small eigenproblems wait for
    each other's threads where the cores are busy, and take long to compile for accelerators.

    Args:
      matrix: [m, n], at least float32.
      count: how many, in [1, BLOCK_SIZE).

    Returns:
      [min(count, m, n)] in descending order, in the matrix's dtype; within 1%.

    References:
      Musco and Musco 2015, "Randomized Block Krylov Methods for Stronger and Faster Approximate
      Singular Value Decomposition", algorithm 2.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    count = min(count, small.shape[0])
    # Squares of a weight that has grown or shrunk a lot would leave float32's range.
    scale = jnp.max(jnp.abs(small))
    small = small / jnp.where(scale > 0, scale, 1)
    rows = small if small.shape[0] <= WHOLE_SIDE else _projected(small)
    start = _start(rows.shape[0], 1, rows.dtype)[:, 0]

    def next_value(rows: jax.Array, _) -> tuple[jax.Array, jax.Array]:
        gram = _dot(rows, rows.T)
        power = gram
        for _ in range(SQUARINGS):
            power = power / jnp.maximum(jnp.trace(power), _TINY)
            power = _dot(power, power)
        power = power / jnp.maximum(jnp.trace(power), _TINY)
        u = lax.fori_loop(0, POWERS, lambda _, u: _unit(_dot(power, u)), start)
        v = _dot(u, rows)
        return rows - u[:, None] * v[None], jnp.linalg.norm(v)

    _, values = lax.scan(next_value, rows, length=count)
    return jnp.sort(values, descending=True) * scale


def _projected(small: jax.Array) -> jax.Array:
    """Q^T A [BLOCK_SIZE * BLOCKS, n] for an orthonormal basis Q of A's block Krylov space."""
    block = jnp.linalg.qr(_start(len(small), BLOCK_SIZE, small.dtype))[0]
    basis = block
    for _ in range(BLOCKS - 1):
        block = _dot(small, _dot(small.T, block))
        block = jnp.linalg.qr(block - _dot(basis, _dot(basis.T, block)))[0]
        basis = jnp.concatenate([basis, block], axis=1)
    # Of an exhausted space the blocks are rounding alone and not orthogonal to those before.
    return _dot(jnp.linalg.qr(basis)[0].T, small)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), _TINY)


def _start(rows: int, columns: int, dtype: jnp.dtype) -> jax.Array:
    """Random vectors that are part of the program: to draw them there takes seconds to compile."""
    vectors = np.random.default_rng(0).standard_normal((rows, columns))
    return jnp.asarray(vectors, dtype)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # HIGHEST: accelerators otherwise multiply float32 in bfloat16 passes.
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
