"""Regularizers of the weights: the orthogonal regularizer in both of its forms.

A weight enters as the matrix W of `matrices`, and is the raw one, before spectral normalisation.

Products go through the smaller of the two Gram matrices, so that none is larger than the weight:
W W^T of BigGAN-128's first layer, of shape (24576, 20), would have 604 million entries.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.training import matrices

Form = Literal["off_diagonal", "full"]


@jax.named_scope("regularizer")
def orthogonal_gradient(
    params: Any,
    strength: float,
    form: Form = "off_diagonal",
    exempt: tuple[str, ...] = ("shared",),
) -> Any:
    """Gradient of the orthogonal regularizer, to be added to the gradients of the loss.

    BigGAN-PyTorch adds it directly instead of a penalty, which saves a backward pass through W W^T.

    Args:
      params: a tree of weights; leaves with fewer than 2 axes (biases, gains) are not regularized.
      strength: beta of the paper, >= 0 (BigGAN: 1e-4).
      form: `off_diagonal` is 2 beta (W W^T * (1 - I)) W, which leaves the norms of the rows free;
        `full` is 2 beta (W W^T - I) W.
      exempt: names of modules whose weights are not regularized, at any depth.

    Returns:
      A tree like `params`, each leaf of its weight's shape and dtype; zeros where nothing applies.

    Raises:
      ValueError: `form` is neither of the two.

    References:
      Brock et al. 2019, Large Scale GAN Training, section 3.1 and equation 3 (off_diagonal);
      Brock et al. 2017, Neural Photo Editing, equation 2 (full). Equal to the gradient of
      `orthogonal_penalty`.
    """

    _check(form)

    def gradient(path: tuple, weight: jax.Array) -> jax.Array:
        if not matrices.applies(path, weight, exempt):
            return jnp.zeros_like(weight)
        matrix = matrices.as_matrix(path, weight)
        return matrices.from_matrix(path, 2.0 * strength * _product(matrix, form), weight)

    return jax.tree_util.tree_map_with_path(gradient, params)


def orthogonal_penalty(
    params: Any,
    strength: float,
    form: Form = "off_diagonal",
    exempt: tuple[str, ...] = ("shared",),
) -> jax.Array:
    """The scalar whose gradient is `orthogonal_gradient`.

    Args:
      params: a tree of weights; leaves with fewer than 2 axes (biases, gains) are not regularized.
      strength: beta of the paper, >= 0 (BigGAN: 1e-4).
      form: `off_diagonal` for W W^T * (1 - I), `full` for W W^T - I.
      exempt: names of modules whose weights are not regularized, at any depth.

    Returns:
      beta / 2 times the sum over weights of the squared Frobenius norm, at least float32.

    Raises:
      ValueError: `form` is neither of the two.

    References:
      Brock et al. 2019, Large Scale GAN Training, section 3.1 and equation 3. The paper's R has
      beta in place of beta / 2; the factor here is that of BigGAN-PyTorch's added gradient.
    """
    _check(form)
    terms = [
        _squared_norm(matrices.as_matrix(path, weight), form)
        for path, weight in jax.tree_util.tree_leaves_with_path(params)
        if matrices.applies(path, weight, exempt)
    ]
    dtype = np.result_type(np.float32, *(term.dtype for term in terms))
    return 0.5 * strength * sum((term.astype(dtype) for term in terms), jnp.zeros((), dtype))


def _check(form: str) -> None:
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}: choose 'off_diagonal' or 'full'")


def _product(matrix: jax.Array, form: Form) -> jax.Array:
    """(W W^T * (1 - I)) W or (W W^T - I) W."""
    if not _is_tall(matrix):
        return matrices.product(_residual(matrices.gram(matrix), form), matrix)
    gram = matrices.gram(matrix.T)
    if form == "off_diagonal":
        # The diagonal of W W^T holds the squared norms of the rows.
        norms = jnp.sum(jnp.square(matrix), axis=1, keepdims=True)
        return matrices.product(matrix, gram) - norms * matrix
    return matrices.product(matrix, _residual(gram, form))


def _squared_norm(matrix: jax.Array, form: Form) -> jax.Array:
    """||W W^T * (1 - I)||^2 or ||W W^T - I||^2, of Frobenius."""
    if not _is_tall(matrix):
        return jnp.sum(jnp.square(_residual(_gram(matrix), form)))
    gram = _gram(matrix.T)
    if form == "off_diagonal":
        # ||W W^T|| = ||W^T W||, less the diagonal of W W^T.
        norms = jnp.sum(jnp.square(matrix), axis=1)
        return jnp.sum(jnp.square(gram)) - jnp.sum(jnp.square(norms))
    # W W^T and W^T W share their eigenvalues but for out - rest zeros, each of which adds 1.
    rows, columns = matrix.shape
    return jnp.sum(jnp.square(_residual(gram, form))) + (rows - columns)


def _is_tall(matrix: jax.Array) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _gram(matrix: jax.Array) -> jax.Array:
    return matrices.matmul(matrix, matrix.T)


def _residual(gram: jax.Array, form: Form) -> jax.Array:
    identity = jnp.eye(gram.shape[0], dtype=gram.dtype)
    if form == "off_diagonal":
        return gram * (1.0 - identity)
    return gram - identity
