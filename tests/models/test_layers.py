"""Spectral norm and batch norm against SVD, plain arithmetic and the peer's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models import layers
from biggan_jax.models.settings import LayerSettings

FIXTURES = Path(__file__).parent.parent / "fixtures"
MUTABLE = ["spectral", "batch_stats"]


def cotangent(shape_nchw):
    """The fixtures' R[i] = cos(0.37 (i + 1)) over the flat NCHW index."""
    size = int(np.prod(shape_nchw))
    return np.cos(0.37 * np.arange(1, size + 1)).astype(np.float32).reshape(shape_nchw)


def test_power_iteration_finds_the_largest_singular_value():
    w = jax.random.normal(jax.random.key(0), (12, 30))
    sigma, u, v = layers.power_iteration(w, jnp.ones(12), 200, 1e-6)
    true_u, true_s, true_v = np.linalg.svd(np.asarray(w))
    assert sigma == pytest.approx(true_s[0], rel=1e-5)
    np.testing.assert_allclose(np.abs(u), np.abs(true_u[:, 0]), atol=1e-3)
    np.testing.assert_allclose(np.abs(v), np.abs(true_v[0]), atol=1e-3)


def test_gradient_of_sigma_is_the_outer_product_and_leaves_u_and_v_constant():
    w = jax.random.normal(jax.random.key(1), (5, 7))
    u0 = jax.random.normal(jax.random.key(2), (5,))
    sigma = lambda w: layers.power_iteration(w, u0, 1, 1e-6)[0]
    _, u, v = layers.power_iteration(w, u0, 1, 1e-6)
    np.testing.assert_allclose(jax.grad(sigma)(w), np.outer(u, v), rtol=1e-5, atol=1e-7)


def _spectral_case(kind):
    npz = np.load(FIXTURES / "f12_spectral_norm.npz")
    f = {k.removeprefix(kind + "/"): npz[k] for k in npz.files if k.startswith(kind + "/")}
    s = LayerSettings(sn_iterations=3 if kind == "conv_3itr" else 1)
    if kind.startswith("conv"):
        module = layers.Conv(s, features=7)
        weight = f["w"].transpose(2, 3, 1, 0)
        to_ours = lambda x: x.transpose(0, 2, 3, 1)
        back = lambda g: g.transpose(3, 2, 0, 1)
        params = {"kernel": weight, "bias": f["b"]}
    elif kind == "linear":
        module = layers.Dense(s, features=4)
        to_ours, back = (lambda x: x), (lambda g: g.T)
        params = {"kernel": f["w"].T, "bias": f["b"]}
    else:
        module = layers.Embed(s, num_embeddings=6, features=5)
        to_ours, back = (lambda x: x), (lambda g: g)
        params = {"embedding": f["w"]}
    x = f["x"].astype(np.int32) if kind == "embed" else to_ours(f["x"])
    return module, params, x, f, to_ours, back


@pytest.mark.parametrize("kind", ["conv", "linear", "embed", "conv_3itr"])
def test_spectral_norm_matches_the_peer(kind):
    module, params, x, f, to_ours, back = _spectral_case(kind)
    u = f["u0"][0]
    out = module.apply({"params": params, "spectral": {"u": u}}, x, False)
    np.testing.assert_allclose(out, to_ours(f["eval_out_with_u0"]), atol=2e-5)
    r = to_ours(cotangent(f["step0/out"].shape))
    for i in range(3):

        def loss(params, u=u):
            variables = {"params": params, "spectral": {"u": u}}
            out, new = module.apply(variables, x, True, mutable=["spectral"])
            return (out * r).sum(), (out, new["spectral"]["u"])

        grads, (out, u) = jax.grad(loss, has_aux=True)(params)
        np.testing.assert_allclose(out, to_ours(f[f"step{i}/out"]), atol=2e-5)
        np.testing.assert_allclose(u, f[f"step{i}/u_after"][0], atol=1e-5)
        name = "embedding" if kind == "embed" else "kernel"
        np.testing.assert_allclose(back(grads[name]), f[f"step{i}/dw"], rtol=1e-4, atol=1e-5)


def test_eval_does_not_store_u_and_training_does():
    module = layers.Dense(features=4)
    x = jnp.ones((2, 6))
    variables = module.init(jax.random.key(0), x, False)
    _, after_eval = module.apply(variables, x, False, mutable=["spectral"])
    _, after_train = module.apply(variables, x, True, mutable=["spectral"])
    u = variables["spectral"]["u"]
    np.testing.assert_array_equal(after_eval["spectral"]["u"], u)
    assert not np.allclose(after_train["spectral"]["u"], u)


