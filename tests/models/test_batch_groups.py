"""Batch norm's moments: the global batch at hand, or one part of it on each device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models.batch_groups import Groups, SharedGroups, groups_of
from biggan_jax.parallel import sharding

# Sixteen examples on eight devices, two on each.
CASES = [(1, Groups), (2, Groups), (4, SharedGroups), (8, SharedGroups)]


def normalized(x, size, expected=None):
    """(normalised x, running moments) as `BatchNorm` computes them."""
    groups = groups_of(x.shape[0], size)
    assert expected is None or type(groups) is expected
    moments = groups.moments(x)
    mean, var = (m[:, None, None] for m in groups.to_examples(moments))
    return (x - mean) / jnp.sqrt(var + 1e-5), groups.average(moments)


@pytest.mark.parametrize(("size", "kind"), CASES)
@pytest.mark.parametrize("shape", [(8, 1), pytest.param((4, 2), marks=pytest.mark.full)])
def test_devices_with_parts_agree_with_the_whole(size, kind, shape):
    mesh = sharding.make_mesh(shape)
    x = 3 + jax.random.normal(jax.random.key(0), (16, 4, 4, 3))
    weights = jax.random.normal(jax.random.key(1), x.shape)

    def split(x):
        part = lambda _, shared, x: normalized(x, size, kind)
        return sharding.by_device(part, mesh)((), (), x)

    def loss(f):
        return lambda x: (f(x)[0] * weights).sum()

    for ours, theirs in (
        (jax.jit(split)(x), normalized(x, size)),
        (jax.jit(jax.grad(loss(split)))(x), jax.grad(loss(lambda x: normalized(x, size)))(x)),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
    groups = np.asarray(x, np.float64).reshape(-1, size * 16, 3)
    _, (mean, var) = jax.jit(split)(x)
    np.testing.assert_allclose(mean, groups.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, groups.var(1).mean(0), rtol=1e-5)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="bn_group_size 3 does not divide a batch of 16"):
        groups_of(16, 3)
