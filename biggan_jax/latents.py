"""The distribution of z, and its truncation."""

import jax
import jax.numpy as jnp

from biggan_jax.errors import UserError


def sample(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Draws z ~ N(0, I).

    Args:
      key: typed PRNG key.
      shape: [..., dim_z].
      dtype: at least float32.

    Returns:
      z of that shape.
    """
    return jax.random.normal(key, shape, dtype)


def truncate(key: jax.Array, z: jax.Array, truncation: float) -> jax.Array:
    """Redraws every entry of z with |z_i| > truncation until it lies within.

    The redraw takes one draw from the normal truncated to [-T, T], which is the distribution that
    repeated redrawing ends in; entries within the threshold stay as they are.

    Args:
      key: typed PRNG key, independent of the one that drew z.
      z: latents [..., dim_z] from N(0, I).
      truncation: threshold T > 0.

    Returns:
      Truncated latents, |z_i| <= T.

    References:
      Brock et al. 2019, section 3.1.
    """
    redrawn = jax.random.truncated_normal(key, -truncation, truncation, z.shape, z.dtype)
    return jnp.where(jnp.abs(z) <= truncation, z, redrawn)


def check_truncation(truncation: float | None) -> None:
    """Raises UserError unless truncation is None or positive."""
    if truncation is not None and not truncation > 0:
        raise UserError(f"truncation is {truncation}; it must be above 0 (leave it out for none)")
