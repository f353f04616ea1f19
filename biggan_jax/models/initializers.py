"""The initialisers of kernels and embeddings, by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def glorot_relu(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """SNGAN: Glorot-uniform with gain sqrt(2) for kernels over several pixels, 1 for all others.

    The authors' choice for every convolution inside a block, against 1x1 shortcuts and linear
    layers. The last convolution of G, to the image, has gain 1 there and sqrt(2) here.

    Args:
      key: PRNG key.
      shape: [h, w, in, out] or [in, out].
      dtype: of the result.

    References:
      Glorot and Bengio 2010, equation 16.
    """
    gain = 2.0 if len(shape) == 4 and shape[0] > 1 else 1.0
    return nn.initializers.variance_scaling(gain, "fan_avg", "uniform")(key, shape, dtype)


INITIALIZERS = {
    "orthogonal": nn.initializers.orthogonal(),  # Brock et al. 2019
    "xavier": nn.initializers.xavier_uniform(),  # Zhang et al. 2019
    "normal": nn.initializers.normal(0.02),  # Radford et al. 2016
    "glorot_relu": glorot_relu,  # Miyato and Koyama 2018
}
