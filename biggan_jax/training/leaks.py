"""Whether G has learnt to augment: statistics of images that augmentation changes.

Every D update compares its generated images with its real ones, before either is augmented. What
matters is how far images differ from each other: a G that makes moved, turned or recoloured images
spreads them wider than the data (`evaluation.run_augmentation` judges).
"""

import jax
import jax.numpy as jnp
import numpy as np

_DARKEST = 1e-3  # of the mass of a black pixel, so that every image has some


def statistics(images: jax.Array) -> dict[str, jax.Array]:
    """What is measured of every image.

    Args:
      images: [n, H, W, C] in [-1, 1], C 1 or 3.

    Returns:
      [n] by name: `brightness` in [-1, 1]; `contrast`, the deviation of the grey values; `tint`,
      red less blue (RGB only); `row` and `column`, the centre of what is bright, from -0.5 to 0.5
      of the side; `elongation`, how much wider than high that is.
    """
    grey = images.mean(3)
    found = {"brightness": grey.mean((1, 2)), "contrast": grey.std((1, 2))}
    if images.shape[3] == 3:
        found["tint"] = (images[..., 0] - images[..., 2]).mean((1, 2))
    mass = jnp.clip((grey + 1) / 2, _DARKEST, 1)
    share = mass / mass.sum((1, 2), keepdims=True)
    variances = []
    for name, axis in (("row", 2), ("column", 1)):
        along = share.sum(axis)
        size = along.shape[1]
        place = jnp.asarray((np.arange(size) + 0.5) / size - 0.5, images.dtype)[None]
        found[name] = (along * place).sum(1)
        variances.append((along * jnp.square(place - found[name][:, None])).sum(1))
    found["elongation"] = jnp.sqrt(variances[1]) - jnp.sqrt(variances[0])
    return found


def metrics(real: jax.Array, fake: jax.Array) -> dict[str, jax.Array]:
    """Means and standard deviations of `statistics`, scalars by name.

    Args:
      real, fake: images of one D update [n, H, W, C], not augmented.

    Returns:
      `augment/real_NAME` and `augment/real_NAME_spread`, and the same of the fakes.
    """
    found = {}
    for who, images in (("real", real), ("fake", fake)):
        for name, values in statistics(jax.lax.stop_gradient(images)).items():
            found[f"augment/{who}_{name}"] = values.mean()
            found[f"augment/{who}_{name}_spread"] = values.std()
    return found
