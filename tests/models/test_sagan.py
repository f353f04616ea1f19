"""SAGAN: parameter counts of the authors' code, its ablations by override, one block by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import biggan
from biggan_jax.models.settings import LayerSettings
from tests.models.test_biggan import section
from tests.models.test_sngan import assert_reached, counts, gradients, initial, shapes


def sagan(**changes):
    paper = {"name": "sagan", "init": "xavier", "dim_z": 8}
    return section(**(paper | changes))


def paper(**changes):
    full = {"resolution": 128, "ch": 64, "dim_z": 128, "num_classes": 1000}
    attention = {"g_attention": (32,), "d_attention": (32,)}
    return sagan(**(full | attention | changes))


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        ((32,), (42_078_852, 39_463_618)),  # brain-research/self-attention-gan, `generator_test`
        ((64,), (42_017_412, 39_448_258)),  # BigGAN-PyTorch, launch_SAGAN_bs128x2_ema.sh
    ],
)
def test_parameter_counts_equal_the_peers(attention, expected):
    assert counts(paper(g_attention=attention, d_attention=attention)) == expected


@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(("channels", "num_classes"), [(3, 10), (1, 1)])
def test_shapes_for_every_resolution(resolution, channels, num_classes):
    m = sagan(resolution=resolution, ch=4, channels=channels, num_classes=num_classes)
    out, logits, g, d = shapes(m)
    assert out.shape == (2, resolution, resolution, channels) and logits.shape == (2,)
    assert "shared" not in g["params"] and g["params"]["linear"]["kernel"].shape[0] == 8
    assert ("embed" in d["params"]) == (num_classes > 1)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("kind", ["attention", "residual"])
def test_ablations_of_place_and_kind(size, kind):
    m = paper(ch=16, num_classes=10, g_attention=(size,), d_attention=(size,), attention_kind=kind)
    _, _, g, d = shapes(m)
    for params in (g["params"], d["params"]):
        assert [k for k in params if k.startswith(("attention", "residual"))] == [f"{kind}_{size}"]


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_ablations_of_the_reduction(reduction):
    _, _, g, _ = shapes(paper(ch=8, num_classes=10, attention_reduction=reduction))
    kernel = g["params"]["attention_32"]["theta"]["kernel"]
    assert kernel.shape == (1, 1, 32, 32 // reduction)


def test_spectral_norm_in_d_only():
    _, _, g, d = shapes(paper(ch=8, num_classes=10, g_spectral_norm=False))
    assert "spectral" not in g and "attention_32" in d["spectral"]
    _, _, g, _ = shapes(paper(ch=8, num_classes=10))
    assert {"linear", "rgb", "attention_32"} <= set(g["spectral"])
    # Neither the class tables nor the last norm are normalised.
    assert set(g["spectral"]["block_0"]) == {"conv1", "conv2", "shortcut"}


def test_no_baseline_attention_and_bad_places():
    assert not [k for k in shapes(sagan())[2]["params"] if k.startswith("attention")]
    with pytest.raises(UserError, match="model.g_attention"):
        models.build(sagan(g_attention=(64,)))
    with pytest.raises(UserError, match="model.resolution"):
        models.build(sagan(resolution=48))


def test_gradient_reaches_every_parameter():
    assert_reached(gradients(sagan(ch=4, g_attention=(8,), d_attention=(8,))))


def test_classes_start_with_gain_1_and_bias_0_and_kernels_by_xavier():
    block = initial(sagan(num_classes=3, ch=16), "block_1")["block_1"]
    norm = block["bn2"]
    assert not np.any(norm["gain"]["embedding"]) and not np.any(norm["bias"]["embedding"])
    bound = (6 / (9 * (64 + 64))) ** 0.5
    assert 0.98 * bound < np.abs(block["conv2"]["kernel"]).max() <= bound


def _conv(x, kernel, bias):
    """3x3 or 1x1 convolution with zero padding, one output pixel at a time."""
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    n, h, w, _ = x.shape
    out = np.zeros((n, h - 2 * pad, w - 2 * pad, kernel.shape[-1]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            patch = x[:, i : i + kernel.shape[0], j : j + kernel.shape[1]]
            out[:, i, j] = np.tensordot(patch, kernel, 3) + bias
    return out


def _norm(x, gamma, beta, eps):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean) / np.sqrt(var + eps)
    return np.maximum(gamma[:, None, None] * normal + beta[:, None, None], 0)


def test_a_generator_block_by_hand():
    """Relu(cBN), nearest upsampling, convolutions, spectral norm and the shortcut, in numpy."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((3, 4, 4, 4)), np.array([2, 0, 2], np.int32)
    block = biggan.GeneratorBlock(6, LayerSettings(), 3)
    variables = jax.eval_shape(
        lambda x: block.init(jax.random.key(0), x, labels, False), jnp.asarray(x, jnp.float32)
    )
    fill = lambda v: rng.standard_normal(v.shape).astype(np.float32)
    params, u = jax.tree.map(fill, variables["params"]), jax.tree.map(fill, variables["spectral"])
    p = jax.tree.map(np.float64, params)

    def conv(x, name):
        kernel = p[name]["kernel"]
        w = kernel.reshape(-1, kernel.shape[-1]).T
        v = u[name]["u"] @ w
        left = w @ (v / np.linalg.norm(v))
        return _conv(x, kernel / np.linalg.norm(left), p[name]["bias"])

    norm = lambda x, name: _norm(
        x,
        1 + p[name]["gain"]["embedding"][labels],
        p[name]["bias"]["embedding"][labels],
        LayerSettings.bn_eps,
    )
    up = lambda x: x.repeat(2, 1).repeat(2, 2)
    h = conv(up(norm(x, "bn1")), "conv1")
    expected = conv(norm(h, "bn2"), "conv2") + conv(up(x), "shortcut")
    statistics = jax.tree.map(lambda v: np.ones(v.shape, v.dtype), variables["batch_stats"])
    collections = {"params": params, "spectral": u, "batch_stats": statistics}
    run = jax.jit(lambda v, x: block.apply(v, x, labels, True, mutable=["spectral", "batch_stats"]))
    out, _ = run(collections, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(out, expected, atol=2e-5)
