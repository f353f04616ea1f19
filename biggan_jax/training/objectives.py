"""What D and G minimise: pure functions of a network and its images, composed by name.

An objective of either player is a function

    d(D, real, real_labels, fake, fake_labels, key) -> (loss, metrics)
    g(D, fake, fake_labels, real, real_labels, key) -> (loss, metrics)

of images [B, H, W, C] (at least float32), class ids int32 [B] and a key of its own; metrics are
scalars by name, averaged over microbatches. `D(images, labels)` gives logits [N] (at least float32)
at D's parameters, of N images, a multiple of the mesh's devices: D is never called on single images
(under `jax.vmap`), and `D(x, y).sum()` has the gradients of all images apart. With accumulation B
is a microbatch. A penalty (`penalties`) is a function of what `d` takes that gives a scalar. The
losses of logits are in `losses`; this file says which images D judges for them. Where an update has
several forwards of D, the first one advances D's spectral vectors, and the others use what it left:
so a loss calls D once on all its images (`joint_logits`), outside of any derivative, and penalties
come after it.
Where images are augmented, every call of D inside an objective sees augmented ones: D is D(T(x), y)
for the loss, its penalties and what an objective of your own asks, with draws of each call's own.
Terms that keep scalars from one D update to the next are `logit_terms`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.training import augment, consistency, lecam, losses
from biggan_jax.training.logit_terms import Seen
from biggan_jax.training.objective import Metrics, Network, Objective
from biggan_jax.training.penalties import PENALTIES


def joint_logits(
    D: Network, real: jax.Array, real_labels: jax.Array, fake: jax.Array, fake_labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One forward of D over real and generated images.

    Args:
      D: the discriminator at its parameters.
      real, real_labels: images [B, H, W, C] and their classes [B].
      fake, fake_labels: as many of the generator.

    Returns:
      (real logits, fake logits), each [B].
    """
    # Alternating, since concatenating batches that are split over devices moves data.
    images = jnp.stack([fake, real.astype(fake.dtype)], axis=1).reshape(-1, *fake.shape[1:])
    labels = jnp.stack([fake_labels, real_labels], axis=1).reshape(-1)
    fake_logits, real_logits = D(images, labels).reshape(-1, 2).T
    if isinstance(D, Seen):
        D.see(real_logits, fake_logits)
    return real_logits, fake_logits


def separate(
    d_loss: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    g_loss: Callable[[jax.Array], jax.Array],
) -> Objective:
    """The objective of a loss that judges real and generated images apart.

    Args:
      d_loss: `(real logits, fake logits) -> (loss of the real, loss of the fake)`.
      g_loss: `(fake logits) -> loss`.

    Returns:
      The objective; `d_loss_real`, `d_loss_fake`, `d_real` and `d_fake` are among its metrics.
    """

    def d(D, real, real_labels, fake, fake_labels, key):
        real_logits, fake_logits = joint_logits(D, real, real_labels, fake, fake_labels)
        loss_real, loss_fake = d_loss(real_logits, fake_logits)
        parts = {"d_loss_real": loss_real, "d_loss_fake": loss_fake}
        return loss_real + loss_fake, parts | _means(real_logits, fake_logits)

    def g(D, fake, fake_labels, real, real_labels, key):
        return g_loss(D(fake, fake_labels)), {}

    return Objective(d, g)


def paired(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Objective:
    """The objective of a loss that compares each real image with a generated one of its class.

    Args:
      loss: `(logits to be higher, logits to be lower) -> loss`: D wants the real ones higher, G the
        generated ones.

    Returns:
      The objective, whose fakes share the labels of the real images.
    """

    def d(D, real, real_labels, fake, fake_labels, key):
        real_logits, fake_logits = joint_logits(D, real, real_labels, fake, fake_labels)
        return loss(real_logits, fake_logits), _means(real_logits, fake_logits)

    def g(D, fake, fake_labels, real, real_labels, key):
        real_logits, fake_logits = joint_logits(D, real, real_labels, fake, fake_labels)
        return loss(fake_logits, real_logits), {}

    return Objective(d, g, paired=True)


def _means(real_logits: jax.Array, fake_logits: jax.Array) -> Metrics:
    return {"d_real": real_logits.mean(), "d_fake": fake_logits.mean()}


# `loss` of a config -> what the players minimise.
LOSSES = {
    "hinge": separate(losses.hinge_d, losses.critic_g),
    "non_saturating": separate(losses.non_saturating_d, losses.non_saturating_g),
    "wasserstein": separate(losses.wasserstein_d, losses.critic_g),
    "least_squares": separate(losses.least_squares_d, losses.least_squares_g),
    "relativistic": paired(losses.relativistic),
}


def build(
    loss: str, regularizer: Any, *, num_d_steps: int = 1, augments: bool = False
) -> Objective:
    """Composes what the players minimise.

    Args:
      loss: a name of `LOSSES`.
      regularizer: the `regularizer` section of a config, with a strength (0 is off) for every name
        of `PENALTIES`, for bCR, zCR and LeCam, and `every_steps`.
      num_d_steps: D updates for one of the generator.
      augments: whether D will augment its images, in every call anew.

    Returns:
      The objective with all of these whose strength is not 0.

    Raises:
      UserError: the loss is unknown; the message gives the nearest one and all of them.
    """
    if loss not in LOSSES:
        raise UserError(
            f"unknown loss {loss!r}{did_you_mean(loss, LOSSES)}: set --config.loss to one of "
            f"{', '.join(LOSSES)}"
        )
    r = regularizer
    strengths = {name: r[name] for name in PENALTIES}
    found = {name: (s, PENALTIES[name]) for name, s in strengths.items() if s != 0}
    terms = (lecam.term(r.lecam, r.lecam_decay, r.lecam_start_step, num_d_steps),)
    return dataclasses.replace(
        LOSSES[loss],
        penalties=found | consistency.of_section(r, augments),
        penalty_every_steps=r.every_steps,
        terms=terms if r.lecam else (),
        latent=consistency.latent_of_section(r),
    )


def of_config(config: Any, mesh: Mesh | None = None) -> Objective:
    """What the players minimise under a full config.

    Args:
      config: of which `loss`, `regularizer`, `num_d_steps` and `augment` are read.
      mesh: over which images are split; None where nothing is to be computed.

    Raises:
      UserError: as `build`, or for an augmentation that does not exist.
    """
    game = build(
        config.loss,
        config.regularizer,
        num_d_steps=config.num_d_steps,
        augments=config.augment.policy != "none",
    )
    return augment.of_objective(game, config.loss, config.augment, mesh)
