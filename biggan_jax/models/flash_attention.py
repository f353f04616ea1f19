"""Attention whose map [N, Q, K] is never stored: Pallas kernels for TPUs.

A block of queries meets all keys at once in on-chip memory, where its part of the map is made, used
and forgotten; the backward pass makes it again. Inside the kernels arrays are [N, channels,
pixels]: there are a few dozen channels, and the last axis of a TPU's tile has 128 places to fill.

References:
  Dao et al. 2022, "FlashAttention", algorithms 1 and 4. All keys fit at once here, so nothing is
  rescaled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh

from biggan_jax.models import dot_product_attention
from biggan_jax.models.dot_product_attention import by_device, split_over

Gradients = tuple[jax.Array, jax.Array, jax.Array]
_LANES = 128
# Bytes: of one part of the map in float32, of which a backward block holds about four, and of all
# that lies on the chip at once.
_MAP_BYTES = 2 * 2**20
_VMEM_BYTES = 14 * 2**20


def fits(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh) -> bool:
    """Whether `attend` takes arrays of these shapes, on the devices of this mesh."""
    block = block_of_queries(theta_NQD.shape, phi_NKD.shape, g_NKV.shape)
    split = split_over(mesh)
    return block is not None and (split is None or len(theta_NQD) % split.size == 0)


def attend(
    theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh, interpret: bool = False
) -> jax.Array:
    """softmax(theta phi^T) g of bfloat16 arrays, without a stored map; twice differentiable.

    Args:
      theta_NQD, phi_NKD: queries and keys.
      g_NKV: values.
      mesh: over whose devices the examples are split, under jit or inside `jax.shard_map`.
      interpret: run on any device, slowly.

    Returns:
      [N, Q, V] in the dtype of g.
    """
    return _attend(theta_NQD, phi_NKD, g_NKV, split_over(mesh), interpret)


def block_of_queries(
    theta: tuple[int, ...], phi: tuple[int, ...], g: tuple[int, ...]
) -> int | None:
    """Queries of one block, or None where the kernel does not fit these shapes.

    Args:
      theta, phi, g: shapes [N, Q, D], [N, K, D] and [N, K, V].
    """
    queries, keys, channels = theta[1], phi[1], theta[2] + g[2]
    if queries % _LANES or keys % _LANES:
        return None  # so small that its map costs little
    for size in (1024, 512, 256, _LANES):
        # In bfloat16 and twice, for the next block to arrive: inputs and gradients; the sums of the
        # gradients of keys and values in float32.
        arrays = channels * (keys * (2 * 2 * 2 + 4) + size * 2 * 2 * 2)
        part = 4 * keys * size
        if queries % size == 0 and part <= _MAP_BYTES and arrays + 4 * part <= _VMEM_BYTES:
            return size
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(
    theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh | None, interpret: bool
) -> jax.Array:
    block = block_of_queries(theta_NQD.shape, phi_NKD.shape, g_NKV.shape)

    def call(theta_NDQ: jax.Array, phi_NDK: jax.Array, g_NVK: jax.Array) -> jax.Array:
        operands, size = (theta_NDQ, phi_NDK, g_NVK), theta_NDQ.shape[2]
        result = jax.ShapeDtypeStruct((len(g_NVK), g_NVK.shape[1], size), g_NVK.dtype)
        return pl.pallas_call(
            _forward_kernel,
            result,
            grid=(len(g_NVK), size // block),
            in_specs=[_queries(theta_NDQ, block), _keys(phi_NDK), _keys(g_NVK)],
            out_specs=_queries(result, block),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            cost_estimate=_cost(operands, [result], products=(1, 1)),
            interpret=interpret,
            name="attention_forward",
        )(*operands)

    arrays = map(_channels_first, (theta_NQD, phi_NKD, g_NKV))
    return _channels_first(by_device(call, mesh)(*arrays))


def _attend_forward(theta_NQD, phi_NKD, g_NKV, mesh, interpret):
    return _attend(theta_NQD, phi_NKD, g_NKV, mesh, interpret), (theta_NQD, phi_NKD, g_NKV)


def _attend_backward(mesh, interpret, saved, gradient_NQV):
    return _gradients(*saved, gradient_NQV, mesh, interpret)


_attend.defvjp(_attend_forward, _attend_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _gradients(
    theta_NQD: jax.Array,
    phi_NKD: jax.Array,
    g_NKV: jax.Array,
    gradient_NQV: jax.Array,
    mesh: Mesh | None,
    interpret: bool,
) -> Gradients:
    """Gradients of queries, keys and values from that of the result.

    Their own derivative, which gradient penalties ask for, is that of plain JAX.
    """
    block = block_of_queries(theta_NQD.shape, phi_NKD.shape, g_NKV.shape)

    def call(theta_NDQ, phi_NDK, g_NVK, gradient_NVQ) -> Gradients:
        operands = (theta_NDQ, phi_NDK, g_NVK, gradient_NVQ)
        results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands[:3]]
        wide = np.promote_types(g_NVK.dtype, np.float32)
        return pl.pallas_call(
            _backward_kernel,
            results,
            grid=(len(g_NVK), theta_NDQ.shape[2] // block),
            in_specs=[
                _queries(theta_NDQ, block),
                _keys(phi_NDK),
                _keys(g_NVK),
                _queries(gradient_NVQ, block),
            ],
            out_specs=[_queries(theta_NDQ, block), _keys(phi_NDK), _keys(g_NVK)],
            scratch_shapes=[pltpu.VMEM(x.shape[1:], wide) for x in (phi_NDK, g_NVK)],
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            cost_estimate=_cost(operands, results, products=(3, 2)),
            interpret=interpret,
            name="attention_backward",
        )(*operands)

    arrays = map(_channels_first, (theta_NQD, phi_NKD, g_NKV, gradient_NQV))
    return tuple(map(_channels_first, by_device(call, mesh)(*arrays)))


def _gradients_forward(theta_NQD, phi_NKD, g_NKV, gradient_NQV, mesh, interpret):
    saved = (theta_NQD, phi_NKD, g_NKV, gradient_NQV)
    return _gradients(*saved, mesh, interpret), saved


def _gradients_backward(mesh, interpret, saved, cotangents):
    return dot_product_attention.gradients_of_gradients(saved, cotangents)


_gradients.defvjp(_gradients_forward, _gradients_backward)


def _forward_kernel(theta_ref, phi_ref, g_ref, out_ref) -> None:
    """One block of queries: [D, q], [D, K], [V, K] -> [V, q]."""
    weights_Kq, sums_q = _exponentials(theta_ref[...], phi_ref[...])
    # Rounded before they are summed: the weights of a query add up to 1 as they are multiplied.
    weights_Kq = weights_Kq.astype(g_ref.dtype)
    sums_q = weights_Kq.astype(sums_q.dtype).sum(0, keepdims=True)
    out_Vq = _product(g_ref[...], weights_Kq, (1, 0))
    out_ref[...] = (out_Vq / sums_q).astype(out_ref.dtype)


def _backward_kernel(
    theta_ref, phi_ref, g_ref, gradient_ref, d_theta_ref, d_phi_ref, d_g_ref, phi_sum, g_sum
) -> None:
    """One block of queries; the gradients of keys and values are summed up over the blocks."""
    theta_Dq, phi_DK, g_VK = theta_ref[...], phi_ref[...], g_ref[...]
    gradient_Vq = gradient_ref[...]
    weights_Kq, sums_q = _exponentials(theta_Dq, phi_DK)
    weights_Kq = weights_Kq / sums_q
    of_weights_Kq = _product(g_VK, gradient_Vq, (0, 0))
    mean_q = (weights_Kq * of_weights_Kq).sum(0, keepdims=True)
    of_logits_Kq = (weights_Kq * (of_weights_Kq - mean_q)).astype(theta_Dq.dtype)

    @pl.when(pl.program_id(1) == 0)
    def _():
        phi_sum[...] = jnp.zeros_like(phi_sum)
        g_sum[...] = jnp.zeros_like(g_sum)

    d_theta_ref[...] = _product(phi_DK, of_logits_Kq, (1, 0)).astype(d_theta_ref.dtype)
    phi_sum[...] += _product(theta_Dq, of_logits_Kq, (1, 1))
    g_sum[...] += _product(gradient_Vq, weights_Kq.astype(g_VK.dtype), (1, 1))

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _():
        d_phi_ref[...] = phi_sum[...].astype(d_phi_ref.dtype)
        d_g_ref[...] = g_sum[...].astype(d_g_ref.dtype)


def _exponentials(theta_Dq: jax.Array, phi_DK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(exp(logits - largest) [K, q], their sums [1, q]), at least float32."""
    logits_Kq = _product(phi_DK, theta_Dq, (0, 0))
    weights_Kq = jnp.exp(logits_Kq - logits_Kq.max(0, keepdims=True))
    return weights_Kq, weights_Kq.sum(0, keepdims=True)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The product of two matrices over one axis of each, summed at least in float32."""
    wide = np.promote_types(a.dtype, np.float32)
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=wide)


def _queries(x: jax.Array | jax.ShapeDtypeStruct, block: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, x.shape[1], block), lambda n, q: (n, 0, q))


def _keys(x: jax.Array) -> pl.BlockSpec:
    # The same block for all queries of an example: it is read once.
    return pl.BlockSpec((None, *x.shape[1:]), lambda n, q: (n, 0, 0))


def _channels_first(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2)


def _cost(operands, results, products: tuple[int, int]) -> pl.CostEstimate:
    """What the compiler cannot see: FLOPs of products over D and over V channels, and bytes."""
    theta, phi, g = operands[:3]
    (n, d, queries), keys = theta.shape, phi.shape[2]
    size = n * queries * keys
    return pl.CostEstimate(
        flops=2 * size * (products[0] * d + products[1] * g.shape[1]),
        transcendentals=size,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*operands, *results)),
    )
