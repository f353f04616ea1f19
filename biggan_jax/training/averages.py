"""Averages of G's weights beside that of `ema.decay`, to be chosen from after training.

Each is told by a name: `decay_0.999` of `ema.decays`, `profile_0.05` of `ema.profiles`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.config.averages import DECAY, PROFILE, names
from biggan_jax.config.resume import Change

Tree = Any


def gamma(sigma_rel: float) -> float:
    """The exponent of the power function whose average has a relative width.

    Args:
      sigma_rel: standard deviation of the times that are averaged over, as a share of the training
        time so far; more than 0, up to 0.28.

    Returns:
      gamma: the weights of time t are averaged in proportion to t ** gamma.

    References:
      Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
      equation 2 and appendix C.1: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
    """
    t = sigma_rel**-2.0
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def weights(ema: Mapping[str, Any], step: jax.Array) -> dict[str, jax.Array]:
    """The weight of G as it is now in each of the averages.

    Args:
      ema: that section of the config.
      step: generator updates with this one, at least 1, integer scalar.

    Returns:
      By name, float32 scalars: 1 - decay from `ema.start_step` on and 1 before, and of profiles
      1 - beta of Karras et al. 2024, equation 1, beta = (1 - 1 / step) ** (gamma + 1).
    """
    found = {}
    for name in names(ema):
        kind, _, value = name.partition("_")
        if kind == DECAY:
            weight = jnp.float32(1.0 - float(value))  # in float64: 1 - 0.99999 in float32 is off
            found[name] = jnp.where(step < ema["start_step"], jnp.float32(1.0), weight)
        elif kind == PROFILE:
            # Of late steps 1 - beta is a millionth, which a difference from 1 would not resolve.
            log_beta = (gamma(float(value)) + 1.0) * jnp.log1p(-1.0 / step.astype(jnp.float32))
            found[name] = -jnp.expm1(log_beta)
    return found


@jax.named_scope("ema")
def update(
    averages: dict[str, Any], new: dict[str, Tree], ema: Mapping[str, Any], step: jax.Array
) -> dict[str, Any]:
    """The averages after an update of G.

    Args:
      averages: by name, each a `state.Average`.
      new: variables of G.
      ema, step: see `weights`.

    Returns:
      The averages; {} of none.
    """
    if not averages:
        return averages
    return {
        name: averages[name].replace(**_mixed(averages[name].variables, new, weight))
        for name, weight in weights(ema, step).items()
    }


def _mixed(old: dict[str, Tree], new: dict[str, Tree], weight: jax.Array) -> dict[str, Tree]:
    def mix(a: jax.Array, b: jax.Array) -> jax.Array:
        # Not beta * a + weight * b: the sum of two rounded weights drifts over 1e6 steps.
        moved = a + weight.astype(a.dtype) * (b - a)
        return jnp.where(weight >= 1, b, moved)  # a copy to the bit

    return jax.tree.map(mix, old, new)


def remark(change: Change) -> str:
    """What a changed setting of a resumed run does to the averages, to be put behind it."""
    if change.key not in ("ema.decays", "ema.profiles"):
        return ""
    added = [value for value in change.new if value not in (change.old or ())]
    return f" ({', '.join(map(str, added))}: from a copy of G at this step)" if added else ""
