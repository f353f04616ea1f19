"""Adam with a constant or linearly decaying learning rate, for all of a player or part of it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def adam(section: ConfigDict, lr: float, updates_per_step: int = 1) -> optax.GradientTransformation:
    """Adam for one player.

    Args:
      section: the `optimizer` section of a config: `beta1`, `beta2`, `eps`, and `decay_start_step`
        and `decay_end_step` in generator updates, 0 <= start < end: the rate of update k (from 0)
        falls linearly from lr at k = start to 0 at k = end and stays there. Unset, it is constant.
      lr: learning rate before any decay.
      updates_per_step: updates of this player for one of the generator; all of them share the rate
        of the generator update that follows them.

    Returns:
      The optimizer; with a decay its state holds one more count.

    References:
      Miyato and Koyama 2018, section 6: the linear decay of SNGAN-projection.
    """
    rest = {"b1": section.beta1, "b2": section.beta2, "eps": section.eps}
    start, end = section.decay_start_step, section.decay_end_step
    if end is None:
        return optax.adam(lr, **rest)

    def rate(count: jax.Array) -> jax.Array:
        # The optimizer counts its own updates; the settings count the generator's. In integers:
        # optax.linear_schedule ends at -1e-8 of the rate once XLA has rearranged it.
        left = jnp.clip(end - count // updates_per_step, 0, end - start)
        return lr * (left / (end - start))

    return optax.adam(rate, **rest)


def freeze(
    optimizer: optax.GradientTransformation, names: frozenset[str]
) -> optax.GradientTransformation:
    """An optimizer that keeps no state for the top-level modules of these names.

    It passes their gradients on as updates, so these have to be zero (`stages.stop_gradient`).
    """
    if not names:
        return optimizer

    def trained(params: dict) -> dict[str, Any]:
        return {
            name: jax.tree.map(lambda _, on=name not in names: on, tree)
            for name, tree in params.items()
        }

    return optax.masked(optimizer, trained)


@jax.named_scope("optimizer")
def update(
    optimizer: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """(params, opt_state) after one optimizer update."""
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer count
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
