"""Penalties of D: functions `penalty(D, real, real_labels, fake, fake_labels, key)` -> scalar.

The arguments are those of D's objective (`objectives`). D is taken as the game uses it: where its
weights are spectrally normalised, a penalty sees the normalised ones, and the first forward of the
update has moved the power iteration. Gradients are those of logits with respect to images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Network = Callable[[jax.Array, jax.Array], jax.Array]


def gradient_penalty(D: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Half the mean squared norm of the gradient of D's logits with respect to its images.

    Args:
      D: the discriminator at its parameters.
      images: [B, H, W, C].
      labels: their classes [B].

    Returns:
      A scalar >= 0, at least float32.

    References:
      Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation 9.
    """
    return 0.5 * _squared_norms(D, images, labels).mean()


def r1(D, real, real_labels, fake, fake_labels, key) -> jax.Array:
    """R1: `gradient_penalty` at the real images (Mescheder et al. 2018, equation 9)."""
    return gradient_penalty(D, real, real_labels)


def r2(D, real, real_labels, fake, fake_labels, key) -> jax.Array:
    """R2: `gradient_penalty` at the generated images (Mescheder et al. 2018, equation 10)."""
    return gradient_penalty(D, fake, fake_labels)


def two_sided(D: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean squared distance of the gradient's norm from 1.

    Args:
      D: the discriminator at its parameters.
      images: [B, H, W, C].
      labels: their classes [B].

    Returns:
      A scalar >= 0, at least float32.

    References:
      Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    squares = _squared_norms(D, images, labels)
    # The norm has no derivative at 0, where a D that ignores its image would give NaN.
    flat = squares == 0
    norms = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, squares)))
    return jnp.square(norms - 1.0).mean()


def interpolates(real: jax.Array, fake: jax.Array, share: jax.Array) -> jax.Array:
    """Points on the lines between real and generated images (Gulrajani et al. 2017, algorithm 1).

    Args:
      real, fake: images [B, H, W, C].
      share: of the real image, [B, 1, 1, 1] in [0, 1].
    """
    return share * real.astype(fake.dtype) + (1.0 - share) * fake


def perturbed(real: jax.Array, share: jax.Array, noise: jax.Array) -> jax.Array:
    """Real images with noise of up to half the standard deviation of the batch.

    Args:
      real: images [B, H, W, C].
      share: how much of the noise an image gets, [B, 1, 1, 1] in [0, 1].
      noise: [B, H, W, C] in [0, 1]; never negative, as in the authors' code.

    References:
      Kodali et al. 2017, "On Convergence and Stability of GANs", algorithm 1. The paper writes
      normal noise; this is what its authors' code and StudioGAN's `cal_dra_penalty` do.
    """
    return real + share * (0.5 * jnp.std(real, ddof=1) * noise)


def wgan_gp(D, real, real_labels, fake, fake_labels, key) -> jax.Array:
    """WGAN-GP: `two_sided` at `interpolates`, judged for the classes of the real images.

    The classes as in StudioGAN's `cal_grad_penalty`; the paper is unconditional.
    """
    share = jax.random.uniform(key, (len(fake), 1, 1, 1), fake.dtype)
    return two_sided(D, interpolates(real, fake, share), real_labels)


def dragan(D, real, real_labels, fake, fake_labels, key) -> jax.Array:
    """DRAGAN: `two_sided` at `perturbed` real images of their own classes."""
    real = real.astype(fake.dtype)
    share_key, noise_key = jax.random.split(key)
    share = jax.random.uniform(share_key, (len(real), 1, 1, 1), real.dtype)
    noise = jax.random.uniform(noise_key, real.shape, real.dtype)
    return two_sided(D, perturbed(real, share, noise), real_labels)


def _squared_norms(D: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared norms [B] of the gradients of single images."""

    def total(images: jax.Array) -> jax.Array:
        return D(images, labels).sum()

    return jnp.square(jax.grad(total)(images)).sum((1, 2, 3))


# `regularizer.NAME` of a config, its strength -> what it adds to D's objective.
PENALTIES = {
    "r1": r1,
    "r2": r2,
    "wgan_gp": wgan_gp,
    "dragan": dragan,
}
