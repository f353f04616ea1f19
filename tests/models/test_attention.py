"""Self-attention against the peer's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.models.attention import (
    FORMS,
    REDUCTIONS,
    ResidualControl,
    SelfAttention,
    least_channels,
)
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


def paper_attention(x, kernels, gamma):
    """Equations 1 to 3 of Zhang et al. 2019 in float64, for one image [N, C] of N pixels.

    W_f, W_g, W_h are [C, C/k], W_v is [C/k, C]; beta_ji is how far pixel j attends to pixel i.
    """
    f, g, h = (x @ kernels[name] for name in ("phi", "theta", "g"))
    s_ij = f @ g.T
    beta_ji = (np.exp(s_ij) / np.exp(s_ij).sum(0)).T
    o = (beta_ji @ h) @ kernels["o"]
    return gamma * o + x, beta_ji


def test_the_papers_form_is_its_equations():
    """Values, and gradients against central differences, all in float64."""
    rng = np.random.default_rng(0)
    c, k, side = 8, 4, 3  # an odd side: nothing is pooled
    x = rng.standard_normal((2, side, side, c))
    widths = {"theta": (c, c // k), "phi": (c, c // k), "g": (c, c // k), "o": (c // k, c)}
    params = {"gamma": np.array(0.7)} | {
        name: {"kernel": rng.standard_normal((1, 1, *shape))} for name, shape in widths.items()
    }
    cotangent = rng.standard_normal(x.shape)

    def slow(params, x):
        kernels = {name: params[name]["kernel"][0, 0] for name in widths}
        pixels = x.reshape(2, side**2, c)
        of_images = [paper_attention(image, kernels, params["gamma"]) for image in pixels]
        return [np.stack(parts) for parts in zip(*of_images, strict=True)]

    with jax.enable_x64(True):
        wide = jnp.dtype("float64")
        module = SelfAttention(
            LayerSettings(
                dtype=wide,
                param_dtype=wide,
                spectral_norm=False,
                attention_form="paper",
                attention_reduction=k,
            )
        )
        out, sown = module.apply({"params": params}, x, False, mutable=["attention"])
        expected, beta = slow(params, x)
        np.testing.assert_allclose(out.reshape(2, -1, c), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(sown["attention"]["map"][0], beta, rtol=1e-12, atol=1e-14)

        def loss(params, x):
            return (module.apply({"params": params}, x, False) * cotangent).sum()

        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, jnp.asarray(x))
        grads = jax.tree.map(np.asarray, grads)
    # Along random directions, one for each array.
    for path, grad in jax.tree.leaves_with_path(grads):
        direction = rng.standard_normal(grad.shape)
        ends = []
        for step in (1e-5, -1e-5):
            moved = jax.tree.map_with_path(
                lambda p, v, step=step, path=path, d=direction: v + step * d if p == path else v,
                (params, x),
            )
            ends.append((slow(*moved)[0] * cotangent.reshape(2, -1, c)).sum())
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((grad * direction).sum(), slope, rtol=1e-7, atol=1e-7)


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
def test_the_papers_values_are_as_narrow_as_its_keys(k):
    s = LayerSettings(attention_reduction=k, attention_form="paper")
    params = shapes(SelfAttention(s), 16)
    of = {name: params[name]["kernel"].shape[-2:] for name in ("theta", "phi", "g", "o")}
    narrow = (16, 16 // k)
    assert of == {"theta": narrow, "phi": narrow, "g": narrow, "o": narrow[::-1]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", REDUCTIONS)
@pytest.mark.parametrize("channels", [32, 96, 256])
def test_the_control_has_the_size_of_the_attention_block(k, channels, form):
    s = LayerSettings(attention_reduction=k, attention_form=form)
    attention = count_parameters(shapes(SelfAttention(s), channels))
    control = count_parameters(shapes(ResidualControl(s), channels))
    # The paper's form is smaller: one channel more or less is a larger part of it.
    assert abs(control - attention) < (0.05 if form == "published" else 0.07) * attention


def test_too_few_channels_name_the_number():
    with pytest.raises(ValueError, match="C/8 key channels needs at least 8 channels, got 4"):
        shapes(SelfAttention(), 4)


@pytest.mark.parametrize(("form", "k", "least"), [("published", 1, 2), ("paper", 1, 1)])
def test_least_channels_of_the_two_forms(form, k, least):
    s = LayerSettings(attention_form=form, attention_reduction=k)
    assert least_channels(s) == least
    shapes(SelfAttention(s), least)
    assert least_channels(LayerSettings(attention_form=form, attention_reduction=8)) == 8
