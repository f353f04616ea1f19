"""Dropout of D's last features: where it is on, what it keeps, and that it is off elsewhere."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.models import heads
from tests.models.test_biggan import inputs, section


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] * (name in ("biggan_deep", "sngan")))
        for name in models.REGISTRY
    ],
)
def test_every_family_drops_where_it_is_given_a_key(name):
    """In a trace: bfloat16 and recomputed blocks, too."""
    m = section(name=name, resolution=32 if name == "dcgan" else 16)
    if name == "biggan_deep":
        m.ch = 8
    _, labels, images = inputs(m)

    def trace(rate, train, **rngs):
        m.d_dropout = rate
        blocks = name != "dcgan"
        D = models.build(m, dtype=jnp.bfloat16, remat=("all",) if blocks else ())[1]
        variables = jax.eval_shape(D.init, jax.random.key(0), images, labels)

        def forward(variables, key):
            options = {"rngs": {"dropout": key}} if rngs else {}
            return D.apply(variables, images, labels, train, mutable=["spectral"], **options)[0]

        jaxpr = jax.make_jaxpr(forward)(variables, jax.random.key(0))
        assert jaxpr.out_avals[0].dtype == jnp.float32
        return str(jaxpr)

    assert trace(0.5, False).count("random_bits") == trace(0.5, True).count("random_bits") == 0
    assert trace(0.5, True, dropout=True).count("random_bits") == 1
    assert "random_bits" not in trace(0.0, True, dropout=True)


def test_what_dropout_keeps():
    dropout = heads.Dropout(0.25)
    features = jnp.full((400, 50), 3.0)
    drop = lambda key: np.asarray(dropout.apply({}, features, True, rngs={"dropout": key}))
    first, again, other = (drop(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(np.unique(first)) == {0.0, 4.0}  # 3 / (1 - 0.25)
    assert abs((first == 0).mean() - 0.25) < 0.01 and (first != other).mean() > 0.3
    assert abs((first[::2] == first[1::2]).mean() - 0.625) < 0.02  # each example by itself
    np.testing.assert_array_equal(dropout.apply({}, features, True), features)


def test_it_stands_before_the_linear_layer_and_the_projection():
    """Features of which all but none are dropped leave the bias."""

    class Head(nn.Module):
        rate: float

        @nn.compact
        def __call__(self, features, labels):
            settings = heads.LayerSettings(spectral_norm=False, d_dropout=self.rate)
            return heads.logits(features, labels, True, settings, 3)

    features, labels = jnp.ones((5, 4)), jnp.arange(5) % 3
    variables = Head(0.0).init(jax.random.key(0), features, labels)
    got = Head(1 - 1e-6).apply(variables, features, labels, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(got, 0)
    assert np.abs(Head(0.0).apply(variables, features, labels)).max() > 0.1
