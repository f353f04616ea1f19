"""What the generator's batch norms are conditioned on: class, latent, both or nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from biggan_jax.models import layers
from biggan_jax.models.settings import LayerSettings

ORDERS = ("embedding_z", "z_embedding")


def class_embedding(
    labels: jax.Array, train: bool, settings: LayerSettings, num_classes: int, features: int
) -> jax.Array:
    """The shared class embedding, inside a compact method.

    Args:
      labels: class ids [N].
      train: whether this is a training forward.
      settings: what every layer of the model shares.
      num_classes: 1 means unconditional.
      features: width of the embedding.

    Returns:
      [N, features] from the table `shared` without spectral norm; [N, 0] when unconditional.
    """
    if num_classes == 1:
        return jnp.zeros((labels.shape[0], 0), settings.dtype)
    table = layers.Embed(settings, False, num_classes, features, name="shared")
    return table(labels, train).astype(settings.dtype)


def join(embedding: jax.Array, z: jax.Array, order: str) -> jax.Array:
    """Concatenates the embedding [N, E] and (a chunk of) z [N, K] in one of ORDERS."""
    pair = (embedding, z) if order == "embedding_z" else (z, embedding)
    return jnp.concatenate(pair, axis=-1)


def batch_norm(settings: LayerSettings, condition: jax.Array, num_classes: int, name: str):
    """Batch norm under whatever there is to condition on, inside a compact method.

    Args:
      settings: what every layer of the model shares.
      condition: [N, K] vectors, [N] class ids, or [N, 0]: nothing.
      num_classes: rows of the lookup tables when the condition is class ids.
      name: of the module.

    Returns:
      A function (x [N, H, W, C], train) -> [N, H, W, C].
    """
    module: nn.Module
    if condition.ndim == 1:
        module = layers.ClassBatchNorm(settings, num_classes, name=name)
    elif condition.shape[-1]:
        module = layers.ConditionalBatchNorm(settings, name=name)
    else:
        return layers.AffineBatchNorm(settings, name=name)
    return lambda x, train: module(x, condition, train)
