"""Affine warps of images with little aliasing, as ADA does them.

An image is padded by reflection, upsampled twice with a wavelet's low-pass filter, sampled
bilinearly where the map says, and downsampled again with the same filter. Padding and filters are
linear and separable: one matrix an axis.

References:
  Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Low-pass filter of the wavelet sym6 (Daubechies 1992, table 8.3, and PyWavelets).
SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
_TAPS = SYM6 / SYM6.sum()
_EDGE = len(SYM6) // 4  # pixels around the result that the filter reads
_OUTSIDE = 2  # zeros around the upsampled image, for what is sampled outside of it
_LARGEST_BY_PRODUCTS = 64  # pixels: the work of `_by_products` grows as the fourth power
_EXACT = jax.lax.Precision.HIGHEST


def warp(images: jax.Array, inverse: jax.Array, on_tpu: bool = False) -> jax.Array:
    """Moves the content of every image by a map of its own.

    Differs from the authors' code, where the reflection reaches as far as the maps of a batch need:
    here it always reaches H - 1 pixels, their largest, since shapes are static.

    Args:
      images: [n, H, W, C], H = W.
      inverse: [n, 2, 3], from places of the result to those of the image, both (x, y) in pixels
        from the centre, x to the right and y downwards.
      on_tpu: whether this will run on TPUs, where gathers are slow.

    Returns:
      Images of the same shape; 0 where the map reaches beyond the reflection.
    """
    size = images.shape[1]
    up, down = upsampling(size), downsampling(size)
    x, y = _places(size, inverse)
    if on_tpu and size <= _LARGEST_BY_PRODUCTS:
        sampled = _by_products(images, up, x, y)
    else:
        sampled = _by_gathers(along_axes(images, up, up), x, y)
    return along_axes(sampled, down, down)


def along_axes(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Applies a matrix [H', H] to the columns of images and one [W', W] to their rows."""
    rows, columns = (jnp.asarray(m, images.dtype) for m in (rows, columns))
    images = jnp.einsum("ph,nhwc->npwc", rows, images, precision=_EXACT)
    return jnp.einsum("qw,npwc->npqc", columns, images, precision=_EXACT)


def reflection(size: int, margin: int) -> np.ndarray:
    """The matrix [size + 2 margin, size] of a reflection that repeats no edge."""
    period = max(2 * (size - 1), 1)
    place = np.arange(-margin, size + margin) % period
    return np.eye(size)[np.minimum(place, period - place)]


@functools.cache
def upsampling(size: int) -> np.ndarray:
    """Reflection, zeros between pixels, filter: [2 (3 size - 2) + 2 _OUTSIDE, size]."""
    margin = size - 1
    padded = size + 2 * margin
    tap = 5 + np.arange(2 * padded)[:, None] - 2 * np.arange(padded)[None, :]
    matrix = 2 * _taken(_TAPS, tap) @ reflection(size, margin)
    return np.pad(matrix, ((_OUTSIDE, _OUTSIDE), (0, 0)))


@functools.cache
def downsampling(size: int) -> np.ndarray:
    """Filter, every second value, and the edge cut off: [size, 2 (size + 2 _EDGE)]."""
    tap = np.arange(2 * (size + 2 * _EDGE))[None, :] - 1 - 2 * np.arange(size)[:, None]
    return _taken(_TAPS, tap)


def _taken(taps: np.ndarray, index: np.ndarray) -> np.ndarray:
    """taps[index], 0 where there is none."""
    inside = (index >= 0) & (index < len(taps))
    return np.where(inside, taps[np.clip(index, 0, len(taps) - 1)], 0.0)


def _places(size: int, inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the values of the result, twice as many, lie in the upsampled image: x, y [n, P, P]."""
    # Between two pixels of the upsampled image lies half a pixel, and its first one a quarter
    # before the image's own.
    u = jnp.asarray((np.arange(2 * (size + 2 * _EDGE)) + 1 - size - 2 * _EDGE) / 2, inverse.dtype)
    a = inverse[..., None, None]
    x, y = (
        a[:, i, 0] * u[None, None, :] + a[:, i, 1] * u[None, :, None] + a[:, i, 2] for i in (0, 1)
    )
    first = 3 * size - 3  # of the centre, in values of the upsampled image
    return 2 * x + first, 2 * y + first


def _between(place: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """(index of the value before a place, weight of the one behind it), for linear interpolation.

    Args:
      place: any shape, in values of an image that has `_OUTSIDE` zeros around it.
      length: of this axis of the image, without them.
    """
    before = jnp.floor(place)
    index = jnp.clip(before, -_OUTSIDE, length).astype(jnp.int32) + _OUTSIDE
    return index, place - before


def _by_gathers(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Bilinear samples [n, P, P, C] of upsampled images [n, L, L, C]."""
    n, length, _, channels = image.shape
    (ix, wx), (iy, wy) = (_between(place, length - 2 * _OUTSIDE) for place in (x, y))
    flat, first = image.reshape(n, -1, channels), (iy * length + ix).reshape(n, -1)

    def at(offset: int) -> jax.Array:
        one = jax.vmap(lambda values, i: values.at[i].get(mode="promise_in_bounds"))
        return one(flat, first + offset).reshape(*ix.shape, channels)

    wx, wy = wx[..., None], wy[..., None]
    above = (1 - wx) * at(0) + wx * at(1)
    below = (1 - wx) * at(length) + wx * at(length + 1)
    return (1 - wy) * above + wy * below


def _by_products(images: jax.Array, up: np.ndarray, x: jax.Array, y: jax.Array) -> jax.Array:
    """The samples of `_by_gathers`, upsampling included, by products of matrices alone."""
    n, points = len(images), x.shape[1:]
    up = jnp.asarray(up, images.dtype)
    values = jnp.arange(len(up), dtype=images.dtype) - _OUTSIDE

    def weights(place: jax.Array) -> jax.Array:
        """[n, points, size]: how much every pixel along an axis has of every sample."""
        far = jnp.abs(place.reshape(n, -1, 1) - values[None, None, :])
        return jnp.einsum("npl,lh->nph", jnp.maximum(1 - far, 0), up, precision=_EXACT)

    rows = jnp.einsum("nph,nhwc->npwc", weights(y), images, precision=_EXACT)
    found = jnp.einsum("npw,npwc->npc", weights(x), rows, precision=_EXACT)
    return found.reshape(n, *points, -1)
