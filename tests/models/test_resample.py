"""Fused resampling equals the textbook order, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models import convolution, cpu_forms, resample


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("kind", ["none", "up", "down"])
@pytest.mark.parametrize("size", [pytest.param((4, 4), marks=pytest.mark.full), (6, 10)])
def test_fused_equals_unfused(kind, kernel_size, size):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *size, 5))
    kernel = jax.random.normal(keys[1], (kernel_size, kernel_size, 5, 7))
    out, results = None, []
    for fused in (True, False):
        f = lambda x, k, fused=fused: resample.resampled_conv(x, k, kind, fused=fused)
        out, pullback = jax.vjp(f, x, kernel)
        results.append((out, *pullback(jax.random.normal(keys[2], out.shape))))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)


def test_one_transposed_convolution_equals_four():
    """What accelerators run and what the CPU runs, values and gradients."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, 4, 6, 5)), jax.random.normal(keys[1], (4, 4, 5, 7))
    r = jax.random.normal(keys[2], (2, 8, 12, 7))
    one, four = (jax.vjp(f, x, kernel) for f in (convolution.dilated, resample.transposed_conv))
    for a, b in zip((one[0], *one[1](r)), (four[0], *four[1](r)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)
    lowered = jax.jit(resample.transposed_conv).trace(x, kernel)
    text = {p: lowered.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert [text[p].count("stablehlo.convolution") for p in ("cpu", "tpu")] == [4, 1]


def test_upsample_is_nearest_and_pools_are_exact():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    up = np.asarray(resample.upsample(x))
    np.testing.assert_array_equal(up[0, :, :, 0], x[0, :, :, 0].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resample.average_pool(up), x)
    np.testing.assert_array_equal(resample.max_pool(x)[0, :, :, 0], [[5, 7], [13, 15]])


@pytest.mark.parametrize(
    "channels",
    [
        *((1, 8), (8, 3), (2, 2)),
        *(pytest.param(x, marks=pytest.mark.full) for x in ((3, 8), (8, 1), (8, 8))),
    ],
)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_matrix_products_equal_the_convolution(channels, kernel_size):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 5, 6, channels[0]))
    kernel = jax.random.normal(keys[1], (kernel_size, kernel_size, *channels))
    r = jax.random.normal(keys[2], (2, 5, 6, channels[1]))
    plain = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for f in (resample.conv, jax.jit(resample.conv)):
        out, pullback = jax.vjp(f, x, kernel)
        expected, expected_pullback = jax.vjp(plain, x, kernel)
        for a, b in zip((out, *pullback(r)), (expected, *expected_pullback(r)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("kind, form", cpu_forms.FORMS)
def test_forms_of_the_cpu_are_the_convolution(kind, form):
    """Values, gradients and second derivatives of every form that shapes can choose."""
    rng = np.random.default_rng(0)
    channels, features = (5, 3) if form == cpu_forms.TAPS else (3, 5)
    with jax.enable_x64(True):
        x = rng.standard_normal((2, 4, 8, channels))
        kernel = rng.standard_normal((3, 3, channels, features))

        def textbook(x, kernel):
            y = convolution.general(resample.upsample(x) if kind == "up" else x, kernel)
            return resample.average_pool(y) if kind == "down" else y

        def slopes(f, x, kernel):
            return jax.grad(lambda x, k: jnp.sin(f(x, k)).sum(), (0, 1))(x, kernel)

        def penalty(x, kernel, f):
            return sum(jnp.square(slope).sum() for slope in slopes(f, x, kernel))

        found, expected = (
            jax.jit(
                lambda x, k, f=f: (f(x, k), slopes(f, x, k), jax.grad(penalty, (0, 1))(x, k, f))
            )(x, kernel)
            for f in (cpu_forms.FORMS[kind, form], textbook)
        )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_strided_convolutions_and_their_gradients():
    """Of 4x4 kernels, as DCGAN and SNGAN have them."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = rng.standard_normal((2, 6, 4, 3)), rng.standard_normal((4, 4, 3, 5))
        dy = rng.standard_normal((2, 3, 2, 5))
        one, other = (
            (y, *pullback(dy))
            for y, pullback in (
                jax.vjp(f, x, kernel) for f in (cpu_forms.strided, convolution.strided)
            )
        )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_choice_of_the_form():
    """Few channels, resampling and large products are what XLA is not fast at."""

    def choose(kind, n, size, channels, features, dtype=np.float32, train=True):
        shapes = (n, size, size, channels), (3, 3, channels, features)
        return cpu_forms.choose(kind, *shapes, dtype, train)

    assert choose("none", 32, 32, 3, 64) == cpu_forms.PATCHES
    assert choose("none", 32, 32, 64, 1) == cpu_forms.TAPS
    assert choose("none", 32, 32, 64, 64) == cpu_forms.WIDE
    assert choose("none", 32, 32, 64, 64, train=False) == cpu_forms.MINIMAL
    assert choose("none", 32, 32, 64, 64, jnp.bfloat16) == cpu_forms.XLA
    assert choose("none", 32, 33, 64, 64) == cpu_forms.XLA  # sides are odd
    assert choose("none", 32, 34, 64, 64) == cpu_forms.MINIMAL  # not in fours
    assert choose("none", 32, 8, 64, 64) == cpu_forms.WIDE
    assert choose("none", 16, 4, 256, 256) == cpu_forms.MINIMAL  # mostly its kernel to transform
    assert choose("none", 32, 4, 256, 256) == cpu_forms.WIDE
    assert choose("none", 32, 8, 64, 64, train=False) == cpu_forms.XLA
    assert choose("none", 32, 4, 64, 64) == cpu_forms.XLA
    assert choose("none", 64, 16, 32, 32) == cpu_forms.WIDE
    assert choose("none", 64, 32, 16, 16) == cpu_forms.XLA
    assert choose("up", 32, 4, 64, 64) == cpu_forms.MINIMAL
    assert choose("up", 32, 4, 64, 64, train=False) == cpu_forms.PHASES
    assert choose("up", 32, 8, 32, 32) == cpu_forms.PHASES
    assert choose("up", 32, 16, 64, 64) == cpu_forms.PHASES  # it would leave the caches
    assert choose("up", 50, 16, 256, 256) == cpu_forms.MINIMAL
    assert choose("down", 32, 8, 48, 48) == cpu_forms.PHASES
    assert choose("down", 32, 8, 64, 64) == cpu_forms.MINIMAL
    assert choose("down", 32, 16, 64, 64) == cpu_forms.WIDE
    assert choose("down", 64, 34, 64, 64) == cpu_forms.MINIMAL
    assert choose("down", 64, 4, 256, 256) == cpu_forms.MINIMAL
    assert choose("down", 32, 8, 256, 256) == cpu_forms.WIDE