def test_stored_mode_uses_u_and_v_as_they_are():
    module = layers.Dense(LayerSettings(sn_eval="stored"), features=4, use_bias=False)
    x = jax.random.normal(jax.random.key(0), (2, 6))
    variables = module.init(jax.random.key(1), x, False)
    kernel = variables["params"]["kernel"]
    u, v = variables["spectral"]["u"], variables["spectral"]["v"]
    sigma = u @ kernel.T @ v
    np.testing.assert_allclose(module.apply(variables, x, False), x @ kernel / sigma, rtol=2e-5)


def test_conditional_batch_norm_matches_the_peer():
    f = np.load(FIXTURES / "f13_conditional_bn.npz")
    nhwc = lambda x: x.transpose(0, 2, 3, 1)
    sd = {k.removeprefix("bn/sd/"): f[k] for k in f.files if k.startswith("bn/sd/")}
    kernel = lambda name: {"kernel": sd[f"{name}.weight"].T}
    stats = {"norm": {"mean": sd["stored_mean"], "var": sd["stored_var"]}}
    variables = {
        "params": {"gain": kernel("gain"), "bias": kernel("bias")},
        "spectral": {name: {"u": sd[f"{name}.u0"][0]} for name in ("gain", "bias")},
        "batch_stats": stats,
    }
    # The peer's layer default; the model-level fixtures use 1e-6.
    module = layers.ConditionalBatchNorm(LayerSettings(sn_eps=1e-6))
    x, y = nhwc(f["bn/in/x"]), f["bn/in/y"]
    out, new = module.apply(variables, x, y, True, mutable=MUTABLE)
    np.testing.assert_allclose(out, nhwc(f["bn/train/out"]), atol=2e-5)
    after = new["batch_stats"]["norm"]
    np.testing.assert_allclose(after["mean"], f["bn/train/after/stored_mean"], atol=1e-5)
    np.testing.assert_allclose(after["var"], f["bn/train/after/stored_var"], atol=1e-5)
    out = module.apply({**variables, **new}, x, y, False)
    np.testing.assert_allclose(out, nhwc(f["bn/eval_after_train/out"]), atol=2e-5)


def test_gain_is_centred_at_one():
    """With W_g = 0 the layer is plain batch norm; without the `1 +` it would output zeros."""
    module = layers.ConditionalBatchNorm()
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
    condition = jnp.ones((8, 5))
    variables = module.init(jax.random.key(1), x, condition, False)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    out, _ = module.apply(variables | {"params": params}, x, condition, True, mutable=MUTABLE)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-3)


def test_variance_survives_a_large_mean():
    noise = np.random.default_rng(0).standard_normal((64, 8, 8, 3))
    x = (1000 + 0.01 * noise).astype(np.float32)
    module = layers.AffineBatchNorm(LayerSettings(bn_eps=0.0))
    variables = module.init(jax.random.key(0), x, False)
    out, _ = module.apply(variables, x, True, mutable=MUTABLE)
    np.testing.assert_allclose(np.asarray(out).std((0, 1, 2)), 1, atol=2e-2)
    np.testing.assert_allclose(np.asarray(out).mean((0, 1, 2)), 0, atol=2e-2)


def test_running_variance_is_the_unbiased_one():
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 4))
    module = layers.AffineBatchNorm()
    variables = module.init(jax.random.key(0), x, False)
    _, new = module.apply(variables, x, True, mutable=MUTABLE)
    expected = 0.9 + 0.1 * np.asarray(x).reshape(-1, 4).var(0, ddof=1)
    np.testing.assert_allclose(new["batch_stats"]["norm"]["var"], expected, rtol=1e-5)


def test_bfloat16_compute_keeps_parameters_and_statistics_in_float32():
    s = LayerSettings(dtype=jnp.dtype("bfloat16"))
    conv, norm = layers.Conv(s, features=4), layers.AffineBatchNorm(s)
    x = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    v = conv.init(jax.random.key(0), x, False)
    out, _ = conv.apply(v, x, True, mutable=MUTABLE)
    w = norm.init(jax.random.key(0), out, False)
    assert out.dtype == norm.apply(w, out, False).dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves((v, w))} == {jnp.dtype("float32")}
