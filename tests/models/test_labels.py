"""What becomes of class ids that no table has a row for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.models import layers
from biggan_jax.models.settings import LayerSettings
from tests.models.test_biggan import inputs, section


def test_labels_beyond_the_classes_give_nan_and_negative_ones_count_from_the_end():
    module = layers.Embed(LayerSettings(), False, 4, 3)
    table = jnp.arange(12.0).reshape(4, 3)

    def rows(table, labels):
        return module.apply({"params": {"embedding": table}}, jnp.array(labels), False)

    np.testing.assert_array_equal(jax.jit(rows)(table, [3, -1, -4]), np.asarray(table)[[3, 3, 0]])
    assert np.isnan(jax.jit(rows)(table, [4, 1000, -5])).all()
    # Such a label reaches no row: neither the last one nor any other learns from it.
    grad = jax.grad(lambda table: rows(table, [1, 4, -5]).sum())(table)
    np.testing.assert_array_equal(grad, np.eye(4)[1][:, None] * np.ones(3))


@pytest.mark.parametrize("name", ["biggan", "dcgan"])  # a shared embedding, and per-class tables
def test_a_label_beyond_the_classes_spoils_its_own_image_and_logit(name):
    m = section(name=name, ch=2, num_classes=2)
    rng = np.random.default_rng(0)
    for player, first in zip(models.build(m, fused=False), (0, 2), strict=True):
        z, labels, images = inputs(m)
        x = (z, None, images)[first]
        variables = jax.tree.map(
            lambda v: np.abs(rng.standard_normal(v.shape)).astype(v.dtype),
            jax.eval_shape(player.init, jax.random.key(0), x, labels),
        )
        out = jax.jit(player.apply)(variables, x, jnp.array([1, 2]))
        assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()
