"""The distributions of z, and their truncation."""

import jax
import jax.numpy as jnp

from biggan_jax.errors import UserError, did_you_mean

# What z_distribution may be -> what it means. All but three are made of a normal variable, which
# truncation redraws.
DISTRIBUTIONS = {
    "normal": "N(0, I)",
    "uniform": "U[-1, 1]",
    "bernoulli": "Bernoulli {0, 1}",
    "censored_normal": "max(N(0, I), 0)",
    "categorical": "{-1, 0, 1} with equal probability",
    "normal_bernoulli_product": "N(0, I) * Bernoulli {0, 1}",
    "normal_bernoulli_concat": "N(0, I) in the first half of z, Bernoulli {0, 1} in the second",
}
NOT_NORMAL = ("uniform", "bernoulli", "categorical")


def sample(
    key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, distribution: str = "normal"
) -> jax.Array:
    """Draws latents, their entries independent of each other.

    Args:
      key: typed PRNG key.
      shape: [..., dim_z].
      dtype: at least float32.
      distribution: a name of DISTRIBUTIONS. Every Bernoulli variable is 1 with probability 1/2. An
        odd dim_z gives `normal_bernoulli_concat` one more normal entry.

    Returns:
      z of that shape.

    Raises:
      UserError: for an unknown distribution.

    References:
      Brock et al. 2019, appendix E.
    """
    check_distribution(distribution)
    coins = lambda key, shape: jax.random.bernoulli(key, 0.5, shape).astype(dtype)
    if distribution == "uniform":
        return jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)
    if distribution == "bernoulli":
        return coins(key, shape)
    if distribution == "categorical":
        return jax.random.randint(key, shape, -1, 2).astype(dtype)
    if distribution == "normal":
        return jax.random.normal(key, shape, dtype)
    if distribution == "censored_normal":
        return jax.nn.relu(jax.random.normal(key, shape, dtype))
    normal_key, coin_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, shape, dtype)
    if distribution == "normal_bernoulli_product":
        return normal * coins(coin_key, shape)
    return jnp.where(_normal_half(shape), normal, coins(coin_key, shape))


def truncate(
    key: jax.Array,
    z: jax.Array,
    truncation: float | jax.Array,
    distribution: str = "normal",
    kind: str = "resample",
) -> jax.Array:
    """Truncates the normal variables that z is made of.

    Only they are redrawn: censored entries and those that a Bernoulli variable has set to 0 stay 0,
    so that z does not get sparser, and the Bernoulli half of `normal_bernoulli_concat` stays as it
    is. The redraw takes one draw from the normal truncated to [-T, T], which is the distribution
    that repeated redrawing ends in; entries within the threshold stay as they are.

    Args:
      key: typed PRNG key, independent of the one that drew z.
      z: latents [..., dim_z] from `sample`.
      truncation: threshold T > 0; a traced scalar is taken as it is.
      distribution: the one that z was drawn from.
      kind: 'resample' redraws every |z_i| > T; 'scale' redraws every |z_i| > 2 and multiplies by T,
        as the TF-Hub models.

    Returns:
      Truncated latents; |z_i| <= T ('scale': 2 T) where z_i comes from a normal variable.

    Raises:
      UserError: for a distribution that has no normal variable.

    References:
      Brock et al. 2019, section 3.1.
    """
    if not isinstance(truncation, jax.core.Tracer):  # else the caller has checked it
        check_truncation(truncation, distribution)
    limit = truncation if kind == "resample" else 2.0
    # A censored entry above the threshold is positive, and is redrawn among the positive values.
    low = 0.0 if distribution == "censored_normal" else -limit
    redrawn = jax.random.truncated_normal(key, low, limit, z.shape, z.dtype)
    truncated = jnp.where(jnp.abs(z) <= limit, z, redrawn)
    if kind == "scale":
        truncated = truncation * truncated
    if distribution == "normal_bernoulli_concat":
        return jnp.where(_normal_half(z.shape), truncated, z)
    return truncated


def check_distribution(distribution: str) -> None:
    """Raises UserError unless `distribution` is a name of DISTRIBUTIONS."""
    if distribution not in DISTRIBUTIONS:
        raise UserError(
            f"model.z_distribution is {distribution!r}{did_you_mean(distribution, DISTRIBUTIONS)}; "
            f"set --config.model.z_distribution to one of {', '.join(DISTRIBUTIONS)}"
        )


def check_truncation(truncation: float | None, distribution: str = "normal") -> None:
    """Raises UserError unless truncation is None, or positive and possible for `distribution`."""
    if truncation is None:
        return
    if isinstance(truncation, str | bool) or not truncation > 0:
        raise UserError(f"truncation is {truncation}; it must be above 0 (leave it out for none)")
    if distribution in NOT_NORMAL:
        raise UserError(
            f"truncation {truncation} needs latents made of a normal distribution, but this "
            f"model's z_distribution is {distribution!r} ({DISTRIBUTIONS[distribution]}): leave "
            "the truncation out"
        )


def _normal_half(shape: tuple[int, ...]) -> jax.Array:
    """True where `normal_bernoulli_concat` is normal."""
    return jnp.broadcast_to(jnp.arange(shape[-1]) < (shape[-1] + 1) // 2, shape)
