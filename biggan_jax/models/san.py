"""SAN's last layer of D: a direction of length 1 and its scale, which D's loss trains apart."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from biggan_jax.models.settings import LayerSettings


class Split(NamedTuple):
    """The two halves of D's logits; equal in value, they have gradients of different parameters.

    Attributes:
      function: [N], with gradients of the features and of the scale: what D's loss takes, and all
        that G, penalties and an eval forward see.
      direction: [N], with gradients of the direction alone.
    """

    function: jax.Array
    direction: jax.Array


class NormalizedLinear(nn.Module):
    """The linear layer <h, w> as |w| <h, w / |w|>, without bias and without spectral norm.

    The length of w belongs to the function and its direction to the sliced distance of real and
    generated features, which it maximises: so neither is divided by a singular value here, while
    the layers below keep their spectral norm.

    Attributes:
      settings: what every layer of the model shares.

    References:
      Takida et al. 2024, "SAN: Inducing Metrizability of GAN with Discriminative Normalized Linear
      Layer", section 5. Their code (simple-san) keeps one vector w per class; here w is the
      projection discriminator's sum of a common vector and that of the class.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, features: jax.Array, of_class: jax.Array | None, train: bool):
        """Judges features.

        Args:
          features: h, [N, F], at least float32.
          of_class: what is added to the common vector, [N, F]; None where there is one class.
          train: whether this is a training forward.

        Returns:
          Logits [N]; a training forward gives their two halves, a `Split`.
        """
        s = self.settings
        kernel = self.param("kernel", s.kernel_init, (features.shape[-1], 1), s.param_dtype)
        w = jnp.broadcast_to(kernel.astype(features.dtype).T, features.shape)
        if of_class is not None:
            w = w + of_class
        # The floor keeps the gradient of a vector of zeros at 0.
        scale = jnp.sqrt(jnp.maximum(jnp.square(w).sum(-1, keepdims=True), 1e-24))
        direction, scaled = w / scale, features * scale
        function = (scaled * lax.stop_gradient(direction)).sum(-1)
        if not train:
            return function
        return Split(function, (lax.stop_gradient(scaled) * direction).sum(-1))
