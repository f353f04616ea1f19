"""DiffAugment: colour, translation and cutout of every image by itself, differentiable.

References:
  Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 3 and
  the authors' code.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Draws = dict[str, jax.Array]
OPS = ("colour", "translation", "cutout")  # in the order in which they are done


def draw(
    key: jax.Array, ops: Sequence[str], n: int, size: int, p: float | jax.Array, dtype=jnp.float32
) -> Draws:
    """Draws what `transform` does to every image.

    Args:
      key: of these images.
      ops: some of `OPS`.
      n: how many images.
      size: their height and width, in pixels.
      p: probability of each op for each image, 1 in the paper.
      dtype: of the images.

    Returns:
      Arrays [n] or [n, 2] by name, those of the ops alone: `brightness` in [-0.5, 0.5),
      `saturation` in [0, 2), `contrast` in [0.5, 1.5), `shift` in pixels along rows and columns,
      up to an eighth of the size, `cutout`, the row and column about which a square of half the
      size lies, and `is_cut`.
    """
    keys = {op: jax.random.split(jax.random.fold_in(key, i)) for i, op in enumerate(OPS)}
    on = {op: jax.random.uniform(keys[op][0], (n,), dtype) < p for op in ops}
    found = {}
    if "colour" in ops:
        spread = jax.random.uniform(keys["colour"][1], (n, 3), dtype, -0.5, 0.5)
        found["brightness"], saturation, contrast = jnp.where(on["colour"], spread.T, 0)
        found["saturation"], found["contrast"] = 1 + 2 * saturation, 1 + contrast
    if "translation" in ops:
        most = size // 8
        shift = jax.random.randint(keys["translation"][1], (n, 2), -most, most + 1)
        found["shift"] = jnp.where(on["translation"][:, None], shift, 0)
    if "cutout" in ops:
        places = size + 1 - size // 2 % 2
        found["cutout"] = jax.random.randint(keys["cutout"][1], (n, 2), 0, places)
        found["is_cut"] = on["cutout"]
    return found


def transform(images: jax.Array, draws: Draws) -> jax.Array:
    """Augments images.

    Args:
      images: [n, H, W, C] in [-1, 1], H = W; with one channel a change of saturation, which keeps
        the mean over the channels, changes nothing.
      draws: from `draw`.

    Returns:
      Images of the same shape; what is moved in, or cut out, is 0.
    """
    if "brightness" in draws:
        images = images + _per_image(draws["brightness"])
        images = _spread(images, images.mean(3, keepdims=True), draws["saturation"])
        images = _spread(images, images.mean((1, 2, 3), keepdims=True), draws["contrast"])
    if "shift" in draws:
        images = translate(images, draws["shift"])
    if "cutout" in draws:
        images = images * _outside(images.shape[1], draws["cutout"], draws["is_cut"])[..., None]
    return images


def translate(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Moves every image by its own whole number of pixels; what comes in is 0.

    Args:
      images: [n, H, W, C], H = W.
      shift: int32 [n, 2], along rows and columns.
    """
    place = jnp.arange(images.shape[1])
    # Products with matrices of 0 and 1: a slice of each image at a place of its own would be a
    # gather, which TPUs are slow at.
    rows, columns = (
        (place[None, :, None] - place[None, None, :] == shift[:, i, None, None]).astype(
            images.dtype
        )
        for i in range(2)
    )
    exact = jax.lax.Precision.HIGHEST
    images = jnp.einsum("nph,nhwc->npwc", rows, images, precision=exact)
    return jnp.einsum("nqw,npwc->npqc", columns, images, precision=exact)


def _outside(size: int, centre: jax.Array, is_cut: jax.Array) -> jax.Array:
    """[n, size, size] of images' dtype: 0 inside the square, 1 outside."""
    start = centre - size // 2 // 2
    at = jnp.arange(size)[None, None, :] - start[:, :, None]
    inside = (at >= 0) & (at < size // 2)  # [n, 2, size]
    cut = inside[:, 0, :, None] & inside[:, 1, None, :] & is_cut[:, None, None]
    return jnp.where(cut, 0.0, 1.0)


def _spread(images: jax.Array, mean: jax.Array, factor: jax.Array) -> jax.Array:
    return (images - mean) * _per_image(factor) + mean


def _per_image(x: jax.Array) -> jax.Array:
    return x[:, None, None, None]
