"""Weights as matrices: the W of spectral norm, of regularizers and of singular values."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def names(path: tuple) -> list[str]:
    """The names along a path of `jax.tree_util`."""
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def applies(path: tuple, weight: jax.Array, exempt: tuple[str, ...]) -> bool:
    """Whether a leaf is a matrix (no bias or gain) and in none of the modules of these names."""
    return weight.ndim >= 2 and not set(names(path)) & set(exempt)


def as_matrix(path: tuple, weight: jax.Array) -> jax.Array:
    """A weight as W of shape (out, rest), at least float32.

    A kernel `(..., in, out)` (HWIO or dense) is flattened and transposed, an embedding `(num,
    features)` is taken as it is.

    Args:
      path: of the weight in its tree; an embedding is known by its name.
      weight: of 2 or more axes.
    """
    weight = weight.astype(np.promote_types(weight.dtype, np.float32))
    if names(path)[-1] == "embedding":
        return weight.reshape(weight.shape[0], -1)
    return weight.reshape(-1, weight.shape[-1]).T


def from_matrix(path: tuple, matrix: jax.Array, like: jax.Array) -> jax.Array:
    """The opposite of `as_matrix`, in the shape and dtype of `like`."""
    if names(path)[-1] != "embedding":
        matrix = matrix.T
    return matrix.reshape(like.shape).astype(like.dtype)


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b in full precision: an accelerator's default rounds factors to bfloat16."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def gram(a: jax.Array) -> jax.Array:
    """a @ a.T like `matmul`; on NVIDIA GPUs as `product` is."""

    def in_parts(a: jax.Array) -> jax.Array:
        high, low = _parts(a)
        cross = _bfloat16_product(high, low.T)
        return _bfloat16_product(high, high.T) + cross + cross.T

    return _by_platform(lambda a: matmul(a, a.T), in_parts, a)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b like `matmul`; on NVIDIA GPUs of factors with 16 bits each in place of 24.

    There float32 numbers are multiplied at a fifteenth of the speed of bfloat16 ones, of which a
    sum of two makes 16 bits. What is left out is 2^-16 of a product, where a gradient in bfloat16
    is off by 2^-8.
    """

    def in_parts(a: jax.Array, b: jax.Array) -> jax.Array:
        (a_high, a_low), (b_high, b_low) = _parts(a), _parts(b)
        cross = _bfloat16_product(a_high, b_low) + _bfloat16_product(a_low, b_high)
        return cross + _bfloat16_product(a_high, b_high)

    return _by_platform(matmul, in_parts, a, b)


def _by_platform(default: Callable, in_parts: Callable, *arrays: jax.Array) -> jax.Array:
    if any(x.dtype != jnp.float32 for x in arrays):
        return default(*arrays)
    return lax.platform_dependent(*arrays, default=default, cuda=in_parts)


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two bfloat16 arrays whose sum is x to 16 bits."""
    # Not by a cast to bfloat16 and back, which XLA takes for nothing.
    high = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return high.astype(jnp.bfloat16), (x - high).astype(jnp.bfloat16)


def _bfloat16_product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)
