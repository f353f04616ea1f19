"""The augmentations of ADA: every image by itself, differentiable, pure functions of a key.

`draw` gives what `transform` does to every image; each transform is done with a probability p, and
what is not done is drawn as the value that changes nothing.

References:
  Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B
  (figure 2 and algorithm 1 there), and the authors' code, whose order and constants these are.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.training import warp

Draws = dict[str, jax.Array]
GROUPS = ("blit", "geometric", "colour", "filter", "noise", "cutout")  # in the order they are done

MAX_SHIFT = 0.125  # of pixel blitting, share of the size
SCALE_STD, STRETCH_STD = 0.2, 0.2  # of the logarithms to base 2
MOVE_STD = 0.125  # of fractional translation, share of the size
BRIGHTNESS_STD, NOISE_STD = 0.2, 0.1  # where images are in [-1, 1]
CONTRAST_STD, SATURATION_STD, GAIN_STD = 0.5, 1.0, 1.0  # of the logarithms to base 2
CUTOUT_SIZE = 0.5  # share of the size
POWER = np.array([10, 1, 1, 1]) / 13  # expected in the bands of `filter_bank`: 1 / f
SYM2 = np.array([-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025])


def draw(
    key: jax.Array,
    groups: Sequence[str],
    n: int,
    p: float | jax.Array,
    dtype=jnp.float32,
    noise_shape: tuple[int, ...] = (),
) -> Draws:
    """Draws what `transform` does to every image.

    Args:
      key: of these images.
      groups: some of `GROUPS`.
      n: how many images.
      p: probability of each transform for each image, in [0, 1].
      dtype: of the images.
      noise_shape: (H, W, C) of an image, of which `noise` draws one.

    Returns:
      Arrays with a first axis of n by name, those of the groups alone. blit: `flip` 0 or 1,
      `quarters` 0 to 3 turns by 90 degrees, `shift` [n, 2] (x, y), share of the size. geometric:
      `scale`, `rotation`, `stretch` (of the width, in which the height shrinks), `last_rotation`,
      `move` [n, 2]; rotations in radians. colour: `brightness`, `contrast`, `luma_flip` 0 or 1,
      `hue` in radians, `saturation`. filter: `gains` [n, 4] of the bands. noise: `noise`
      [n, H, W, C]. cutout: `cutout` [n], size, and `centre` [n, 2], shares of the size.
    """
    keys = {g: jax.random.fold_in(key, i) for i, g in enumerate(GROUPS)}
    one = functools.partial(_Draw, n=n, p=p, dtype=dtype)
    found = {}
    if "blit" in groups:
        d = one(keys["blit"])
        found["flip"] = jnp.floor(d.uniform(0, 2, idle=0))
        found["quarters"] = jnp.floor(d.uniform(0, 4, idle=0))
        found["shift"] = d.uniform(-MAX_SHIFT, MAX_SHIFT, idle=0, width=2)
    if "geometric" in groups:
        d = one(keys["geometric"])
        found["scale"] = jnp.exp2(d.normal(SCALE_STD))
        # Once before and once after the stretch, together with probability p.
        half = 1 - jnp.sqrt(jnp.clip(1 - jnp.asarray(p, dtype), 0, 1))
        found["rotation"] = d.uniform(-math.pi, math.pi, idle=0, p=half)
        found["stretch"] = jnp.exp2(d.normal(STRETCH_STD))
        found["last_rotation"] = d.uniform(-math.pi, math.pi, idle=0, p=half)
        found["move"] = d.normal(MOVE_STD, width=2)
    if "colour" in groups:
        d = one(keys["colour"])
        found["brightness"] = d.normal(BRIGHTNESS_STD)
        found["contrast"] = jnp.exp2(d.normal(CONTRAST_STD))
        found["luma_flip"] = jnp.floor(d.uniform(0, 2, idle=0))
        found["hue"] = d.uniform(-math.pi, math.pi, idle=0)
        found["saturation"] = jnp.exp2(d.normal(SATURATION_STD))
    if "filter" in groups:
        d = one(keys["filter"])
        found["gains"] = jnp.stack([jnp.exp2(d.normal(GAIN_STD)) for _ in POWER], axis=1)
    if "noise" in groups:
        d = one(keys["noise"])
        sigma = jnp.abs(d.normal(NOISE_STD)).reshape(n, *[1] * len(noise_shape))
        found["noise"] = sigma * jax.random.normal(d.next_key(), (n, *noise_shape), dtype)
    if "cutout" in groups:
        d = one(keys["cutout"])
        found["cutout"] = jnp.where(d.is_done(p), CUTOUT_SIZE, 0.0).astype(dtype)
        found["centre"] = jax.random.uniform(d.next_key(), (n, 2), dtype)
    return found


class _Draw:
    """Values of n images, drawn one after another from one key."""

    def __init__(self, key: jax.Array, n: int, p: float | jax.Array, dtype):
        self._key, self._n, self._p, self._dtype, self._count = key, n, p, dtype, 0

    def next_key(self) -> jax.Array:
        self._count += 1
        return jax.random.fold_in(self._key, self._count)

    def is_done(self, p: float | jax.Array) -> jax.Array:
        """[n], each true with a probability."""
        return jax.random.uniform(self.next_key(), (self._n,), self._dtype) < p

    def uniform(self, low: float, high: float, *, idle: float, width: int = 0, p=None):
        """From low to below high, where a transform is done, elsewhere `idle`."""
        draw = functools.partial(jax.random.uniform, minval=low, maxval=high)
        return self._where_done(draw, idle, width, self._p if p is None else p)

    def normal(self, std: float, width: int = 0) -> jax.Array:
        """Of mean 0, where a transform is done, elsewhere 0."""
        return std * self._where_done(jax.random.normal, 0.0, width, self._p)

    def _where_done(self, draw: Callable, idle: float, width: int, p) -> jax.Array:
        shape = (self._n, width) if width else (self._n,)
        values = draw(self.next_key(), shape, self._dtype)
        done = self.is_done(p)
        return jnp.where(done[:, None] if width else done, values, idle)


def transform(images: jax.Array, draws: Draws, on_tpu: bool = False) -> jax.Array:
    """Augments images.

    Args:
      images: [n, H, W, C] in [-1, 1], H = W; with one channel hue and saturation change nothing.
      draws: from `draw`.
      on_tpu: whether this will run on TPUs.

    Returns:
      Images of the same shape, not clipped.
    """
    size = images.shape[1]
    if "flip" in draws or "scale" in draws:
        images = warp.warp(images, geometry(draws, size), on_tpu)
    if "brightness" in draws:
        images = _coloured(images, colours(draws, images.shape[3]))
    if "gains" in draws:
        images = _filtered(images, draws["gains"])
    if "noise" in draws:
        images = images + draws["noise"]
    if "cutout" in draws:
        images = images * _uncut(size, draws["cutout"], draws["centre"])
    return images


def geometry(draws: Draws, size: int) -> jax.Array:
    """The inverse maps [n, 2, 3] of blitting and geometric transforms, in pixels, for `warp`."""
    maps = []
    if "flip" in draws:
        maps += [_scaling(1 - 2 * draws["flip"], jnp.ones_like(draws["flip"]))]
        maps += [_rotation(math.pi / 2 * draws["quarters"])]
        maps += [_translation(-jnp.round(draws["shift"] * size))]
    if "scale" in draws:
        maps += [_scaling(1 / draws["scale"], 1 / draws["scale"]), _rotation(draws["rotation"])]
        maps += [_scaling(1 / draws["stretch"], draws["stretch"])]
        maps += [_rotation(draws["last_rotation"]), _translation(-draws["move"] * size)]
    return functools.reduce(_product, maps)[:, :2]


def colours(draws: Draws, channels: int) -> jax.Array:
    """The affine maps [n, 3, 4] of colours: (r, g, b, 1) in [-1, 1] to (r, g, b)."""
    dtype = draws["brightness"].dtype
    brightness, contrast, flip = (
        draws[name][:, None, None] for name in ("brightness", "contrast", "luma_flip")
    )
    rgb = jnp.diag(jnp.asarray([1, 1, 1, 0], dtype))
    last = jnp.diag(jnp.asarray([0, 0, 0, 1], dtype))
    grey = jnp.asarray(np.outer([1, 1, 1, 0], [1, 1, 1, 0]) / 3, dtype)  # projects onto its axis
    offset = jnp.asarray(np.outer([1, 1, 1, 0], [0, 0, 0, 1]), dtype)
    rgb, last, grey, offset = (m[None] for m in (rgb, last, grey, offset))
    maps = [rgb + last + brightness * offset, contrast * rgb + last, rgb + last - 2 * flip * grey]
    if channels > 1:
        hue, saturation = draws["hue"][:, None, None], draws["saturation"][:, None, None]
        cross = np.pad([[[0, -1, 1], [1, 0, -1], [-1, 1, 0]]], ((0, 0), (0, 1), (0, 1)))
        turn = jnp.cos(hue) * (rgb - grey)
        turn = turn + jnp.sin(hue) * jnp.asarray(cross / math.sqrt(3), dtype)
        maps += [grey + last + turn]  # Rodrigues' rotation about the axis of grey
        maps += [grey + last + saturation * (rgb - grey)]
    return functools.reduce(_product, reversed(maps))[:, :3]


def _coloured(images: jax.Array, maps: jax.Array) -> jax.Array:
    if images.shape[3] == 1:
        # As the authors: the mean of what comes of a grey pixel's three equal channels.
        maps = maps.mean(1)
        factor, offset = maps[:, :3].sum(1), maps[:, 3]
        return images * factor[:, None, None, None] + offset[:, None, None, None]
    factors, offset = maps[:, :, :3], maps[:, :, 3]
    return _sum("nhwc,ndc->nhwd", images, factors) + offset[:, None, None, :]


@functools.cache
def filter_bank() -> np.ndarray:
    """Four bands of octaves [4, 43], the lowest first, whose sum passes everything.

    References:
      Karras et al. 2020, appendix B, equations 6 to 9 and figure 20 (the bank of sym2).
    """
    low, high = (np.convolve(h, h[::-1]) / 2 for h in (SYM2, SYM2 * (-1.0) ** np.arange(4)))
    bands = np.eye(4, 1)
    for i in range(1, 4):
        spread = np.zeros((4, 2 * bands.shape[1] - 1))
        spread[:, ::2] = bands
        bands = np.stack([np.convolve(band, low) for band in spread])
        start = (bands.shape[1] - len(high)) // 2
        bands[i, start : start + len(high)] += high
    return bands


@functools.cache
def _band_matrices(size: int) -> np.ndarray:
    """The filters of the bank along an axis, which is continued by reflection: [4, size, size]."""
    taps = filter_bank()
    margin = taps.shape[1] // 2
    windows = np.eye(size + 2 * margin)
    rows = [sum(t * windows[k : k + size] for k, t in enumerate(band)) for band in taps]
    return np.stack(rows) @ warp.reflection(size, margin)


def _filtered(images: jax.Array, gains: jax.Array) -> jax.Array:
    """Images whose bands are amplified, the power expected of them kept."""
    total = jnp.ones_like(gains)
    for i, share in enumerate(POWER):
        own = gains[:, i, None]
        kept = jnp.where(jnp.arange(len(POWER)) == i, own, 1.0)
        total = total * kept / jnp.sqrt(1 - share + share * jnp.square(own))
    matrices = _sum("nb,bph->nph", total, jnp.asarray(_band_matrices(images.shape[1]), gains.dtype))
    images = _sum("nph,nhwc->npwc", matrices, images)
    return _sum("nqw,npwc->npqc", matrices, images)


def _uncut(size: int, cutout: jax.Array, centre: jax.Array) -> jax.Array:
    """[n, size, size, 1]: 0 inside a rectangle, 1 outside."""
    place = jnp.asarray((np.arange(size) + 0.5) / size, centre.dtype)
    far = (
        jnp.abs(place[None, None, :] - centre[..., None]) >= cutout[:, None, None] / 2
    )  # [n, (x, y), size]
    return (far[:, 0, None, :] | far[:, 1, :, None])[..., None].astype(centre.dtype)


def _scaling(x: jax.Array, y: jax.Array) -> jax.Array:
    return _map(x, 0, 0, 0, y, 0)


def _rotation(angle: jax.Array) -> jax.Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _map(cos, -sin, 0, sin, cos, 0)


def _translation(by: jax.Array) -> jax.Array:
    return _map(1, 0, by[:, 0], 0, 1, by[:, 1])


def _map(*rows: jax.Array | float) -> jax.Array:
    """[n, 3, 3] of the first two rows of an affine map, of numbers and arrays [n]."""
    like = next(x for x in rows if isinstance(x, jax.Array))
    values = [jnp.broadcast_to(jnp.asarray(x, like.dtype), like.shape) for x in (*rows, 0, 0, 1)]
    return jnp.stack(values, axis=1).reshape(-1, 3, 3)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return _sum("nij,njk->nik", a, b)


def _sum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)
