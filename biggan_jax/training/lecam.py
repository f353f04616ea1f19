"""LeCam regularization of D: its logits stay near averages of those of the other kind of image."""

import jax
import jax.numpy as jnp

from biggan_jax.training.logit_terms import LogitTerm, State


def distance(
    real_logits: jax.Array, fake_logits: jax.Array, real_anchor: jax.Array, fake_anchor: jax.Array
) -> jax.Array:
    """How far logits are beyond the average of the other side.

    Args:
      real_logits: D(x), any shape.
      fake_logits: D(G(z)), any shape.
      real_anchor, fake_anchor: averages of both over earlier updates, scalars.

    Returns:
      mean max(0, D(x) - fake anchor)^2 + mean max(0, real anchor - D(G(z)))^2, a scalar >= 0.

    References:
      Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", equation
      4, with the max(0, .) of the authors' code (`lecam_reg`).
    """
    above = jax.nn.relu(real_logits - fake_anchor)
    below = jax.nn.relu(real_anchor - fake_logits)
    return jnp.square(above).mean() + jnp.square(below).mean()


def term(strength: float, decay: float, start_step: int, num_d_steps: int) -> LogitTerm:
    """LeCam regularization as a term of D's objective.

    The anchors are exponential averages of the mean logits of every forward of D (with accumulation
    of every microbatch), this one included. As in the authors' code they are the last means until
    generator update `start_step`, counted from 1, and the term is 0 up to it. One that is turned on
    later starts with the means of its first forward. It costs no forward of D, so it is in every
    update, whatever `regularizer.every_steps` is.

    Args:
      strength: lambda (Tseng et al.: 0.3 for BigGAN on CIFAR).
      decay: weight of the old anchor (Tseng et al.: 0.99).
      start_step: generator update after which the term is on (the authors' code: 1000).
      num_d_steps: D updates for one of the generator.
    """

    def of_logits(
        real_logits: jax.Array, fake_logits: jax.Array, state: State, update: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], State]:
        step = update // num_d_steps + 1
        fresh = (state["lecam_seen"] == 0) | (step < start_step)
        old = jnp.where(fresh, 0.0, decay)
        means = {"lecam_real": real_logits.mean(), "lecam_fake": fake_logits.mean()}
        anchors = {
            name: old * state[name] + (1.0 - old) * jax.lax.stop_gradient(mean)
            for name, mean in means.items()
        }
        found = distance(real_logits, fake_logits, anchors["lecam_real"], anchors["lecam_fake"])
        loss = strength * jnp.where(step > start_step, found, 0.0)
        seen = jnp.ones_like(anchors["lecam_real"])
        return loss, {"lecam": loss, **anchors}, state | anchors | {"lecam_seen": seen}

    return LogitTerm(of_logits, {"lecam_real": 0.0, "lecam_fake": 0.0, "lecam_seen": 0.0})
