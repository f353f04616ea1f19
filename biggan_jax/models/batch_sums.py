"""Batch normalisation by the moments of one whole batch, with one sum over the devices each way.

Forward the sum holds what makes up mean and variance, backward what flows through both. The
backward is that of the textbook: one pass over x for the sums, one that writes its gradient.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import layout, place_sums, remat
from biggan_jax.models.batch_groups import manual_axes


@dataclasses.dataclass(frozen=True)
class Split:
    """How a batch lies on devices.

    Attributes:
      parts: equal parts of the examples at hand, in order, each of which lies on one device.
      axes: over whose devices the rest of the batch lies, inside `jax.shard_map`; none under jit,
        which sees all of it.
      one_pass: whether moments are taken by one pass over the examples; see `_within`.
    """

    parts: int
    axes: tuple[str, ...]
    one_pass: bool = False

    @property
    def devices(self) -> int:
        """All devices over which the batch lies."""
        return self.parts * (lax.axis_size(self.axes) if self.axes else 1)

    def sum(self, x: jax.Array) -> jax.Array:
        """x summed over its second axis and over the devices, by one all-reduce."""
        here = x.sum(1)
        return lax.psum(here, self.axes) if self.axes else here


def split_of(examples: int, mesh: jax.sharding.Mesh | None) -> Split:
    """How a batch lies on the devices of the mesh, if one is known.

    Args:
      examples: of the batch at hand: all under jit, those of one device inside `jax.shard_map`.
      mesh: over which training batches are split.
    """
    axes = manual_axes()
    parts = 1 if mesh is None or axes or examples % mesh.size else mesh.size
    return Split(parts, axes, mesh is not None and layout.platform(mesh) == "gpu")


def moments(x: jax.Array, center: jax.Array, split: Split) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of a batch, by one sum over the devices.

    E[x^2] - E[x]^2 in float32 loses a std of 0.01 beside a mean of 1000. So each device takes the
    moments of its part in two passes, and only the means of the parts are compared by their
    squares, about `center`: those of their leading bits, which add without rounding, and what is
    left. Where the means agree to rounding, because they are far from the center, their variance is
    unknown: it is taken for 0, and the variance of the batch is the mean of those within the parts.

    Args:
      x: [N, H, W, C], at least float32.
      center: [C], the same on all devices; the nearer to the mean, the better.
      split: how the batch lies on devices.

    Returns:
      (mean, var), [C] each.

    References:
      Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
    """
    mean_PC, within_PC = _within(x.reshape(split.parts, -1, *x.shape[1:]), split.one_pass)
    if split.devices == 1:
        return mean_PC[0], within_PC[0]
    away_PC = mean_PC - center[None]
    coarse_PC = lax.stop_gradient(_leading_bits(away_PC, 3))
    fine_PC = away_PC - coarse_PC
    cross_PC = fine_PC * (2 * coarse_PC + fine_PC)
    sums = split.sum(jnp.stack([coarse_PC, jnp.square(coarse_PC), fine_PC, cross_PC, within_PC]))
    n, coarse = split.devices, sums[0] / split.devices
    fine, cross, within = sums[2:] / n
    away = coarse + fine
    between = _spread(sums[0], sums[1], n) + (cross - fine * (2 * coarse + fine))
    return center + away, within + jnp.where(between > _rounding(away, n), between, 0)


