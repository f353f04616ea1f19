"""Batches inside a step: real and fake side by side, and accumulation over microbatches."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
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


class ByDevice:
    """A module that is applied on each device to its own part of the batch, with its own weights.

    Attributes:
      module: unbound.
      mesh: over which the batch is split.
    """

    def __init__(self, module: nn.Module, mesh: Mesh):
        self.module, self.mesh = module, mesh

    def apply(
        self, variables: dict[str, Any], *batch: jax.Array, mutable=False, rngs=None, **options
    ) -> Any:
        """As `nn.Module.apply`, for `sharding.copies` of the parameters."""

        def own(params, shared, *batch):
            others, rngs = shared
            variables = {"params": params, **others}
            out = self.module.apply(variables, *batch, mutable=mutable, rngs=rngs, **options)
            return out if mutable else (out, {})

        params, others = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        out, new = sharding.by_device(own, self.mesh)(params, (others, rngs), *batch)
        return (out, new) if mutable else out


def apart(module: nn.Module, params: Any, mesh: Mesh, parts: int) -> tuple[Any, Any]:
    """What to differentiate so that gradients are summed over the devices once an update.

    Left to itself XLA sums those of every microbatch. Losses and draws still see the whole batch.

    Args:
      module: of the player that is updated.
      params: its whole parameters.
      mesh: over which the batch is split.
      parts: microbatches of an update.

    Returns:
      (module, params) to be applied and differentiated in the microbatches of `accumulate`.
    """
    if parts == 1 or mesh.size == 1:
        return module, params
    return ByDevice(module, mesh), sharding.copies(params, mesh)


def accumulate(
    microbatch: Callable, params: Any, carry: Any, batch: Any, mesh: Mesh, parts: int
) -> tuple[Any, Any, Any]:
    """Runs `microbatch(carry, part) -> (carry, grads, metrics)` over the parts of a batch.

    Microbatch i is `x.reshape(B // n, n, ...)[:, i]`, so that the batch stays sharded where it
    lies.

    Args:
      microbatch: one forward and backward, of what `apart` gave.
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

    zeros = jax.tree.map(jnp.zeros_like, params)
    if mesh.size > 1:
        zeros = sharding.copies(zeros, mesh)

    def body(total, part):
        carry, grads = total
        carry, new, metrics = microbatch(carry, sharding.constrain_batch(part, mesh))
        return (carry, jax.tree.map(jnp.add, grads, new)), metrics

    (carry, grads), metrics = jax.lax.scan(body, (carry, zeros), batch, unroll=unroll(mesh))
    grads = grads if mesh.size == 1 else sharding.sum_copies(grads, mesh)
    return carry, jax.tree.map(lambda g: g / parts, grads), jax.tree.map(jnp.mean, metrics)
