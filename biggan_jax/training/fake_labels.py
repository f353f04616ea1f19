"""The classes that G is asked for in training."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from biggan_jax.data import balance
from biggan_jax.errors import UserError


def ends(config: ConfigDict) -> tuple[float, ...] | None:
    """Where each class ends on [0, 1], for `draw`.

    Args:
      config: full, with `model.num_classes`; `data.class_counts` unset counts every class the same,
        as for those who time a step and have no data.

    Returns:
      The cumulative shares of the classes in the stream of real images; None where all fakes'
      classes are equally probable.

    Raises:
      UserError: `data.class_counts` are of another number of classes, or none has an image.
    """
    counts, classes = config.data.class_counts, config.model.num_classes
    if config.data.fake_labels == "uniform" or classes == 1:
        return None
    counts = counts or (1,) * classes
    if len(counts) != classes or not any(counts):
        raise UserError(
            f"data.class_counts has {len(counts)} counts ({sum(counts)} images) for the {classes} "
            "classes of the model: leave --config.data.class_counts out to take those of the data"
        )
    shares = balance.shares(np.array(counts), config.data.balance)
    cumulative = np.cumsum(shares)
    # Of the last class that has images, and what follows: no draw, which is below 1, lies beyond.
    cumulative[np.flatnonzero(shares)[-1] :] = 1.0
    return tuple(cumulative.tolist())


def draw(
    key: jax.Array, shape: tuple[int, ...], num_classes: int, ends: Sequence[float] | None
) -> jax.Array:
    """Draws classes.

    Args:
      key: of the draw.
      shape: of the labels.
      num_classes: of the model.
      ends: from the function of this name.

    Returns:
      Labels, int32 of this shape.
    """
    if ends is None:
        return jax.random.randint(key, shape, 0, num_classes, jnp.int32)
    # float32: to a resolution of 1e-7, below the rarest class of ImageNet-21k.
    share = jax.random.uniform(key, shape, jnp.float32)
    labels = jnp.searchsorted(jnp.asarray(ends, jnp.float32), share, side="right")
    return labels.astype(jnp.int32)