def _within(x_PNHWC: jax.Array, one_pass: bool) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each part, [P, C].

    Two passes, or on GPUs, where the second one reads all of x from memory again, one: its sums are
    about the mean of each part's first example. That is at most sqrt(N) standard deviations of N
    examples away from their mean, so that the difference of squares loses log2(N) bits at most.
    """
    if not one_pass:
        mean_PC = place_sums.mean(x_PNHWC)
        return mean_PC, place_sums.mean(jnp.square(x_PNHWC - mean_PC[:, None, None, None]))
    near_PC = x_PNHWC[:, 0].mean((1, 2))
    offset = x_PNHWC - near_PC[:, None, None, None]
    away_PC, squares_PC = offset.mean((1, 2, 3)), jnp.square(offset).mean((1, 2, 3))
    return near_PC + away_PC, jnp.maximum(squares_PC - jnp.square(away_PC), 0)


def _leading_bits(x: jax.Array, part: int) -> jax.Array:
    """x rounded to a part (a half, a third) of its bits."""
    info = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, info.nexp, (info.nmant + 1) // part - 1)


def _spread(total: jax.Array, squares: jax.Array, n: int) -> jax.Array:
    """squares / n - (total / n)^2, as exact as both sums are: they cancel in exact products."""
    half, half_squares = _leading_bits(total, 2), _leading_bits(squares, 2)
    rest = total - half
    large = n * half_squares - jnp.square(half)
    return (large + (n * (squares - half_squares) - rest * (2 * half + rest))) / n**2


def _rounding(away: jax.Array, n: int) -> jax.Array:
    """What `between` may be by rounding alone: the coarse squares of few devices add exactly."""
    info = jnp.finfo(away.dtype)
    bits = info.nmant + 1
    exact = n <= 2 ** (bits - 2 * (bits // 3))
    return (2.0**-5 if exact else 4.0) * info.eps * jnp.square(away)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def normalize(
    x: jax.Array,
    gain: jax.Array,
    bias: jax.Array,
    center: jax.Array,
    eps: float,
    dtype: np.dtype,
    split: Split,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x - mean) / sqrt(var + eps) * gain + bias, with the moments of the batch.

    Args:
      x: [N, H, W, C].
      gain, bias: [N, C], or [1, C] for all examples alike; at least float32.
      center: of `moments`.
      eps: added to the variance.
      dtype: of the result.
      split: how the batch lies on devices.

    Returns:
      (y, mean, var): [N, H, W, C], and [C] twice. No gradient flows through the moments returned.

    References:
      Ioffe and Szegedy 2015, section 3: the gradient.
    """
    return _forward(x, gain, bias, center, eps, dtype, split)[0]


def _forward(x, gain, bias, center, eps, dtype, split):
    wide = x.astype(gain.dtype)
    # Kept where the block is recomputed: its moments would be summed over the devices again.
    mean, var = remat.keep(moments(wide, lax.stop_gradient(center), split))
    rstd = lax.rsqrt(var + eps)
    scale_NC = rstd[None] * gain
    y = (wide - mean[None, None, None]) * scale_NC[:, None, None] + bias[:, None, None]
    return (y.astype(dtype), mean, var), (x, gain, mean, rstd)


def _backward(eps, dtype, split, residuals, gradients):
    x, gain, mean, rstd = residuals
    dy = gradients[0].astype(gain.dtype)
    offset = x.astype(gain.dtype) - mean[None, None, None]
    # By example: gradients of bias and gain.
    of_bias, of_gain = map(place_sums.by_example, (dy, dy * offset))
    sums_NC = jnp.stack([of_bias, of_gain * rstd[None]])
    d_bias, d_gain = sums_NC if len(gain) == len(x) else sums_NC.sum(1, keepdims=True)
    if len(gain) == 1 and not split.axes:
        through = gain * jnp.concatenate([d_bias, d_gain])  # of all examples: no other all-reduce
    else:
        # Inside `jax.shard_map` a single gain is that of the only example, or the device's copy.
        through = split.sum(sums_NC * gain[None])
    count = x.size // x.shape[-1] // split.parts * split.devices
    of_mean, of_scale = rstd * through[0] / count, rstd * rstd * through[1] / count
    scale_NC = rstd[None] * gain
    dx = scale_NC[:, None, None] * dy - (
        of_mean[None, None, None] + offset * of_scale[None, None, None]
    )
    return dx.astype(x.dtype), d_gain, d_bias, None


normalize.defvjp(_forward, _backward)
