"""Consistency regularization: D answers alike for an image and an augmented one (bCR), and for the
images of neighbouring latents, which G tells apart (zCR).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LATENTS = 2**31 + 2  # what is folded into the key of an update for the noise on latents


def flipped_and_shifted(
    images: jax.Array, flip: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Images mirrored and moved, what leaves them on one side being reflected at the other.

    Args:
      images: [B, H, W, C].
      flip: which ones are mirrored left to right first, bool [B].
      rows, columns: pixels by which the window moves down and to the right, integers [B] of less
        than the side.
    """
    height, width = images.shape[1:3]
    across = _reflected(jnp.arange(width)[None] + columns[:, None], width)
    across = jnp.where(flip[:, None], width - 1 - across, across)
    down = _reflected(jnp.arange(height)[None] + rows[:, None], height)
    images = jnp.take_along_axis(images, down[:, :, None, None], axis=1)
    return jnp.take_along_axis(images, across[:, None, :, None], axis=2)


def _reflected(place: jax.Array, side: int) -> jax.Array:
    return side - 1 - jnp.abs(side - 1 - jnp.abs(place))


def augmented(images: jax.Array, key: jax.Array, flip: bool = True) -> jax.Array:
    """The augmentation of consistency regularization: a flip and a shift of each image.

    Args:
      images: [B, H, W, C].
      key: of the draws.
      flip: whether one in two is mirrored.

    Returns:
      Images moved by up to an eighth of the side in both directions.

    References:
      Zhang et al. 2020, "Consistency Regularization for Generative Adversarial Networks", section
      4: "a few pixels"; an eighth and the reflection are StudioGAN's.
    """
    keys = jax.random.split(key, 3)
    batch, height, width = images.shape[:3]
    mirrored = jax.random.bernoulli(keys[0], 0.5 if flip else 0.0, (batch,))
    rows, columns = (
        jax.random.randint(k, (batch,), -(side // 8), side // 8 + 1)
        for k, side in zip(keys[1:], (height, width), strict=True)
    )
    return flipped_and_shifted(images, mirrored, rows, columns)


def balanced(
    real_strength: float, fake_strength: float, augment: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[..., jax.Array]:
    """bCR, as a penalty of D.

    Args:
      real_strength, fake_strength: lambda_real and lambda_fake (Zhao et al.: 10 and 10).
      augment: `augment(images, key) -> images`, T of the paper.

    Returns:
      lambda_real mean (D(x) - D(T(x)))^2 + lambda_fake mean (D(G(z)) - D(T(G(z))))^2, D(x) and
      D(G(z)) being the logits that the loss has seen; gradients flow through both sides.

    References:
      Zhao et al. 2021, "Improved Consistency Regularization for GANs", algorithm 1.
    """

    def penalty(D, real, real_labels, fake, fake_labels, key) -> jax.Array:
        sides = zip(
            (real_strength, fake_strength),
            (real.astype(fake.dtype), fake),
            (real_labels, fake_labels),
            D.logits,
            jax.random.split(key),
            strict=True,
        )
        return sum(
            strength * jnp.square(D(augment(images, key), labels) - logits).mean()
            for strength, images, labels, logits, key in sides
            if strength
        )

    return penalty


@dataclasses.dataclass(frozen=True)
class Latent:
    """zCR: noise on latents, which D is to overlook and G is to show.

    Attributes:
      d: lambda_dis, times the mean (D(G(z)) - D(G(z + sigma n)))^2 that is added to D's loss.
      g: lambda_gen, times the mean (G(z) - G(z + sigma n))^2 over pixels and channels that is taken
        from G's loss.
      sigma: of the noise n ~ N(0, I).

    References:
      Zhao et al. 2021, "Improved Consistency Regularization for GANs", algorithm 2; the means over
      pixels are StudioGAN's.
    """

    d: float
    g: float
    sigma: float

    def of_d(self, D, near: jax.Array, fake_labels: jax.Array) -> jax.Array:
        """What is added to D's loss; `near` are the images G(z + sigma n) [B, H, W, C]."""
        _, fake_logits = D.logits
        return self.d * jnp.square(D(near, fake_labels) - fake_logits).mean()

    def of_g(self, fake: jax.Array, near: jax.Array) -> jax.Array:
        """What is added to G's loss, <= 0."""
        return -self.g * jnp.square(fake - near).mean()


def of_section(regularizer: Any, augments: bool) -> dict[str, tuple[float, Callable]]:
    """The penalty {"consistency": (1, bCR)} of a `regularizer` section, or none.

    Args:
      regularizer: with `consistency`, `consistency_fake` and `consistency_flip`.
      augments: whether D augments its images itself, anew in every call, so that the second call is
        the augmented one.
    """
    real, fake = regularizer.consistency, regularizer.consistency_fake
    fake = real if fake is None else fake
    if not real and not fake:
        return {}

    def augment(images: jax.Array, key: jax.Array) -> jax.Array:
        return images if augments else augmented(images, key, regularizer.consistency_flip)

    return {"consistency": (1.0, balanced(real, fake, augment))}


def latent_of_section(regularizer: Any) -> Latent | None:
    """zCR of a `regularizer` section (`zcr_d`, `zcr_g`, `zcr_sigma`); None where it is off."""
    if not regularizer.zcr_d and not regularizer.zcr_g:
        return None
    return Latent(regularizer.zcr_d, regularizer.zcr_g, regularizer.zcr_sigma)
