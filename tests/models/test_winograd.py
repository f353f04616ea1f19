"""Minimal filtering equals the convolutions it stands for, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from biggan_jax.models import cpu_forms, layers, resample, winograd
from biggan_jax.models.settings import LayerSettings


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def up(x, kernel):
    return plain(resample.upsample(x), kernel)


def down(x, kernel):
    return resample.average_pool(plain(x, kernel))


# and what a result's error in float32 may be, at unit scale
FORMS = {
    "conv": (winograd.CONV, plain, 5e-6),
    "conv, wide": (winograd.CONV_WIDE, plain, 1.5e-5),
    "up": (winograd.UP, up, 5e-6),
    "down": (winograd.DOWN, down, 5e-6),
    "down, wide": (winograd.DOWN_WIDE, down, 1.5e-5),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "tiles", [*(pytest.param(x, marks=pytest.mark.full) for x in ((1, 1), (4, 1))), (2, 3)]
)
def test_equals_the_convolution(name, tiles):
    form, slow, _ = FORMS[name]
    size = [form.places * n for n in tiles]
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


@pytest.mark.parametrize("name", FORMS)
def test_float32_stays_nearly_as_exact_as_a_convolution(name):
    form, slow, bound = FORMS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 8, 64), np.float32)
    kernel = rng.standard_normal((3, 3, 64, 16), np.float32) / 24  # unit scale at the output
    dy = rng.standard_normal(jax.eval_shape(slow, x, kernel).shape, np.float32)

    def found(f, *arrays):
        y, pullback = jax.vjp(f, *(jnp.asarray(a) for a in arrays[:2]))
        return [np.asarray(a, np.float64) for a in (y, *pullback(jnp.asarray(arrays[2])))]

    fast = found(lambda x, k: winograd.apply(form, x, k), x, kernel, dy)
    with jax.enable_x64(True):
        exact = found(slow, *(a.astype(np.float64) for a in (x, kernel, dy)))
    assert np.abs(fast[0] - exact[0]).max() < bound
    for a, b in zip(fast[1:], exact[1:], strict=True):
        assert np.abs(a - b).max() < bound * max(1, b.std())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", ["none", "up", "down"])
def test_wide_layers_take_it_on_the_cpu_alone(kind, train, monkeypatch):
    wide = cpu_forms.MINIMAL if kind == "up" else cpu_forms.WIDE
    monkeypatch.setitem(cpu_forms.ALWAYS, kind, (cpu_forms.Range(cpu_forms.MINIMAL, 6, 1),))
    monkeypatch.setitem(cpu_forms.IN_TRAINING, kind, (cpu_forms.Range(wide, 6, 1),))
    x, kernel = jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 6, 6))

    def convolutions(platform, x):
        f = lambda x: resample.resampled_conv(
            x, kernel.astype(x.dtype), kind, fused=True, train=train
        )
        lowered = jax.jit(f).trace(x).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions("cpu", x) == 0
    assert convolutions("tpu", x) == 1
    assert convolutions("cpu", x.astype(jnp.bfloat16)) > 0


@pytest.mark.parametrize("kind, form", [("none", "conv, wide"), ("down", "down, wide")])
def test_wide_tiles_in_training_forwards_alone(kind, form, monkeypatch):
    monkeypatch.setitem(cpu_forms.IN_TRAINING, kind, (cpu_forms.Range(cpu_forms.WIDE, 6, 1),))
    used, apply = [], winograd.apply
    monkeypatch.setattr(winograd, "apply", lambda form, *a: used.append(form) or apply(form, *a))
    layer = layers.Conv(LayerSettings(), False, 6, 3, resample=kind)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 6)))
    variables = layer.init(jax.random.key(0), x, False)
    assert not used
    sampled = layer.apply(variables, x, False)
    assert not used
    trained = layer.apply(variables, x, True)
    assert used == [FORMS[form][0]]
    np.testing.assert_allclose(trained, sampled, atol=2e-5)
    layer.apply(variables, x[:, :6], True)  # no multiple of a tile
    assert len(used) == 1


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
