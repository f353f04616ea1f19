"""Minimal filtering equals the convolutions it stands for, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from biggan_jax.models import cpu_forms, resample, winograd


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


FORMS = {
    "conv": (winograd.CONV, plain),
    "up": (winograd.UP, lambda x, k: plain(resample.upsample(x), k)),
    "down": (winograd.DOWN, lambda x, k: resample.average_pool(plain(x, k))),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (8, 2)])
def test_equals_the_convolution(name, size):
    form, slow = FORMS[name]
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape))
    with jax.enable_x64(True):  # in float64 nothing but a wrong formula shows
        x, kernel = draw((2, *size, 5)), draw((3, 3, 5, 7))
        expected, expected_pullback = jax.vjp(slow, x, kernel)
        fast = lambda x, k: winograd.apply(form, x, k)
        out, pullback = jax.vjp(fast, x, kernel)
        r = draw(out.shape)
        for a, b in zip((out, *pullback(r)), (expected, *expected_pullback(r)), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_float32_stays_as_exact_as_a_convolution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 8, 64), np.float32)
    kernel = rng.standard_normal((3, 3, 64, 16), np.float32) / 24  # unit scale at the output
    with jax.enable_x64(True):
        exact = np.asarray(plain(x.astype(np.float64), kernel.astype(np.float64)))
    error = np.abs(np.asarray(winograd.apply(winograd.CONV, x, kernel)) - exact).max()
    assert error < 5e-6


@pytest.mark.parametrize("kind", ["none", "up", "down"])
def test_wide_layers_take_it_on_the_cpu_alone(kind, monkeypatch):
    monkeypatch.setitem(cpu_forms.LARGE, kind, ((6, 1),))
    x, kernel = jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 6, 6))

    def convolutions(platform, x):
        f = lambda x: resample.resampled_conv(x, kernel.astype(x.dtype), kind, fused=True)
        lowered = jax.jit(f).trace(x).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions("cpu", x) == 0
    assert convolutions("tpu", x) == 1
    assert convolutions("cpu", x.astype(jnp.bfloat16)) > 0


def test_second_derivatives():
    """Gradient penalties differentiate twice."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 4, 4, 3)), rng.standard_normal((3, 3, 3, 3))

    def penalty(f):
        slope = jax.grad(lambda x, k: jnp.square(f(x, k)).sum())
        return jax.grad(lambda k: jnp.square(slope(jnp.asarray(x), k)).sum())(jnp.asarray(kernel))

    with jax.enable_x64(True):
        fast = penalty(lambda x, k: winograd.apply(winograd.CONV, x, k))
        np.testing.assert_allclose(fast, penalty(plain), rtol=1e-9)
