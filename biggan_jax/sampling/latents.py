"""Latents by seed and number."""

import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks
from biggan_jax.models import latents

KINDS = ("resample", "scale")
BLOCK = 256  # latents of one call: a program of one size serves every number of samples


def check(seed: int, truncation: float | None, kind: str, distribution: str) -> None:
    """Raises UserError unless `draw` takes these arguments."""
    latents.check_truncation(truncation, distribution)
    if kind not in KINDS:
        raise UserError(f"truncation kind is {kind!r}; it must be resample or scale")
    checks.seed(seed)


def draw(
    seed: int,
    numbers: range,
    dim_z: int,
    *,
    truncation: float | None,
    kind: str,
    distribution: str,
    any_truncation: bool = False,
) -> np.ndarray:
    """Draws the latents of some samples of a seed.

    The latent of a sample is a function of the seed and its number alone, bit for bit: it is always
    computed by the same program, at the same place of a block.

    Args:
      seed: an integer of 32 bits, with or without a sign; -1 is the same as 2**32 - 1.
      numbers: consecutive numbers of samples, at least 0.
      dim_z: length of a latent.
      truncation, kind: see `LoadedGenerator.sample_z`.
      distribution: a name of `models.latents.DISTRIBUTIONS`.
      any_truncation: one program serves every threshold, for who tries many of them; its entries
        may differ by their rounding.

    Returns:
      z [len(numbers), dim_z], float32.

    Raises:
      UserError: see `check`.
    """
    check(seed, truncation, kind, distribution)
    if not numbers:
        return np.zeros((0, dim_z), np.float32)
    key = jax.random.key(int(seed))
    # A constant of the program: XLA may round a truncation that it is given as an argument
    # differently, and the latents of a seed stay what they were.
    truncation = None if truncation is None else float(truncation)
    block = _block
    if any_truncation and truncation is not None:
        block, truncation = _block_of_any_truncation, np.float32(truncation)
    first = numbers.start // BLOCK * BLOCK
    blocks = [  # all under way before the first is waited for
        block(key, np.int32(start), dim_z, distribution, truncation, kind)
        for start in range(first, numbers.stop, BLOCK)
    ]
    z = np.concatenate([np.asarray(block) for block in blocks])
    return z[numbers.start - first : numbers.stop - first]


def great_circle(a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Interpolates latents so that their norm stays typical of N(0, I), unlike a straight line.

    Args:
      a, b: latents [dim_z].
      shares: of the way from a to b [N]; 0 is a, 1 is b.

    Returns:
      [N, dim_z], float32.
    """
    cosine = np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    t = np.asarray(shares, np.float64)[:, None]
    if np.sin(angle) < 1e-6:
        return ((1 - t) * a + t * b).astype(np.float32)
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)).astype(
        np.float32
    )


def labels(seed: int, count: int, num_classes: int) -> np.ndarray:
    """Draws class ids, int32 [count], evenly from [0, num_classes)."""
    return np.random.default_rng(checks.seed(seed)).integers(0, num_classes, count, np.int32)


def _drawn(
    key: jax.Array,
    start: jax.Array,
    dim_z: int,
    distribution: str,
    truncation: float | jax.Array | None,
    kind: str,
) -> jax.Array:
    """The latents `start` to `start + BLOCK - 1`."""

    def one(number: jax.Array) -> jax.Array:
        first, redraw = jax.random.split(jax.random.fold_in(key, number))
        z = latents.sample(first, (dim_z,), distribution=distribution)
        if truncation is None:
            return z
        return latents.truncate(redraw, z, truncation, distribution, kind)

    return jax.vmap(one)(start + jnp.arange(BLOCK))


_block = jax.jit(_drawn, static_argnames=("dim_z", "distribution", "truncation", "kind"))
_block_of_any_truncation = jax.jit(_drawn, static_argnames=("dim_z", "distribution", "kind"))
