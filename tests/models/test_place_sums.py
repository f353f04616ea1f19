"""Sums over places against NumPy's in float64, and their gradients against the plain sums'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models import place_sums

# Whole groups, some places left over, fewer than a group, a prime number of them, no example axis.
SHAPES = [(3, 16, 16, 5), (2, 3, 12, 12, 4), (3, 4, 4, 2), (2, 6, 6, 3), (2, 37, 1, 3), (8, 8, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_numpy(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sums = jax.jit(place_sums.by_example)(x)
    assert sums.dtype == jnp.float32
    np.testing.assert_allclose(sums, x.astype(np.float64).sum((-3, -2)), rtol=1e-6, atol=1e-5)


def test_a_large_sum_rounds_less_than_one_number_after_the_other():
    x = np.full((1, 64, 64, 1), 0.1, np.float32)
    exact = x.astype(np.float64).sum()
    one_by_one = np.cumsum(x, dtype=np.float32)[-1]
    assert abs(jax.jit(place_sums.by_example)(x).item() - exact) < abs(one_by_one - exact) / 4


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (2, 6, 6, 5)])
def test_gradients_of_what_is_spread_are_sums(shape):
    rng = np.random.default_rng(1)
    bias, weights = rng.standard_normal(shape[-1]), rng.standard_normal(shape)
    bias, weights = np.float32(bias), np.float32(weights)

    def f(bias):
        return (jnp.square(place_sums.spread(bias, shape)) * weights).sum()

    np.testing.assert_array_equal(place_sums.spread(bias, shape), np.broadcast_to(bias, shape))
    expected = 2 * bias * weights.astype(np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(jax.jit(jax.grad(f))(bias), expected, rtol=1e-5, atol=1e-5)
    # Twice, as penalties of gradients do.
    twice = jax.jit(jax.grad(lambda bias: jax.grad(f)(bias).sum()))(bias)
    np.testing.assert_allclose(twice, 2 * weights.sum((0, 1, 2)), rtol=1e-5, atol=1e-4)


def test_the_gradient_of_a_sum_is_repeated():
    x = np.random.default_rng(3).standard_normal((2, 8, 8, 4)).astype(np.float32)
    f = jax.grad(lambda x: (place_sums.by_example(x) ** 2).sum())
    expected = np.broadcast_to(2 * x.astype(np.float64).sum((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(jax.jit(f)(x), expected, rtol=1e-5, atol=1e-5)
    text = jax.jit(f).lower(x).as_text()
    assert text.count("stablehlo.dot_general") == 1  # the sum's own
    # Twice, and forwards.
    tangent = jax.jvp(f, (x,), (np.ones_like(x),))[1]
    np.testing.assert_allclose(tangent, 2 * 64, rtol=1e-6)


def test_means_are_those_of_parts():
    x = np.random.default_rng(2).standard_normal((2, 3, 8, 8, 4)).astype(np.float32)
    expected = x.astype(np.float64).mean((1, 2, 3))
    np.testing.assert_allclose(jax.jit(place_sums.mean)(x), expected, rtol=1e-5, atol=1e-6)


def test_a_cpu_sums_in_groups():
    x = jax.ShapeDtypeStruct((4, 16, 16, 8), np.float32)
    text = jax.jit(place_sums.by_example).lower(x).compile().as_text()
    assert "f32[4,8,8]" in text  # 8 groups of 32 places for each example
