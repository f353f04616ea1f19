"""Weights as matrices: the W of spectral norm, of regularizers and of singular values."""

import jax
import jax.numpy as jnp
import numpy as np


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
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
