"""Attention on CPUs whose map [N, Q, K] is never stored: in blocks, made again for gradients.

A block of the map stays in the caches; a whole one is written to memory and read again by every
product and every part of the softmax. Blocks lie as [K, Q]: products with few channels on one side
are fastest so.

References:
  Dao et al. 2022, "FlashAttention", algorithms 1 and 4; here every block has all keys.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from biggan_jax.models import layout
from biggan_jax.models.dot_product_attention import by_device, split_over

# Numbers of the map of a batch from which on blocks are faster. Below, a stored map stays in the
# caches too, and is not made twice.
_MAP = 2**22
# Numbers of a block: of one image at most, of several images together at most.
_OF_ONE, _OF_SEVERAL = 2**19, 2**18


def fits(theta_NQD: jax.Array, phi_NKD: jax.Array, mesh: Mesh) -> bool:
    """Whether `attend` takes queries and keys of these shapes and is faster for them.

    The shapes decide, not the processor: a run resumed on another one keeps its rounding.
    """
    if layout.platform(mesh) != "cpu" or not isinstance(theta_NQD.shape[0], int):
        return False
    n, queries, _ = theta_NQD.shape
    split = split_over(mesh)
    return n * queries * phi_NKD.shape[1] >= _MAP and (split is None or n % split.size == 0)


def attend(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh) -> jax.Array:
    """softmax(theta phi^T) g of arrays of one dtype, at least float32; twice differentiable.

    Args:
      theta_NQD, phi_NKD: queries and keys.
      g_NKV: values.
      mesh: over whose devices the examples are split, under jit or inside `jax.shard_map`.

    Returns:
      [N, Q, V].
    """
    return by_device(_attend, split_over(mesh))(theta_NQD, phi_NKD, g_NKV)


class _Blocks:
    """How the map of a batch is cut: parts of the queries of an image, several parts to a block.

    Blocks of queries are [blocks, B, q, ...] and those of keys [blocks, B, K, ...], B parts of q
    queries each; the parts of an image lie one after the other.
    """

    def __init__(self, shape_NQ: tuple[int, int], keys: int):
        n, queries = shape_NQ
        cuts = (p for p in range(1, queries + 1) if queries % p == 0)
        self.parts = next((p for p in cuts if queries // p * keys <= _OF_ONE), queries)
        self.queries, self.keys = queries // self.parts, keys
        most = max(_OF_SEVERAL // (self.queries * keys), 1)
        together = max(b for b in range(1, most + 1) if n * self.parts % b == 0)
        self.leading = (n * self.parts // together, together)

    def of_queries(self, x: jax.Array) -> jax.Array:
        """[N, Q, ...] in blocks."""
        return x.reshape(*self.leading, self.queries, *x.shape[2:])

    def of_keys(self, x: jax.Array) -> jax.Array:
        """[N, K, ...] in blocks, once for each part of the queries."""
        return jnp.repeat(x, self.parts, axis=0).reshape(*self.leading, *x.shape[1:])

    def joined(self, x: jax.Array) -> jax.Array:
        """What was made for blocks of queries, as [N, Q, ...]."""
        return x.reshape(-1, self.parts * self.queries, *x.shape[3:])

    def added(self, x: jax.Array) -> jax.Array:
        """What every part of the queries gives to keys or values, added up to [N, K, ...]."""
        return x.reshape(-1, self.parts, *x.shape[2:]).sum(1)


def _columns(x: jax.Array) -> jax.Array:
    return x.swapaxes(-1, -2)


def _with_ones(g_NKV: jax.Array) -> jax.Array:
    """Beside the values a column of ones, whose product with weights is their sum."""
    return jnp.concatenate([g_NKV, jnp.ones_like(g_NKV[..., :1])], axis=-1)


def _outer(keys_BDK: jax.Array, queries_BDQ: jax.Array) -> jax.Array:
    return jnp.einsum("bdk,bdq->bkq", keys_BDK, queries_BDQ)


def _of_queries(keys_BDK: jax.Array, map_BKQ: jax.Array) -> jax.Array:
    return jnp.einsum("bdk,bkq->bdq", keys_BDK, map_BKQ)


def _of_keys(map_BKQ: jax.Array, queries_BQD: jax.Array) -> jax.Array:
    return jnp.einsum("bkq,bqd->bkd", map_BKQ, queries_BQD)


@jax.custom_vjp
def _attend(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array) -> jax.Array:
    return _forward(theta_NQD, phi_NKD, g_NKV)[0]


def _forward(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array):
    blocks = _Blocks(theta_NQD.shape[:2], phi_NKD.shape[1])

    def of_block(arrays):
        theta_BDQ, phi_BDK, values_BVK = arrays
        logits_BKQ = _outer(phi_BDK, theta_BDQ)
        largest_BQ = lax.stop_gradient(logits_BKQ.max(1))  # cancels
        return _of_queries(values_BVK, jnp.exp(logits_BKQ - largest_BQ[:, None])), largest_BQ

    theta = _columns(blocks.of_queries(theta_NQD))
    phi, values = (_columns(blocks.of_keys(x)) for x in (phi_NKD, _with_ones(g_NKV)))
    sums, largest = lax.map(of_block, (theta, phi, values))
    sums_NQV, largest_NQ = blocks.joined(_columns(sums)), blocks.joined(largest)
    total_NQ1 = sums_NQV[..., -1:]
    o_NQV = sums_NQV[..., :-1] / total_NQ1
    return o_NQV, (theta_NQD, phi_NKD, g_NKV, largest_NQ, total_NQ1, o_NQV)


def _backward(saved: tuple[jax.Array, ...], gradient_NQV: jax.Array):
    theta_NQD, phi_NKD, g_NKV, largest_NQ, total_NQ1, o_NQV = saved
    blocks = _Blocks(theta_NQD.shape[:2], phi_NKD.shape[1])

    def of_block(arrays):
        theta_BQD, theta_BDQ, phi_BDK, values_BVK, largest_BQ, scaled_BQV, both_BVQ = arrays
        weights_BKQ = jnp.exp(_outer(phi_BDK, theta_BDQ) - largest_BQ[:, None])
        of_logits_BKQ = weights_BKQ * _outer(values_BVK, both_BVQ)
        return (
            _of_queries(phi_BDK, of_logits_BKQ),
            _of_keys(of_logits_BKQ, theta_BQD),
            _of_keys(weights_BKQ, scaled_BQV),
        )

    # What is the same for all keys of a query is taken out of the map: the gradient of its logits
    # is the weights times one product, of values and ones with this.
    scaled_NQV = gradient_NQV / total_NQ1
    inner_NQ1 = (scaled_NQV * o_NQV).sum(-1, keepdims=True)
    both_NQV = jnp.concatenate([scaled_NQV, -inner_NQ1], axis=-1)
    theta, largest, scaled, both = map(
        blocks.of_queries, (theta_NQD, largest_NQ, scaled_NQV, both_NQV)
    )
    # Turned here, not in the loop, where it takes as long as the products.
    phi, values = (_columns(blocks.of_keys(x)) for x in (phi_NKD, _with_ones(g_NKV)))
    arrays = (theta, _columns(theta), phi, values, largest, scaled, _columns(both))
    of_theta, of_phi, of_g = lax.map(of_block, arrays)
    return blocks.joined(_columns(of_theta)), blocks.added(of_phi), blocks.added(of_g)


_attend.defvjp(_forward, _backward)
