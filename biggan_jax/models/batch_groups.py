"""Several groups of a batch, each with its moments: under jit, and in the program of one device."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from biggan_jax.models import place_sums

Pair = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of consecutive examples, all of which are at hand.

    Attributes:
      examples: how many are at hand.
      size: examples of a group.
      axes: over whose devices the rest of the batch lies; none under jit, which sees all of it.
    """

    examples: int
    size: int
    axes: tuple[str, ...]

    def moments(self, x: jax.Array) -> Pair:
        """Mean and biased variance of x [N, H, W, C] by group, [groups, C]."""
        x_GNHWC = x.reshape(self.examples // self.size, -1, *x.shape[1:])
        # Two passes: E[x^2] - E[x]^2 in float32 loses a std of 0.01 beside a mean of 1000.
        mean = place_sums.mean(x_GNHWC)
        var = place_sums.mean(jnp.square(x_GNHWC - mean[:, None, None, None]))
        return mean, var

    def average(self, moments: Pair) -> Pair:
        """The mean over all groups of the global batch, [C]."""
        means = jnp.stack(moments).mean(1)  # together: one all-reduce
        mean, var = lax.pmean(means, self.axes) if self.axes else means
        return mean, var

    def to_examples(self, moments: Pair) -> Pair:
        """What holds for each example, [N, C]."""
        mean, var = (jnp.repeat(m, self.size, axis=0) for m in moments)
        return mean, var


class SharedGroups(Groups):
    """Groups whose examples lie on several devices; each device knows the moments of all groups."""

    def moments(self, x: jax.Array) -> Pair:
        mean = self._sum(x.mean((1, 2)))
        deviation = x - mean[self._own()][:, None, None, :]
        return mean, self._sum(jnp.square(deviation).mean((1, 2)))

    def average(self, moments: Pair) -> Pair:
        mean, var = (m.mean(0) for m in moments)
        return mean, var

    def to_examples(self, moments: Pair) -> Pair:
        mean, var = (m[self._own()] for m in moments)
        return mean, var

    def _count(self) -> int:
        return self.examples * lax.axis_size(self.axes) // self.size

    def _own(self) -> jax.Array:
        """Which group each example at hand belongs to, [N]."""
        first = lax.axis_index(self.axes) * self.examples
        return (first + jnp.arange(self.examples)) // self.size

    def _sum(self, x: jax.Array) -> jax.Array:
        here = jax.ops.segment_sum(x / self.size, self._own(), self._count())
        return lax.psum(here, self.axes)


def whole_batch(examples: int) -> int:
    """Examples of the global batch.

    Under jit the batch at hand is the global one, however it is sharded. Inside `jax.shard_map` it
    is one device's part.

    Args:
      examples: of the batch at hand.
    """
    axes = manual_axes()
    return examples * (lax.axis_size(axes) if axes else 1)


def manual_axes() -> tuple[str, ...]:
    """The axes over whose devices the program is written by hand; none under jit alone."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def groups_of(examples: int, size: int) -> Groups:
    """The groups into which a batch falls.

    Args:
      examples: of the batch at hand, as `whole_batch` takes it.
      size: of a group, less than the global batch.

    Raises:
      ValueError: when the groups do not divide the global batch.
    """
    total = whole_batch(examples)
    if total % size:
        raise ValueError(f"bn_group_size {size} does not divide a batch of {total} examples")
    return (Groups if examples % size == 0 else SharedGroups)(examples, size, manual_axes())
