"""SN-DCGAN: the paper's layer table, the transposed convolution, classes, and no attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import convolution, resample
from tests.models.test_biggan import inputs, section
from tests.models.test_sngan import assert_reached, conv, counts, gradients, shapes


def sn_dcgan(**changes):
    paper = {"name": "dcgan", "g_spectral_norm": False, "init": "normal", "dim_z": 8}
    return section(**(paper | changes))


@pytest.mark.parametrize(("resolution", "bottom"), [(32, 4), (48, 6)])
def test_layers_of_the_papers_table(resolution, bottom):
    pixels = bottom**2
    g = 128 * pixels * 512 + pixels * 512 + 2 * (512 + 256 + 128 + 64)
    g += conv(4, 512, 256) + conv(4, 256, 128) + conv(4, 128, 64) + conv(3, 64, 3)
    d = conv(3, 3, 64) + conv(4, 64, 64) + conv(3, 64, 128) + conv(4, 128, 128)
    d += conv(3, 128, 256) + conv(4, 256, 256) + conv(3, 256, 512) + pixels * 512 + 1
    m = sn_dcgan(resolution=resolution, ch=64, dim_z=128, num_classes=1)
    assert counts(m) == (g, d)


def test_parameters_of_the_classes():
    """10 classes: tables instead of vectors in three norms, and a row of features each in D."""
    plain = counts(sn_dcgan(resolution=32, ch=64, num_classes=1))
    classes = counts(sn_dcgan(resolution=32, ch=64, num_classes=10))
    assert classes[0] - plain[0] == 9 * 2 * (512 + 256 + 128)
    assert classes[1] - plain[1] == 10 * 4 * 4 * 512


@pytest.mark.parametrize("resolution", [16, 32, 48, 64])
@pytest.mark.parametrize(("channels", "num_classes"), [(1, 10), (3, 10), (3, 1)])
def test_shapes_for_every_resolution(resolution, channels, num_classes):
    m = sn_dcgan(resolution=resolution, channels=channels, num_classes=num_classes)
    out, logits, g, d = shapes(m)
    assert out.shape == (2, resolution, resolution, channels) and logits.shape == (2,)
    assert ("embed" in d["params"]) == (num_classes > 1)
    assert "spectral" not in g and set(d["spectral"]) == set(d["params"])


def test_spectral_norm_in_g_by_override():
    g = shapes(sn_dcgan(g_spectral_norm=True))[2]
    assert set(g["spectral"]) == {"linear", "deconv_0", "deconv_1", "deconv_2", "rgb"}


def test_transposed_convolution():
    """It is the transpose of the strided one with the flipped kernel, in both its forms."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 3, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((4, 4, 4, 6)), jnp.float32)
    strided = lambda y: lax.conv_general_dilated(
        y, kernel[::-1, ::-1].swapaxes(2, 3), (2, 2), ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    expected = jax.vjp(strided, jnp.zeros((2, 10, 6, 6)))[1](x)[0]
    for convolve in (resample.transposed_conv, convolution.dilated):
        out = convolve(x, kernel)
        np.testing.assert_allclose(out, expected, atol=2e-5)


def test_discriminator_by_hand():
    """A 16-pixel D of constants: strides, slopes, the flat head and the projection."""
    m = sn_dcgan(ch=1, channels=1, num_classes=3, d_spectral_norm=False)
    _, discriminator = models.build(m)
    _, labels, images = inputs(m)
    params = jax.eval_shape(discriminator.init, jax.random.key(0), images, labels)["params"]
    # Kernels of zeros but for one tap from the first channel to all; biases of -1.
    one = lambda shape: np.zeros(shape, np.float32)

    def fill(path, leaf):
        value = one(leaf.shape)
        if path[-1].key == "bias" and path[0].key != "linear":
            value -= 1.0
        elif path[-1].key == "kernel" and leaf.ndim == 4:
            value[1, 1, 0] = 2.0
        elif leaf.ndim == 2:
            value += np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) / leaf.size
        return value

    params = jax.tree_util.tree_map_with_path(fill, params)
    h = np.asarray(images, np.float64)[..., 0]
    leaky = lambda x: np.where(x > 0, x, 0.1 * x)
    for _ in range(3):
        h = leaky(2 * h - 1)
        h = leaky(2 * h[:, ::2, ::2] - 1)
    features = leaky(2 * h - 1)[..., None].repeat(8, -1).reshape(2, -1)
    head, embed = params["linear"]["kernel"], params["embed"]["embedding"]
    expected = features @ head[:, 0] + (features * embed[np.asarray(labels)]).sum(-1)
    out = jax.jit(discriminator.apply)({"params": params}, images, labels)
    np.testing.assert_allclose(out, expected, rtol=1e-4)


def test_gradient_reaches_every_parameter():
    assert_reached(gradients(sn_dcgan(ch=2)))


@pytest.mark.parametrize("key", ["g_attention", "d_attention"])
def test_attention_is_refused(key):
    with pytest.raises(UserError) as e:
        models.build(sn_dcgan(**{key: (8,)}))
    message = str(e.value)
    assert "\n" not in message and f'--config.model.{key}="()"' in message and "8" in message


def test_other_resolutions_are_refused():
    with pytest.raises(UserError, match="dcgan is defined for 16, 32, 48, 64"):
        models.build(sn_dcgan(resolution=128))
