"""GAN losses: discriminator logits -> scalar.

A discriminator loss that judges real and generated images apart comes as two parts, one over each
batch, each a mean over its own batch; D minimises their sum. Logits of any shape and dtype are
accepted and the arithmetic is at least float32. `objectives` makes of them what the players
minimise.
"""

import jax
import jax.numpy as jnp
import numpy as np


def _promote(x: jax.Array) -> jax.Array:
    # Before any arithmetic, since bfloat16 keeps 8 bits of a mean. numpy's promote_types, because
    # jnp's refuses every pair of dtypes under jax_numpy_dtype_promotion='strict'.
    return x.astype(np.promote_types(x.dtype, np.float32))


def hinge_d(real_logits: jax.Array, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hinge loss of the discriminator.

    Args:
      real_logits: D(x), any shape, any real number.
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      mean max(0, 1 - D(x)) and mean max(0, 1 + D(G(z))), scalars >= 0.

    References:
      Lim and Ye 2017, Geometric GAN; Zhang et al. 2019, SAGAN, equation 4.
    """
    real, fake = _promote(real_logits), _promote(fake_logits)
    return jnp.mean(jax.nn.relu(1.0 - real)), jnp.mean(jax.nn.relu(1.0 + fake))


def critic_g(fake_logits: jax.Array) -> jax.Array:
    """Loss of the generator against a hinge or Wasserstein critic.

    Args:
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      -mean D(G(z)), a scalar.

    References:
      Zhang et al. 2019, SAGAN, equation 4; Arjovsky et al. 2017, Wasserstein GAN, algorithm 1.
    """
    return -jnp.mean(_promote(fake_logits))


def non_saturating_d(real_logits: jax.Array, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross entropy of the discriminator, D(x) being the logit of 'real'.

    Args:
      real_logits: D(x), any shape, any real number.
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      mean softplus(-D(x)) and mean softplus(D(G(z))), scalars >= 0.

    References:
      Goodfellow et al. 2014, Generative Adversarial Nets, equation 1.
    """
    real, fake = _promote(real_logits), _promote(fake_logits)
    return jnp.mean(jax.nn.softplus(-real)), jnp.mean(jax.nn.softplus(fake))


def non_saturating_g(fake_logits: jax.Array) -> jax.Array:
    """Non-saturating loss of the generator: -log sigmoid(D(G(z))).

    Args:
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      mean softplus(-D(G(z))), a scalar >= 0.

    References:
      Goodfellow et al. 2014, Generative Adversarial Nets, section 3.
    """
    return jnp.mean(jax.nn.softplus(-_promote(fake_logits)))


def wasserstein_d(real_logits: jax.Array, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Wasserstein loss of the critic; the Lipschitz bound is the caller's (spectral norm, penalty).

    Args:
      real_logits: D(x), any shape, any real number.
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      -mean D(x) and mean D(G(z)), scalars.

    References:
      Arjovsky et al. 2017, Wasserstein GAN, algorithm 1.
    """
    return -jnp.mean(_promote(real_logits)), jnp.mean(_promote(fake_logits))


def least_squares_d(real_logits: jax.Array, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Least squares loss of the discriminator with targets 1 (real) and 0 (fake).

    Args:
      real_logits: D(x), any shape, any real number.
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      mean (D(x) - 1)^2 / 2 and mean D(G(z))^2 / 2, scalars >= 0.

    References:
      Mao et al. 2017, Least Squares GAN, equation 9.
    """
    real, fake = _promote(real_logits), _promote(fake_logits)
    return 0.5 * jnp.mean(jnp.square(real - 1.0)), 0.5 * jnp.mean(jnp.square(fake))


def least_squares_g(fake_logits: jax.Array) -> jax.Array:
    """Least squares loss of the generator with target 1.

    Args:
      fake_logits: D(G(z)), any shape, any real number.

    Returns:
      mean (D(G(z)) - 1)^2 / 2, a scalar >= 0.

    References:
      Mao et al. 2017, Least Squares GAN, equation 9.
    """
    return 0.5 * jnp.mean(jnp.square(_promote(fake_logits) - 1.0))


def relativistic(better: jax.Array, worse: jax.Array) -> jax.Array:
    """Relativistic pairing loss: every logit is compared with that of its partner.

    Args:
      better: logits that the player wants higher, any shape, any real number: D(x) for D, D(G(z))
        for G.
      worse: the logits of their partners, of the same shape: D(G(z)) for D, D(x) for G.

    Returns:
      mean softplus(-(better - worse)), a scalar >= 0.

    References:
      Jolicoeur-Martineau 2019, "The relativistic discriminator"; Huang et al. 2024, "The GAN is
      dead; long live the GAN!" (R3GAN), equation 2.
    """
    return jnp.mean(jax.nn.softplus(_promote(worse) - _promote(better)))


def san_direction(real: jax.Array, fake: jax.Array) -> jax.Array:
    """What the direction of SAN's last layer minimises, whatever the loss of D is.

    Args:
      real: the halves of the logits D(x) with gradients of the direction, any shape.
      fake: those of D(G(z)).

    Returns:
      mean D(G(z)) - mean D(x), a scalar.

    References:
      Takida et al. 2024, "SAN: Inducing Metrizability of GAN with Discriminative Normalized Linear
      Layer", section 5; weight 1 and no reweighting of the samples, as in the authors' code.
    """
    return sum(wasserstein_d(real, fake))
