"""Dot-product attention in plain JAX: logits in float32, one stored map in bfloat16.

Beside it, what the kernels that store no map share.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def logits(theta_NQD: jax.Array, phi_NKD: jax.Array) -> jax.Array:
    """Every query times every key, [N, Q, K], at least float32.

    A logit of 30 rounded to bfloat16 is off by up to 1/16: 6% of its weight after the softmax. So
    the products of bfloat16 numbers are kept as they are summed, in float32.
    """
    wide = np.promote_types(theta_NQD.dtype, np.float32)
    return jnp.einsum("nqd,nkd->nqk", theta_NQD, phi_NKD, preferred_element_type=wide)


def attend(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKD: jax.Array) -> jax.Array:
    """softmax(theta phi^T) g of bfloat16 arrays, whose float32 logits are never stored.

    Arrays [N, Q, K] are what attention costs on an accelerator. One is written, in bfloat16: the
    exponentials, which come out of the product that makes the logits. What is subtracted before
    cancels, so that rounded logits are good enough to find it. A column of ones beside g sums the
    exponentials up, and dividing [N, Q, D] normalises.

    Args:
      theta_NQD, phi_NKD: queries and keys.
      g_NKD: values.

    Returns:
      [N, Q, D] in the dtype of g.
    """
    wide = np.promote_types(g_NKD.dtype, np.float32)
    rounded = lax.stop_gradient(jnp.einsum("nqd,nkd->nqk", theta_NQD, phi_NKD))
    largest_NQ = rounded.max(-1).astype(wide)
    ones = jnp.ones((*g_NKD.shape[:-1], 1), g_NKD.dtype)
    sums = jnp.einsum(
        "nqk,nkd->nqd",
        _exponentials(theta_NQD, phi_NKD, largest_NQ),
        jnp.concatenate([g_NKD, ones], axis=-1),
        preferred_element_type=wide,
    )
    return (sums[..., :-1] / sums[..., -1:]).astype(g_NKD.dtype)


@jax.custom_vjp
def _exponentials(theta_NQD: jax.Array, phi_NKD: jax.Array, largest_NQ: jax.Array) -> jax.Array:
    """exp(logits - largest) [N, Q, K] in the dtype of theta, for a constant `largest`.

    The gradient goes through the rounded exponentials and is rounded before it is multiplied:
    autodiff would keep both in float32.
    """
    shifted = logits(theta_NQD, phi_NKD) - largest_NQ[..., None]
    return jnp.exp(shifted).astype(theta_NQD.dtype)


def _exponentials_forward(theta_NQD: jax.Array, phi_NKD: jax.Array, largest_NQ: jax.Array):
    weights_NQK = _exponentials(theta_NQD, phi_NKD, largest_NQ)
    return weights_NQK, (theta_NQD, phi_NKD, largest_NQ, weights_NQK)


def _exponentials_backward(saved: tuple[jax.Array, ...], gradient_NQK: jax.Array):
    theta_NQD, phi_NKD, largest_NQ, weights_NQK = saved
    dtype, wide = weights_NQK.dtype, largest_NQ.dtype
    of_logits = (gradient_NQK.astype(wide) * weights_NQK.astype(wide)).astype(dtype)
    of_theta = jnp.einsum("nqk,nkd->nqd", of_logits, phi_NKD, preferred_element_type=wide)
    of_phi = jnp.einsum("nqk,nqd->nkd", of_logits, theta_NQD, preferred_element_type=wide)
    return of_theta.astype(dtype), of_phi.astype(dtype), jnp.zeros_like(largest_NQ)


_exponentials.defvjp(_exponentials_forward, _exponentials_backward)


def gradients_of_gradients(
    saved: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """What flows through the gradients of `attend`, for kernels without a second derivative.

    Args:
      saved: queries, keys, values and the gradient of the result.
      cotangents: of the gradients of queries, keys and values.

    Returns:
      The cotangents of what was saved.
    """

    def gradients(theta_NQD, phi_NKD, g_NKV, gradient_NQV):
        return jax.vjp(attend, theta_NQD, phi_NKD, g_NKV)[1](gradient_NQV)

    return jax.vjp(gradients, *saved)[1](cotangents)


def split_over(mesh: Mesh) -> Mesh | None:
    """The mesh over which the examples at hand are split; None inside `jax.shard_map`.

    There they are those of one device.
    """
    return None if jax.sharding.get_abstract_mesh().manual_axes else mesh


def by_device(call: Callable, mesh: Mesh | None) -> Callable:
    """`call` on each device's own examples: the compiler cannot split a kernel."""
    if mesh is None:
        return call
    specs = P(mesh.axis_names)
    return jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False)
