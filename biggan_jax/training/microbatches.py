"""Batches inside a step: real and fake side by side, and accumulation over microbatches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.parallel import sharding


def unroll(mesh: Mesh) -> bool:
    """Whether loops over updates and microbatches are unrolled.

    XLA's CPU backend runs a convolution inside a loop body without its fast kernels (more than 10
    times slower); elsewhere a loop keeps the program, and its compile time, small.
    """
    return mesh.devices.flat[0].platform == "cpu"


def accumulate(
    microbatch: Callable, params: Any, carry: Any, batch: Any, mesh: Mesh, parts: int
) -> tuple[Any, Any, Any]:
    """Runs `microbatch(carry, part) -> (carry, grads, metrics)` over the parts of a batch.

    Microbatch i is `x.reshape(B // n, n, ...)[:, i]`, so that the batch stays sharded where it
    lies.

    Args:
      microbatch: one forward and backward.
      params: what the gradients are of, sharded as the state keeps them.
      carry: what one microbatch hands to the next.
      batch: arrays [B, ...].
      mesh: over which B is sharded.
      parts: n, a divisor of B.

    Returns:
      (carry, grads, metrics), the last two averaged over the parts; grads sharded as params.
    """
    if parts == 1:
        carry, grads, metrics = microbatch(carry, sharding.constrain_batch(batch, mesh))
        return carry, sharding.scatter_weights(grads, mesh), metrics
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)
    batch = sharding.constrain_batch(jax.tree.map(split, batch), mesh, axis=1)

    def body(total, part):
        carry, grads = total
        carry, new, metrics = microbatch(carry, sharding.constrain_batch(part, mesh))
        new = sharding.scatter_weights(new, mesh)
        return (carry, jax.tree.map(jnp.add, grads, new)), metrics

    zeros = sharding.scatter_weights(jax.tree.map(jnp.zeros_like, params), mesh)
    (carry, grads), metrics = jax.lax.scan(body, (carry, zeros), batch, unroll=unroll(mesh))
    return carry, jax.tree.map(lambda g: g / parts, grads), jax.tree.map(jnp.mean, metrics)
