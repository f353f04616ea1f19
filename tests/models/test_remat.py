"""Recomputed blocks and grouped batch statistics: the same functions, by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import layers
from biggan_jax.models.settings import LayerSettings
from tests.models.test_biggan import section

FAMILIES = ("biggan", "biggan_deep", "sagan", "sngan")


def saved_residuals(player, *inputs):
    """Bytes that the backward pass of a training forward keeps."""
    variables = jax.eval_shape(player.init, jax.random.key(0), *inputs)

    def loss(params, rest):
        out, _ = player.apply(
            {"params": params, **rest}, *inputs, train=True, mutable=["spectral", "batch_stats"]
        )
        return out.sum()

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    _, vjp = jax.eval_shape(
        lambda p, r: jax.vjp(lambda p: loss(p, r), p), variables["params"], rest
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(vjp))


@pytest.mark.parametrize(
    "name",
    [*FAMILIES[:1], *(pytest.param(name, marks=pytest.mark.full) for name in FAMILIES[1:])],
)
def test_blocks_keep_less_and_have_the_same_variables(name):
    # shared_embedding and hierarchical_z are what these families ignore or need.
    model = section(name=name, ch=8)
    z, labels = jnp.zeros((4, model.dim_z)), jnp.zeros(4, jnp.int32)
    images = jnp.zeros((4, 16, 16, 3))
    plain, some, every = (models.build(model, remat=r) for r in ((), (16,), ("all",)))
    for player, inputs in ((0, (z, labels)), (1, (images, labels))):
        kept = [saved_residuals(pair[player], *inputs) for pair in (plain, some, every)]
        assert kept[2] < kept[1] < kept[0], kept
        shapes = [
            jax.eval_shape(pair[player].init, jax.random.key(0), *inputs) for pair in (plain, every)
        ]
        assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])


@pytest.mark.parametrize(
    ("name", "remat", "words"),
    [
        ("biggan", (128,), r"no block works at 128.*4, 8, 16, or to all"),
        ("biggan", ("al",), r"no block works at al"),
        ("dcgan", ("all",), r"no blocks.*--config.remat=\"\(\)\""),
    ],
)
def test_unknown_resolutions_are_refused(name, remat, words):
    with pytest.raises(UserError, match=words):
        models.build(section(name=name), remat=remat)


def test_ghost_batch_norm_is_batch_norm_of_every_group():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2, 3, (12, 4, 4, 5)) * rng.uniform(1, 3, (12, 1, 1, 1)), jnp.float32)
    whole, ghost = (layers.AffineBatchNorm(LayerSettings(bn_group_size=size)) for size in (None, 4))
    variables = whole.init(jax.random.key(0), x, True)
    apply = lambda module, x: module.apply(variables, x, True, mutable=["batch_stats"])
    parts = [apply(whole, x[i : i + 4]) for i in range(0, 12, 4)]
    y, new = apply(ghost, x)
    np.testing.assert_allclose(y, np.concatenate([part[0] for part in parts]), atol=1e-5)
    mean = jax.tree.map(lambda *s: sum(s) / 3, *(part[1] for part in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), new, mean)
    # An eval forward knows no groups.
    same = [module.apply(variables, x[:3], False) for module in (whole, ghost)]
    np.testing.assert_array_equal(*same)


def test_groups_that_do_not_divide_the_batch_are_refused():
    module = layers.AffineBatchNorm(LayerSettings(bn_group_size=4))
    x = jnp.zeros((6, 2, 2, 3))
    variables = module.init(jax.random.key(0), x, True)
    with pytest.raises(ValueError, match="bn_group_size 4.*6 examples"):
        module.apply(variables, x, True, mutable=["batch_stats"])
