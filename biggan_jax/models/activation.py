"""ReLU behind a convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from biggan_jax.models import layout


def relu(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """`nn.relu`; on the GPUs of a mesh in a form that a convolution takes into its own kernel.

    Args:
      x: a convolution's output that nothing else reads.
      mesh: of the step.
    """
    if mesh is None or layout.platform(mesh) != "gpu":
        return nn.relu(x)
    return _of_output(x)


@jax.custom_jvp
def _of_output(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


@_of_output.defjvp
def _derivative(primals, tangents):
    # y is positive where x is. A gradient that reads y lets the convolution's kernel write y alone;
    # behind no barrier XLA makes x > 0 of it again.
    y = _of_output(*primals)
    passes = lax.stop_gradient(lax.optimization_barrier(y)) > 0
    return y, jnp.where(passes, tangents[0], jnp.zeros_like(y))
