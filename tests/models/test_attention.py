"""Self-attention against the peer's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models.attention import REDUCTIONS, ResidualControl, SelfAttention
from biggan_jax.models.settings import LayerSettings
from biggan_jax.planning.summary import count_parameters
from tests import peer
from tests.models.test_layers import cotangent

FIXTURES = Path(__file__).parent.parent / "fixtures"


def test_matches_the_peer():
    f = np.load(FIXTURES / "f06_attention.npz")
    state_dict = {f"blocks.0.1.{k}": v for k, v in peer.split(f, "sd").items()}
    nested = peer.variables(state_dict, {"0": "attention"})
    variables = {c: nested[c]["attention"] for c in ("params", "spectral")}
    nhwc = lambda x: x.transpose(0, 2, 3, 1)
    module = SelfAttention()
    x = nhwc(f["in/x"])
    out, sown = module.apply(variables, x, False, mutable=["attention"])
    np.testing.assert_allclose(out, nhwc(f["eval/out"]), atol=2e-5)
    np.testing.assert_allclose(sown["attention"]["map"][0], f["eval/beta"], atol=2e-6)

    r = nhwc(cotangent(f["in/x"].shape))

    def loss(params, x):
        out, new = module.apply(
            {"params": params, "spectral": variables["spectral"]}, x, True, mutable=["spectral"]
        )
        return (out * r).sum(), (out, new["spectral"])

    (grads, dx), (out, spectral) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], x
    )
    np.testing.assert_allclose(out, nhwc(f["train/out"]), atol=2e-5)
    np.testing.assert_allclose(dx, nhwc(f["train/dx"]), atol=2e-5)
    for name in ("theta", "phi", "g", "o"):
        np.testing.assert_allclose(spectral[name]["u"], f[f"train/after/{name}.u0"][0], atol=1e-5)
        expected = f[f"train/grad/{name}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(grads[name]["kernel"], expected, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(grads["gamma"], f["train/grad/gamma"], rtol=1e-4)


def test_starts_as_the_identity():
    module = SelfAttention()
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(1), x, False)
    assert variables["params"]["gamma"] == 0
    np.testing.assert_array_equal(module.apply(variables, x, False), x)


def test_maps_are_distributions_over_pooled_keys():
    module = SelfAttention()
    x = jnp.ones((1, 4, 6, 8))
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(1), x, False)
    _, sown = module.apply(variables, x, False, mutable=["attention"])
    beta = sown["attention"]["map"][0]
    assert beta.shape == (1, 24, 6)
    np.testing.assert_allclose(beta.sum(-1), 1, rtol=1e-5)


def shapes(module, channels):
    x = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
    init = lambda key, x: module.init(key, x, False)
    return jax.eval_shape(init, jax.random.key(0), x)["params"]


@pytest.mark.parametrize("k", REDUCTIONS)
def test_reduction_is_of_the_keys_alone(k):
    params = shapes(SelfAttention(LayerSettings(attention_reduction=k)), 16)
    widths = {name: params[name]["kernel"].shape[-1] for name in ("theta", "phi", "g", "o")}
    assert widths == {"theta": 16 // k, "phi": 16 // k, "g": 8, "o": 16}


@pytest.mark.parametrize("k", REDUCTIONS)
@pytest.mark.parametrize("channels", [32, 96, 256])
def test_the_control_has_the_size_of_the_attention_block(k, channels):
    s = LayerSettings(attention_reduction=k)
    attention = count_parameters(shapes(SelfAttention(s), channels))
    control = count_parameters(shapes(ResidualControl(s), channels))
    assert abs(control - attention) < 0.05 * attention


def test_too_few_channels_name_the_number():
    with pytest.raises(ValueError, match="C/8 key channels needs at least 8 channels, got 4"):
        shapes(SelfAttention(), 4)
