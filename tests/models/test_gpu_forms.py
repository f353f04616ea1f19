"""The forms for GPUs, run on the CPU, against the convolutions that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models import activation, convolution, gpu_forms, resample

# Form -> what it stands for, shapes of x and of the kernel.
FORMS = {
    "dilated": (convolution.dilated, (2, 4, 6, 3), (4, 4, 3, 5)),
    "strided": (convolution.strided, (2, 8, 6, 3), (4, 4, 3, 5)),
    "of_image": (convolution.general, (2, 4, 6, 3), (3, 3, 3, 5)),
    "to_image": (convolution.general, (2, 4, 6, 5), (3, 3, 5, 3)),
}


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("name", FORMS)
def test_values_gradients_and_their_gradients(name):
    """The last ones as R1 takes them: of a squared gradient of x."""
    plain, *shapes = FORMS[name]
    x, kernel = arrays(*shapes)
    (weights,) = arrays(jax.eval_shape(plain, x, kernel).shape)

    def everything(f):
        def loss(x, kernel):
            return (jnp.tanh(f(x, kernel)) * weights).sum()

        def penalty(x, kernel):
            return jnp.square(jax.grad(loss)(x, kernel)).sum()

        def call(x, kernel):
            gradients = [jax.grad(g, argnums=(0, 1))(x, kernel) for g in (loss, penalty)]
            return f(x, kernel), gradients

        return jax.jit(call)(x, kernel)

    found, expected = everything(getattr(gpu_forms, name)), everything(plain)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("f", [resample.upsample_conv, resample.conv_downsample])
def test_only_nvidia_gpus_take_them(f):
    """A program lowered for CUDA has no convolution over zeros, one for TPUs no copy of phases."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((2, 8, 8, 16), (3, 3, 16, 16))]

    def both_gradients(x, kernel):
        y, back = jax.vjp(f, x, kernel)
        return back(y)

    traced = jax.jit(both_gradients).trace(*shapes)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "tpu")}
    zeros_between = {p: "lhs_dilate = [2, 2]" in text for p, text in texts.items()}
    assert zeros_between == {"cuda": False, "tpu": True}


@pytest.mark.parametrize(
    ("dtype", "channels", "features", "form"),
    [
        ("bfloat16", 3, 96, gpu_forms.of_image),
        ("bfloat16", 96, 3, gpu_forms.to_image),
        ("bfloat16", 96, 96, None),
        ("float32", 3, 96, None),
    ],
)
def test_the_form_of_a_convolution_without_resampling(dtype, channels, features, form):
    kernel = jax.ShapeDtypeStruct((3, 3, channels, features), dtype)
    assert gpu_forms.choose(kernel) is form


def test_relu_by_its_output_is_relu():
    x = jnp.asarray([-2.0, -0.0, 0.0, 1.5, jnp.nan], jnp.float32)
    form, plain = activation._of_output, jax.nn.relu  # noqa: SLF001  what only GPUs take
    for f in (lambda f: f(x), lambda f: jax.vjp(f, x)[1](jnp.ones_like(x))[0]):
        np.testing.assert_array_equal(f(form), f(plain))
    twice = [jax.grad(lambda x, f=f: (jax.grad(lambda y: (f(y) ** 3).sum())(x) ** 2).sum())(x[3:4])
             for f in (form, plain)]  # fmt: skip
    np.testing.assert_array_equal(*twice)
