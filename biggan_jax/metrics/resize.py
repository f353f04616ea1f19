"""Resizing exactly as the published feature extractors do it.

FID differs by whole points between resize rules, so each rule is kept as its framework has it, the
lack of antialiasing included (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in
GAN Evaluation"). All rules are separable: two small matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np

RULES = ("tf1", "pytorch_fid", "clean")
_CUBIC = -0.5  # of Keys' cubic convolution, as Pillow has it; OpenCV and PyTorch take -0.75


def matrix(size: int, new_size: int, rule: str) -> np.ndarray:
    """Weights of the old pixels in each new pixel along one axis.

    Args:
      size: old number of pixels, at least 1.
      new_size: new number of pixels, at least 1.
      rule: `tf1`, TensorFlow 1's `resize_bilinear`: new pixel i reads at i * size / new_size, with
        neither half-pixel centres nor aligned corners; `pytorch_fid`, PyTorch's `interpolate` with
        `align_corners=False`: it reads at (i + 1/2) * size / new_size - 1/2; `clean`, Pillow's
        antialiased bicubic resizing of float images, which clean-fid takes.

    Returns:
      float64 [new_size, size], with rows that sum to 1; at most two entries of each are not zero,
      except where `clean` takes four, or when it shrinks four times size / new_size.
    """
    assert rule in RULES, rule
    if rule == "clean":
        return _bicubic(size, new_size)
    shift = 0.5 if rule == "pytorch_fid" else 0.0
    at = (np.arange(new_size) + shift) * (size / new_size) - shift
    at = np.clip(at, 0, size - 1)  # both rules repeat the edge pixel
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, size - 1)
    rows = np.arange(new_size)
    weights = np.zeros((new_size, size))
    np.add.at(weights, (rows, low), 1 - (at - low))
    np.add.at(weights, (rows, high), at - low)
    return weights


def _bicubic(size: int, new_size: int) -> np.ndarray:
    """Keys' cubic kernel, stretched where the image shrinks; cut and renormalised at the edge."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    centre = (np.arange(new_size)[:, None] + 0.5) * scale
    x = np.abs(np.arange(size) + 0.5 - centre) / stretch
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def resized(images: jax.Array, size: int, rule: str) -> jax.Array:
    """Resizes images to a square.

    Args:
      images: float32 [N, H, W, C]; any range, but for `clean` 0 to 255, which it clips to.
      size: new height and width in pixels.
      rule: as for `matrix`.

    Returns:
      float32 [N, size, size, C]; not rounded, as neither framework rounds.
    """
    _, height, width, _ = images.shape
    # The default precision of accelerators rounds the factors to 8 or 10 bits.
    exact = jax.lax.Precision.HIGHEST
    if height != size:
        rows = jnp.asarray(matrix(height, size, rule), images.dtype)
        images = jnp.einsum("ph,nhwc->npwc", rows, images, precision=exact)
    if width != size:
        columns = jnp.asarray(matrix(width, size, rule), images.dtype)
        images = jnp.einsum("qw,npwc->npqc", columns, images, precision=exact)
    # A cubic overshoots, and clean-fid cuts that off.
    return jnp.clip(images, 0, 255) if rule == "clean" else images
