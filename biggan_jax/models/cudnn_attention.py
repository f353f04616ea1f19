"""Attention whose map [N, Q, K] is never stored: cuDNN's kernels for NVIDIA GPUs.

References:
  Dao et al. 2022, "FlashAttention"; `jax.nn.dot_product_attention`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.models import dot_product_attention
from biggan_jax.models.dot_product_attention import by_device, split_over

Gradients = tuple[jax.Array, jax.Array, jax.Array]
_CHANNELS = 128  # of a head at most, forward and backward
_MULTIPLE = 8  # cuDNN takes heads of as many channels
_PIXELS = 256  # queries from which on the map costs more than the kernel's start
_CAPABILITY = 8  # Ampere
_cudnn = functools.partial(jax.nn.dot_product_attention, scale=1.0, implementation="cudnn")


def fits(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh) -> bool:
    """Whether `attend` takes arrays of these shapes, on the devices of this mesh."""
    if _capability(mesh) < _CAPABILITY or theta_NQD.dtype != jnp.bfloat16:
        return False
    if theta_NQD.shape[1] < _PIXELS or _channels(theta_NQD, g_NKV) > _CHANNELS:
        return False
    split = split_over(mesh)
    return split is None or len(theta_NQD) % split.size == 0


def attend(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh) -> jax.Array:
    """softmax(theta phi^T) g of bfloat16 arrays, without a stored map; twice differentiable.

    Args:
      theta_NQD, phi_NKD: queries and keys.
      g_NKV: values.
      mesh: over whose devices the examples are split, under jit or inside `jax.shard_map`.

    Returns:
      [N, Q, V] in the dtype of g.
    """
    return _attend(theta_NQD, phi_NKD, g_NKV, split_over(mesh))


def _capability(mesh: Mesh) -> int:
    """Generation of the mesh's NVIDIA GPUs, such as 9 for Hopper; 0 for other devices."""
    text = str(getattr(mesh.devices.flat[0], "compute_capability", ""))
    major = text.partition(".")[0]
    return int(major) if major.isdecimal() else 0


def _channels(theta_NQD: jax.Array, g_NKV: jax.Array) -> int:
    """Channels of a head: cuDNN wants as many of queries and keys as of values."""
    return -(-max(theta_NQD.shape[-1], g_NKV.shape[-1]) // _MULTIPLE) * _MULTIPLE


def _kernel(theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array) -> jax.Array:
    """One head of cuDNN's attention; channels of zeros change neither products nor sums."""
    channels = _channels(theta_NQD, g_NKV)

    def head(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, channels - x.shape[-1])))[:, :, None]

    found = _cudnn(*map(head, (theta_NQD, phi_NKD, g_NKV)))
    return found[:, :, 0, : g_NKV.shape[-1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(
    theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh | None
) -> jax.Array:
    return by_device(_kernel, mesh)(theta_NQD, phi_NKD, g_NKV)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend_with_sums(
    theta_NQD: jax.Array, phi_NKD: jax.Array, g_NKV: jax.Array, mesh: Mesh | None
) -> jax.Array:
    # The very call that `_gradients` begins with, so that the compiler keeps one of the two.
    def call(*arrays: jax.Array) -> jax.Array:
        return jax.vjp(_kernel, *arrays)[0]

    return by_device(call, mesh)(theta_NQD, phi_NKD, g_NKV)


def _attend_forward(theta_NQD, phi_NKD, g_NKV, mesh):
    saved = (theta_NQD, phi_NKD, g_NKV)
    return _attend_with_sums(*saved, mesh), saved


def _attend_backward(mesh, saved, gradient_NQV):
    return _gradients(*saved, gradient_NQV, mesh)


_attend.defvjp(_attend_forward, _attend_backward)
_attend_with_sums.defvjp(_attend_forward, _attend_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _gradients(
    theta_NQD: jax.Array,
    phi_NKD: jax.Array,
    g_NKV: jax.Array,
    gradient_NQV: jax.Array,
    mesh: Mesh | None,
) -> Gradients:
    """Gradients of queries, keys and values from that of the result.

    Their own derivative, which gradient penalties ask for, is that of plain JAX: cuDNN's has none.
    """

    def call(theta_NQD, phi_NKD, g_NKV, gradient_NQV) -> Gradients:
        return jax.vjp(_kernel, theta_NQD, phi_NKD, g_NKV)[1](gradient_NQV)

    return by_device(call, mesh)(theta_NQD, phi_NKD, g_NKV, gradient_NQV)


def _gradients_forward(theta_NQD, phi_NKD, g_NKV, gradient_NQV, mesh):
    saved = (theta_NQD, phi_NKD, g_NKV, gradient_NQV)
    return _gradients(*saved, mesh), saved


def _gradients_backward(mesh, saved, cotangents):
    return dot_product_attention.gradients_of_gradients(saved, cotangents)


_gradients.defvjp(_gradients_forward, _gradients_backward)
