"""The clamp of the largest singular values of weights, after an update.

A weight enters as the matrix of `matrices`, raw: before spectral normalisation, as the paper's
figure 3 shows them and its section 4.1 regularizes them. Where a layer has spectral norm, what it
uses has a first singular value of about 1 anyway, and the clamp lowers that of the raw weight
beside its others: they are larger parts of the normalised weight then.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.parallel import sharding
from biggan_jax.training import matrices

Form = Literal["value", "ratio"]
BLOCK = 64  # singular vectors found at once: all of a weight of as many rows or columns
ROUNDS = 8  # of two iterations each, for larger weights: within 3e-5 for 512 x 1000 Gaussians


@jax.named_scope("sigma_clamp")
def clamp(
    params: Any,
    limit: float,
    form: Form = "value",
    spectral: Any = None,
    exempt: frozenset[str] = frozenset(),
) -> Any:
    """Lowers the largest singular values of every weight, and changes nothing else of it.

    W - max(0, sigma_0 - sigma_clamp) u_0 v_0^T, with sigma_clamp = r sigma_1 as a ratio. Differs
    from the paper for a value: the same is taken from all singular values above it (`BLOCK` of them
    at most in one update), since with the first alone the second would stand above the value.

    Args:
      params: a tree of weights; leaves with fewer than 2 axes (biases, gains) are not clamped.
      limit: sigma_reg > 0, or the ratio r >= 1, which a weight of one row or column cannot exceed.
      form: `value` or `ratio`.
      spectral: the collection of spectral norm's vectors, with whose u the search starts; a layer
        may lack it.
      exempt: names of modules whose weights stay, at any depth.

    Returns:
      A tree like `params`.

    References:
      Brock et al. 2019, Large Scale GAN Training, section 4.1 and equation 4.
    """

    def clamped(path: tuple, weight: jax.Array) -> jax.Array:
        if not matrices.applies(path, weight, tuple(exempt)):
            return weight
        matrix = matrices.as_matrix(path, weight)
        u = _spectral_vector(spectral or {}, path)
        return matrices.from_matrix(path, clamp_matrix(matrix, limit, form, u), weight)

    return jax.tree_util.tree_map_with_path(clamped, params)


def clamp_matrix(
    matrix: jax.Array, limit: float, form: Form = "value", u: jax.Array | None = None
) -> jax.Array:
    """`clamp` of one matrix.

    Args:
      matrix: [out, rest], at least float32.
      limit, form: as `clamp` takes them.
      u: an estimate of the first left singular vector, [out].

    Returns:
      A contraction times the matrix: however well the vectors are found, no singular value grows.
    """
    out, rest = matrix.shape
    if out > rest:  # fewer and shorter vectors from the other side
        v = None if u is None else matrices.matmul(u, matrix)
        return clamp_matrix(matrix.T, limit, form, v).T
    if form == "ratio" and out == 1:
        return matrix
    left, sigma, rows = _leading(matrix, u)
    if form == "value":
        sigma_clamp = jnp.full_like(sigma, limit)
    else:
        sigma_clamp = sigma.at[0].set(jnp.minimum(sigma[0], limit * sigma[1]))
    safe = jnp.maximum(sigma, jnp.finfo(sigma.dtype).tiny)
    share = jnp.where(sigma > sigma_clamp, 1.0 - sigma_clamp / safe, 0.0)
    return matrix - matrices.matmul(left, share[:, None] * rows)


def after_update(
    params: Any,
    bound: float | None,
    form: Form,
    spectral: Any,
    frozen: frozenset[str],
    mesh: Mesh,
) -> Any:
    """`clamp` of the raw weights that an update has moved, gathered for it; None clamps nothing."""
    if bound is None:
        return params
    params = clamp(sharding.gather_weights(params, mesh), bound, form, spectral, frozen)
    return sharding.scatter_weights(params, mesh)


def _leading(matrix: jax.Array, u: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u_i [out, k], sigma_i [k] from the largest, sigma_i v_i^T [k, rest]) by block iteration."""
    out, projected, basis = len(matrix), matrix, None
    if out > BLOCK:
        basis = jax.random.normal(jax.random.key(0), (out, BLOCK), matrix.dtype)
        if u is not None:
            basis = basis.at[:, 0].set(u.astype(matrix.dtype))

        def iterate(_, basis: jax.Array) -> jax.Array:
            # Twice: what two lose to rounding lies below 1/50 of the first value.
            for _ in range(2):
                basis = matrices.matmul(matrix, matrices.matmul(matrix.T, basis))
            return jnp.linalg.qr(basis)[0]

        basis = jax.lax.fori_loop(0, ROUNDS, iterate, jnp.linalg.qr(basis)[0])
        projected = matrices.matmul(basis.T, matrix)
    # Rayleigh and Ritz: the best triplets within the basis.
    _, vectors = jnp.linalg.eigh(matrices.matmul(projected, projected.T))
    vectors = vectors[:, ::-1]
    rows = matrices.matmul(vectors.T, projected)
    sigma = jnp.linalg.norm(rows, axis=1)
    return vectors if basis is None else matrices.matmul(basis, vectors), sigma, rows


def _spectral_vector(spectral: Any, path: tuple) -> jax.Array | None:
    for name in matrices.names(path)[:-1]:
        spectral = spectral.get(name, {})
    return spectral.get("u")
