"""Adam with its learning rate over training, for all of a player or part of it, and clipping."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from biggan_jax.config.resume import Change, rates_move


def adam(section: ConfigDict, lr: float, updates_per_step: int = 1) -> optax.GradientTransformation:
    """Adam for one player.

    Args:
      section: the `optimizer` section of a config: `beta1`, `beta2`, `eps`, and what `rate` reads.
      lr: learning rate before warm-up and decay.
      updates_per_step: updates of this player for one of the generator; all of them share the rate
        of the generator update that follows them.

    Returns:
      The optimizer; where the rate moves its state holds one more count, with a beta1 of 0 it holds
      no first moment.
    """
    scale = optax.scale_by_adam(section.beta1, section.beta2, section.eps)
    if section.beta1 == 0:
        scale = _without_first_moment(scale)
    of_count = rate(section, lr, updates_per_step) if rates_move(section) else lr
    return optax.chain(scale, optax.scale_by_learning_rate(of_count))


def rate(
    section: ConfigDict, lr: float, updates_per_step: int = 1
) -> Callable[[jax.Array], jax.Array]:
    """The learning rate of an update, as Optax takes a schedule.

    Args:
      section: the `optimizer` section of a config, in generator updates. `warmup_steps`: the rate
        of update k (from 0) is k / warmup_steps of what it would be, until it is all of it.
        `decay_start_step` and `decay_end_step`, 0 <= start < end: from lr at k = start it falls to
        0 at k = end and stays there, along a line or (`schedule='cosine'`) half a cosine; unset, or
        with `schedule='constant'`, it does not fall.
      lr: learning rate before warm-up and decay.
      updates_per_step: updates of this player for one of the generator.

    Returns:
      A function of the updates of this player that are done, an integer scalar.

    References:
      Miyato and Koyama 2018, section 6: the linear decay of SNGAN-projection; Loshchilov and Hutter
      2017, "SGDR", equation 5: the cosine; Goyal et al. 2017, section 2.2: the warm-up.
    """
    start, end, warmup = section.decay_start_step, section.decay_end_step, section.warmup_steps
    if section.schedule == "constant":
        start = end = None

    def share(k: jax.Array) -> jax.Array | float:
        if end is None:
            return 1.0
        if section.schedule == "cosine":
            return optax.cosine_decay_schedule(1.0, end - start)(jnp.maximum(k - start, 0))
        # In integers: optax.linear_schedule ends at -1e-8 of the rate once XLA has rearranged it.
        left = jnp.clip(end - k, 0, end - start)
        return left / (end - start)

    def of_count(count: jax.Array) -> jax.Array:
        # The optimizer counts its own updates; the settings count the generator's.
        k = count // updates_per_step
        now = lr * share(k)
        return now * (jnp.minimum(k, warmup) / warmup) if warmup else now

    return of_count


class SecondMoment(NamedTuple):
    """`optax.ScaleByAdamState` less its first moment `mu`; in checkpoints the names are the same.

    Attributes:
      count: updates done, int32 scalar.
      nu: moving average of the squared gradients, like the parameters.
    """

    count: jax.Array
    nu: Any


def _without_first_moment(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam of a beta1 of 0, whose first moment is the gradient itself, without keeping it.

    `optax.scale_by_rms` keeps none either, but multiplies by a reciprocal, which rounds otherwise.
    """

    def init(params: Any) -> SecondMoment:
        full = adam.init(params)
        return SecondMoment(full.count, full.nu)

    def update(grads: Any, state: SecondMoment, params: Any = None) -> tuple[Any, SecondMoment]:
        nothing = jax.tree.map(jnp.zeros_like, grads)
        full = optax.ScaleByAdamState(state.count, nothing, state.nu)
        updates, full = adam.update(grads, full, params)
        return updates, SecondMoment(full.count, full.nu)

    return optax.GradientTransformation(init, update)


def is_optional(name: str) -> bool:
    """Whether a checkpoint or a state may lack the array of this name, where the other has it.

    That is a first moment of Adam, which a beta1 of 0 does without (earlier versions kept it all
    the same), and the count of a rate that moves, which `at_step` supplies.

    Args:
      name: path in a state, joined by '/', such as 'generator/opt_state/0/mu/rgb/conv/kernel'.
    """
    parts = name.partition("/opt_state/")[2].split("/")
    return "mu" in parts or _is_count_of_rate(parts)


def at_step(opt_state: Any, updates: int) -> Any:
    """An optimizer state whose rate, where it moves, is that of a run of constant settings.

    Args:
      opt_state: of one player.
      updates: of this player that such a run would have done.

    Returns:
      The state with this count of the rate, which is the one that it has in any run whose settings
      have not changed. Adam's own count, of what its moments have seen, stays.
    """

    def renewed(path: tuple, leaf: jax.Array) -> jax.Array:
        if not _is_count_of_rate(jax.tree_util.keystr(path, simple=True, separator="/").split("/")):
            return leaf
        return jnp.full(leaf.shape, updates, leaf.dtype, device=leaf.sharding)

    return jax.tree_util.tree_map_with_path(renewed, opt_state)


def _is_count_of_rate(path: list[str]) -> bool:
    return path[-2:] == ["1", "count"]  # the chain of `adam`: Adam, then its rate


def remark(change: Change) -> str:
    """What a changed setting of a resumed run does to the state, to be put behind it."""
    if change.key == "optimizer.warmup_steps" and change.new:
        return " (counted from step 0 of the run)"
    if change.key != "optimizer.beta1" or 0 not in (change.old, change.new):
        return ""
    if change.new == 0:
        return " (Adam's first moments are dropped)"
    return " (Adam's first moments start at 0, unless the checkpoint holds some)"


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


def clip(
    optimizer: optax.GradientTransformation, norm: float | None
) -> optax.GradientTransformation:
    """An optimizer of gradients that are scaled down to a global norm; its state is the same.

    Args:
      optimizer: of one player.
      norm: the largest norm over all gradients of the player; None leaves them as they are.

    References:
      Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    if norm is None:
        return optimizer
    clipping = optax.clip_by_global_norm(norm)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # Not in a chain, which would give the moments other names in checkpoints.
        grads, _ = clipping.update(grads, optax.EmptyState())
        return optimizer.update(grads, state, params)

    return optax.GradientTransformation(optimizer.init, update)


@jax.named_scope("optimizer")
def update(
    optimizer: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """(params, opt_state) after one optimizer update."""
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer count
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
