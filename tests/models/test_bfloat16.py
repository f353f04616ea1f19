"""bfloat16 activations: what the design keeps in float32, in numbers against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models import attention, convolution, dot_product_attention, heads, layers, resample
from biggan_jax.models.settings import LayerSettings

SETTINGS = LayerSettings(dtype=jnp.dtype("bfloat16"), spectral_norm=False)


def bfloat16(x):
    return jnp.asarray(x, jnp.bfloat16)


def float64(x):
    return np.asarray(x, np.float64)


def selection(inputs, outputs):
    """A 1x1 kernel that takes the first channels as they are, exact in every dtype."""
    return np.eye(inputs, outputs, dtype=np.float32)[None, None]


@pytest.mark.parametrize("form", attention.FORMS)
def test_attention_weights(form):
    s = LayerSettings(
        dtype=jnp.dtype("bfloat16"),
        spectral_norm=False,
        attention_form=form,
        attention_reduction=2,
    )
    x = bfloat16(2.5 * np.random.default_rng(0).standard_normal((2, 4, 4, 16)))
    kernels = {name: selection(16, 8) for name in ("theta", "phi", "g")} | {"o": selection(8, 16)}
    params = {name: {"kernel": k} for name, k in kernels.items()} | {"gamma": jnp.zeros(())}
    _, sown = attention.SelfAttention(s).apply({"params": params}, x, False, mutable=["attention"])

    queries = float64(x)[..., :8].reshape(2, 16, 8)
    keys = float64(x)[..., :8]
    if form == "published":
        keys = keys.reshape(2, 2, 2, 2, 2, 8).max((2, 4))
    logits = queries @ keys.reshape(2, -1, 8).transpose(0, 2, 1)
    assert np.abs(logits).max() > 64  # where bfloat16 has steps of 1/2
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(sown["attention"]["map"][0], weights, atol=1e-5)


def test_gradients_of_attention_logits_are_summed_in_float32():
    rng = np.random.default_rng(0)
    queries, keys = (bfloat16(rng.standard_normal((1, n, 8))) for n in (6, 64))
    # Of each query's cotangents the sum is far smaller than the terms, as after a softmax.
    cotangent = rng.standard_normal((1, 6, 32)).astype(np.float32)
    cotangent = np.concatenate([cotangent, 0.001 * cotangent - cotangent], -1)
    keys = jnp.concatenate([keys[:, :32], keys[:, :32]], 1)
    _, pullback = jax.vjp(dot_product_attention.logits, queries, keys)
    d_queries, d_keys = map(float64, pullback(jnp.asarray(cotangent)))
    expected = float64(cotangent) @ float64(keys)
    # One rounding at the end, to 8 bits; rounded cotangents would leave next to nothing right.
    np.testing.assert_allclose(d_queries, expected, rtol=2**-8, atol=1e-6)
    expected = float64(cotangent).transpose(0, 2, 1) @ float64(queries)
    np.testing.assert_allclose(d_keys, expected, rtol=2**-8, atol=1e-6)


def measured(y, x):
    """(gain, bias) [N, C] of a batch norm, by regression on its input over all pixels."""
    n, h, w, c = x.shape
    x = x.reshape(-1, c)
    normal = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)).reshape(n, -1, c)
    y, centre = y.reshape(n, -1, c), normal.mean(1, keepdims=True)
    gain = (y * (normal - centre)).sum(1) / np.square(normal - centre).sum(1)
    return gain, y.mean(1) - gain * centre[:, 0]


@pytest.mark.parametrize("kind", ["condition", "class"])
def test_gain_beside_one(kind):
    """Gains of 1.001 to 1.006, all of which but two bfloat16 has no number for."""
    rng = np.random.default_rng(0)
    x = bfloat16(3.7 * rng.standard_normal((6, 64, 64, 2)) + 1)
    gains = float64(bfloat16(np.arange(1, 7) / 1000))  # of the six examples, less 1
    table = np.stack([gains, -gains], 1).astype(np.float32)
    zeros = np.zeros_like(table)
    if kind == "class":
        module, condition = layers.ClassBatchNorm(SETTINGS, 6), jnp.arange(6)
        params = {"gain": {"embedding": table}, "bias": {"embedding": zeros}}
    else:
        module, condition = layers.ConditionalBatchNorm(SETTINGS), bfloat16(np.eye(6))
        params = {"gain": {"kernel": table}, "bias": {"kernel": zeros}}
    y, _ = module.apply({"params": params}, x, condition, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    gain, bias = measured(float64(y), float64(x))
    # 4,096 rounded pixels for each gain: their mean is right to a fiftieth of one rounding.
    np.testing.assert_allclose(gain, 1 + table, atol=2e-4)
    np.testing.assert_allclose(bias, 0, atol=2e-4)


def test_logits_of_d():
    rng = np.random.default_rng(0)
    h = bfloat16(rng.standard_normal((3, 4, 4, 32)) + 1)
    kernel = rng.standard_normal((32, 1)).astype(np.float32)
    table = rng.standard_normal((5, 32)).astype(np.float32)
    params = {
        "linear": {"kernel": kernel, "bias": np.float32([0.3])},
        "embed": {"embedding": table},
    }
    labels = np.array([4, 0, 2])

    class Head(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, h):
            return heads.projection(h, jnp.asarray(labels), False, SETTINGS, 5)

    out = Head().apply({"params": params}, h)
    features = np.maximum(float64(h), 0).sum((1, 2))
    expected = features @ float64(kernel)[:, 0] + 0.3 + (features * float64(table)[labels]).sum(-1)
    np.testing.assert_allclose(out, expected, rtol=2e-6)

    # A CPU multiplies in float32 whatever it is told; others do when they are told.
    def loss(params, h):
        return jnp.square(Head().apply({"params": params}, h)).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(params, h)
    lowered = traced.lower(lowering_platforms=("tpu",)).as_text()
    products = [line for line in lowered.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3  # forward, and the gradients of kernel and features
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def convolved(x, kernel):
    """3x3 convolution in float64."""
    n, h, w, _ = x.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(a, b) for a in range(3) for b in range(3)]
    return sum(
        np.einsum("nhwc,ck->nhwk", x[:, a : a + h, b : b + w], kernel[a, b]) for a, b in taps
    )


@pytest.mark.parametrize("channels", [(16, 16), (16, 3), (3, 16)])
@pytest.mark.parametrize("kind", ["none", "up", "down"])
def test_fused_convolutions_round_little(kind, channels):
    """Products are summed in float32, and so are the taps of a fused kernel."""
    rng = np.random.default_rng(0)
    x = bfloat16(rng.standard_normal((8, 16, 16, channels[0])))
    kernel = bfloat16(rng.standard_normal((3, 3, *channels)) / np.sqrt(9 * channels[0]))
    wide = float64(x)
    if kind == "up":
        wide = wide.repeat(2, 1).repeat(2, 2)
    expected = convolved(wide, float64(kernel))
    if kind == "down":
        expected = expected.reshape(8, 8, 2, 8, 2, -1).mean((2, 4))
    out = jax.jit(lambda x, k: resample.resampled_conv(x, k, kind, fused=True))(x, kernel)
    size = np.sqrt(np.mean(np.square(expected)))
    error = np.sqrt(np.mean(np.square(float64(out) - expected))) / size
    # Rounding the result alone makes it 0.0017, the summed taps once as well 0.0025.
    assert error < (0.0018 if kind == "none" else 0.00258)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_attention_of_unrounded_logits(scale):
    """Output and gradients against float64; at scale 3 logits of 60 rounded are off by 0.25."""
    rng = np.random.default_rng(0)
    shapes = {"theta": (2, 64, 8), "phi": (2, 16, 8), "g": (2, 16, 6), "gradient": (2, 64, 6)}
    scales = {"theta": scale, "phi": scale, "g": 1.0, "gradient": 1.0}
    arrays = {
        k: jnp.asarray(rng.normal(size=v) * scales[k], jnp.bfloat16) for k, v in shapes.items()
    }
    theta, phi, g, dy = arrays.values()

    def exact(theta, phi, g):
        beta = jax.nn.softmax(jnp.einsum("nqd,nkd->nqk", theta, phi), axis=-1)
        return jnp.einsum("nqk,nkd->nqd", beta, g)

    def rounded(theta, phi, g):
        logits = jnp.einsum("nqd,nkd->nqk", theta, phi).astype(jnp.float32)
        return jnp.einsum("nqk,nkd->nqd", jax.nn.softmax(logits, axis=-1).astype(g.dtype), g)

    def errors(f):
        out, back = jax.vjp(f, theta, phi, g)
        with jax.enable_x64(True):
            wide = [jnp.asarray(np.asarray(x, np.float64)) for x in (theta, phi, g, dy)]
            want, wide_back = jax.vjp(exact, *wide[:3])
            wants = [np.asarray(x) for x in (want, *wide_back(wide[3]))]
        pairs = zip([out, *back(dy)], wants, strict=True)
        return [np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in pairs]

    ours = errors(dot_product_attention.attend)
    assert max(ours) < 5e-3, ours
    assert scale < 1 or min(errors(rounded)) > 1.5 * max(ours)  # what this test would notice


def test_the_gradient_of_a_fused_kernel_is_summed_in_float32():
    rng = np.random.default_rng(0)
    gradient = bfloat16(rng.standard_normal((4, 4, 5, 6)))
    kernel = jnp.zeros((3, 3, 5, 6), jnp.bfloat16)
    (found,) = jax.vjp(convolution.spread, kernel)[1](gradient)
    g = float64(gradient)
    expected = g[:3, :3] + g[1:, :3] + g[:3, 1:] + g[1:, 1:]
    # One rounding, also where large parts cancel.
    np.testing.assert_allclose(float64(found), expected, rtol=2**-8, atol=1e-6)


def test_the_gradient_of_a_1x1_kernel_is_summed_in_float32():
    rng = np.random.default_rng(0)
    x, dy = (bfloat16(rng.standard_normal((16, 16, 16, c))) for c in (16, 32))
    kernel = bfloat16(rng.standard_normal((1, 1, 16, 32)))

    @jax.jit
    def gradient(x, kernel, dy):
        return jax.vjp(lambda kernel: resample.conv(x, kernel), kernel)[1](dy)[0]

    found = gradient(x, kernel, dy)
    expected = np.einsum("nhwc,nhwd->cd", float64(x), float64(dy))
    # One rounding to 8 bits; adding up 4,096 products in bfloat16 is 2.4% wrong.
    assert np.linalg.norm(float64(found)[0, 0] - expected) < 3e-3 * np.linalg.norm(expected)


def test_an_attention_layer_scaled_by_gamma():
    """Output and the gradients of gamma, kernels and input against float64."""
    rng = np.random.default_rng(0)
    x = bfloat16(rng.standard_normal((2, 8, 8, 16)))
    cotangent = rng.standard_normal(x.shape)
    shapes = {"theta": (16, 2), "phi": (16, 2), "g": (16, 8), "o": (8, 16)}
    params = {
        name: {"kernel": float64(bfloat16(rng.standard_normal((1, 1, *shape)) / 4))}
        for name, shape in shapes.items()
    } | {"gamma": np.asarray(0.75)}

    def run(dtype, param_dtype):
        wide = jnp.dtype(param_dtype)
        s = LayerSettings(dtype=jnp.dtype(dtype), param_dtype=wide, spectral_norm=False)

        def loss(params, x):
            out = attention.SelfAttention(s).apply({"params": params}, x, False)
            return (out.astype(wide) * jnp.asarray(cotangent, wide)).sum(), out

        with jax.enable_x64(param_dtype == "float64"):
            operands = jax.tree.map(lambda p: jnp.asarray(p, wide), params), jnp.asarray(x, dtype)
            grads, out = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*operands)
            return jax.tree.map(float64, (out, grads))

    found, expected = run("bfloat16", "float32"), run("float64", "float64")
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert np.linalg.norm(a - b) < 0.012 * np.linalg.norm(b), jax.tree_util.keystr(path)


def test_average_pooling_rounds_once():
    """Values, gradient and the gradient of a squared gradient against float64."""
    x = bfloat16(np.random.default_rng(0).standard_normal((2, 4, 6, 3)))
    wide = float64(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    found, back = jax.vjp(resample.average_pool, x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(float64(found), wide, rtol=2**-8, atol=1e-9)
    (gradient,) = back(found)
    quarter = float64(found) / 4
    np.testing.assert_array_equal(float64(gradient), quarter.repeat(2, 1).repeat(2, 2))

    def penalty(x):  # |d/dx of sum(pool(x)^2) / 2|^2 = sum(pool^2) / 4
        squared = lambda x: (resample.average_pool(x).astype(jnp.float32) ** 2).sum() / 2
        return (jax.grad(squared)(x).astype(jnp.float32) ** 2).sum()

    expected = (wide / 8).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(float64(jax.grad(penalty)(x)), expected, rtol=0.02, atol=1e-3)
