"""What holds the probability of augmentation: how far D overfits, by one of two measures.

`signs` is r_t, the mean sign of D's logits of real images. `held_out` is r_v, where D judges images
that it was not trained on between training and generated ones; `held_out` (the module) has D judge
them. Sums over the updates since the last adjustment are scalars of `GANState.objective`.

References:
  Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3.1,
  equation 1, and the authors' code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from biggan_jax.training.logit_terms import LogitTerm, State

SIGNS_TARGET, HELD_OUT_TARGET = 0.6, 0.5  # of r_t and of r_v (Karras et al. 2020)
P, SIGNS, IMAGES = "augment_probability", "augment_signs", "augment_images"
REAL, FAKE, JUDGED, R_V = "augment_real", "augment_fake", "augment_judged", "augment_r_v"
_LEAST = 1e-8  # between training and generated images, as in the authors' code
# The logit in the middle between what a loss wants of real and of generated images. Other losses
# compare the two: there an image is judged real where its logit is above that of a generated one.
_MIDDLE = {"hinge": 0.0, "non_saturating": 0.0, "least_squares": 0.5}


def signs(loss: str, real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """[B], 1 where D takes a real image for a real one, -1 where it does not."""
    middle = _MIDDLE.get(loss, fake_logits)
    return jax.lax.stop_gradient(jnp.sign(real_logits - middle))


def watched(loss: str, p: float) -> LogitTerm:
    """The term of a fixed probability: metrics alone."""

    def of_logits(real_logits, fake_logits, state, update):
        r_t = signs(loss, real_logits, fake_logits).mean()
        return None, {"augment/probability": jnp.asarray(p, r_t.dtype), "augment/r_t": r_t}, state

    return LogitTerm(of_logits)


def by_signs(section: ConfigDict, loss: str) -> LogitTerm:
    """The probability as a state, adjusted every few D updates by r_t."""
    target = SIGNS_TARGET if section.target is None else section.target

    def of_logits(real_logits, fake_logits, state, update):
        found = signs(loss, real_logits, fake_logits)
        seen = {SIGNS: state[SIGNS] + found.sum(), IMAGES: state[IMAGES] + len(found)}
        metrics = {"augment/probability": state[P], "augment/r_t": seen[SIGNS] / seen[IMAGES]}
        return None, metrics, state | seen

    def settle(state: State, update: jax.Array) -> State:
        due = (update + 1) % section.every_steps == 0
        # Compared without a quotient: as many images as their signs sum up to, if r_t were 1.
        direction = jnp.sign(state[SIGNS] - target * state[IMAGES])
        p = jnp.clip(state[P] + direction * state[IMAGES] / section.ramp_images, 0, 1)
        zero = jnp.zeros_like(p)
        new = {P: p, SIGNS: zero, IMAGES: zero}
        return state | {name: jnp.where(due, value, state[name]) for name, value in new.items()}

    return LogitTerm(of_logits, {P: section.probability or 0.0, SIGNS: 0.0, IMAGES: 0.0}, settle)


def by_held_out(section: ConfigDict, loss: str) -> LogitTerm:
    """The probability as a state, which `adjusted` moves between two steps; r_v as last measured.

    r_t is among the metrics too, that of the update.
    """

    def of_logits(real_logits, fake_logits, state, update):
        real, fake = map(jax.lax.stop_gradient, (real_logits, fake_logits))
        seen = {
            REAL: state[REAL] + real.sum(),
            FAKE: state[FAKE] + fake.sum(),
            JUDGED: state[JUDGED] + len(real),
        }
        metrics = {
            "augment/probability": state[P],
            "augment/r_v": state[R_V],
            "augment/r_t": signs(loss, real, fake).mean(),
        }
        return None, metrics, state | seen

    kept = {P: section.probability or 0.0, REAL: 0.0, FAKE: 0.0, JUDGED: 0.0, R_V: 0.0}
    return LogitTerm(of_logits, kept)


def ratio(real: jax.Array, held_out: jax.Array, fake: jax.Array) -> jax.Array:
    """r_v: 0 where D judges held-out images as training ones, 1 where it takes them for generated.

    It is made of differences of logits alone, so that it means the same under every loss.

    Args:
      real, held_out, fake: mean logits of training, held-out and generated images, scalars.

    Returns:
      (real - held_out) / (real - fake), a scalar; where D does not judge real images above
      generated ones, the denominator is 1e-8.

    References:
      Karras et al. 2020, equation 1, with the least denominator of the authors' code.
    """
    return (real - held_out) / jnp.maximum(real - fake, _LEAST)


def adjusted(state: State, held_out: jax.Array, section: ConfigDict) -> State:
    """The state of `by_held_out` after an adjustment; what other terms keep is left as it is.

    Args:
      state: what the terms keep.
      held_out: mean logit of held-out images, a scalar.
      section: the `augment` section of a config.

    Returns:
      The probability moved by the images since the last time, up where r_v is above the target and
      down where it is below, r_v, and sums that start afresh.
    """
    target = HELD_OUT_TARGET if section.target is None else section.target
    images = state[JUDGED]
    found = ratio(state[REAL] / images, held_out, state[FAKE] / images)
    p = state[P] + jnp.sign(found - target) * images / section.ramp_images
    zero = jnp.zeros_like(images)
    return state | {
        P: jnp.clip(p, 0, 1), R_V: found.astype(p.dtype), REAL: zero, FAKE: zero, JUDGED: zero
    }  # fmt: skip


HEURISTICS: dict[str, Callable[[ConfigDict, str], LogitTerm]] = {
    "signs": by_signs,
    "held_out": by_held_out,
}
