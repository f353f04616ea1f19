"""BigGAN-deep against its peers: parameter counts, forward passes, statistics and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import biggan_deep, conditioning
from biggan_jax.models.settings import LayerSettings
from tests import peer
from tests.models.test_biggan import FIXTURES, inputs, section
from tests.models.test_biggan_ablations import (
    VARIANTS,
    parameters,
    random_variables,
)

ROW = re.compile(
    r"(?:BigGANdeep-PyTorch|HF-BigGAN-deep|StudioGAN/big_resnet_deep_(?:legacy|studiogan))"
    r"/([GD])/res(\d+)/ch(\d+)"
)


def deep(**changes):
    return section(name="biggan_deep", **changes)


# Of BigGAN-PyTorch's the wider ones, of StudioGAN's the larger ones: other numbers alone.
MORE = re.compile(r"BigGANdeep-PyTorch/.*/ch128/|StudioGAN/.*/res256/")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(r, marks=[pytest.mark.full] * bool(MORE.match(r)))
        for r in VARIANTS
        if ROW.match(r)
    ],
)
def test_parameter_counts_equal_the_peers(row):
    kind, res, ch = ROW.match(row)[1], int(ROW.match(row)[2]), int(ROW.match(row)[3])
    m = deep(resolution=res, ch=ch, num_classes=1000, dim_z=128, shared_dim=128)
    # The peers' D has no stage that ends at the full resolution: '64' at 64 pixels is none.
    if res > 64 or (res == 64 and kind == "G"):
        m["g_attention" if kind == "G" else "d_attention"] = (64,)
    if row.startswith("HF"):
        m.rgb_width, m.cond_order = ch, "z_embedding"
    if "deep_studiogan" in row:
        m.deep_blocks = m.width_table = "studiogan"
    assert parameters(m, kind) == VARIANTS[row]


def test_all_rows_are_read():
    """All of BigGAN-deep, StudioGAN's two versions included."""
    assert all(ROW.match(r) for r in VARIANTS if "deep" in r)
    assert sum(bool(ROW.match(r)) for r in VARIANTS) == 16 + 3 + 4 + 4


@pytest.mark.parametrize(
    ("resolution", "channels", "num_classes"),
    [
        *((16, 1, 10), (32, 3, 1), (64, 3, 10), (128, 1, 10)),
        *(pytest.param(*x, marks=pytest.mark.full) for x in ((256, 3, 1), (512, 3, 10))),
    ],
)
def test_shapes_for_every_resolution(resolution, channels, num_classes):
    m = deep(resolution=resolution, channels=channels, num_classes=num_classes, ch=8)
    m.g_attention = m.d_attention = (8,)
    generator, discriminator = models.build(m)
    z, labels, images = jax.eval_shape(lambda: inputs(m))
    key = jax.random.key(0)
    out, g = jax.eval_shape(generator.init_with_output, key, z, labels)
    logits, d = jax.eval_shape(discriminator.init_with_output, key, images, labels)
    assert out.shape == (2, resolution, resolution, channels) and logits.shape == (2,)
    assert ("shared" in g["params"]) == ("embed" in d["params"]) == (num_classes > 1)
    for player, params in ((generator, g["params"]), (discriminator, d["params"])):
        theta = params["attention_8"]["theta"]["kernel"]
        assert theta.shape[2] == player.attention_widths()[8]
    # The whole of z in the first layer and in every batch norm.
    condition = m.dim_z + (m.shared_dim if num_classes > 1 else 0)
    last = f"block_{2 * len(biggan_deep.G_WIDTHS[resolution]) - 3}"
    for layer in (g["params"]["linear"], g["params"][last]["bn4"]["gain"]):
        assert layer["kernel"].shape[0] == condition


def test_generator_32_matches_the_peer():
    f = np.load(FIXTURES / "f04b_biggandeep32_G.npz")
    m = deep(resolution=32, ch=8, dim_z=16, shared_dim=16, g_attention=(16,))
    generator, _ = models.build(m)
    names = {"3": "attention_16"}
    peer.check_generator(f, generator, lambda arrays: peer.variables(arrays, names, 32))


def test_discriminator_32_matches_the_peer():
    f = np.load(FIXTURES / "f04b_biggandeep32_D.npz")
    _, discriminator = models.build(deep(resolution=32, ch=int(f["meta/D_ch"])))
    to_ours = lambda arrays: peer.variables(arrays, {}, deep_d=True)
    peer.check_discriminator(f, discriminator, to_ours)


def test_generator_128_matches_pretrained_biggan(fixtures_dir):
    """Its order of conditioning, eps, wide last convolution, stored u and v, and statistics."""
    f = np.load(fixtures_dir / "f05_hf_biggandeep128.npz")
    m = deep(resolution=128, ch=8, dim_z=16, shared_dim=16, g_attention=(64,), rgb_width=8)
    m.cond_order, m.sn_eval, m.bn_eps, m.sn_eps = "z_embedding", "stored", 1e-4, 1e-4
    generator, _ = models.build(m)
    forward = jax.jit(generator.apply)
    z, labels = f["in/z_trunc0.5_seed7"], f["in/y"].astype(np.int32)
    for truncation, row in ((0.5, 25), (1.0, 50)):
        variables = peer.pretrained_variables(peer.split(f, "sd"), 8, "attention_64", row)
        out = forward(variables, z, labels)
        np.testing.assert_allclose(out, peer.nhwc(f[f"eval/out_trunc{truncation}"]), atol=2e-5)


def test_fused_blocks_equal_the_textbook_order():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 8))
    condition = jax.random.normal(jax.random.key(1), (2, 5))
    for block, args in (
        (lambda s: biggan_deep.GeneratorBlock(4, True, s), (x, condition, False)),
        (lambda s: biggan_deep.DiscriminatorBlock(16, True, s), (x, False)),
    ):
        fused, textbook = block(LayerSettings()), block(LayerSettings(fused=False))
        variables = random_variables(fused, *args)
        both = lambda v: (fused.apply(v, *args), textbook.apply(v, *args))  # noqa: B023
        ours, slow = jax.jit(both)(variables)
        assert ours.shape[1] != 8 and jnp.abs(slow - slow.mean()).max() > 0.1
        np.testing.assert_allclose(ours, slow, rtol=1e-5, atol=1e-6)


def test_skips_drop_and_gain_the_last_channels():
    """With the last convolution at zero a block is its skip."""
    x = np.arange(2 * 4 * 4 * 8, dtype=np.float32).reshape(2, 4, 4, 8)

    def skip(block, *args):
        variables = random_variables(block, *args)
        conv4 = jax.tree.map(np.zeros_like, variables["params"]["conv4"])
        variables["params"] = variables["params"] | {"conv4": conv4}
        return jax.jit(lambda v: block.apply(v, *args))(variables)

    up = skip(biggan_deep.GeneratorBlock(4, True, LayerSettings()), x, np.ones((2, 3)), False)
    np.testing.assert_array_equal(up, x[..., :4].repeat(2, 1).repeat(2, 2))
    down = skip(biggan_deep.DiscriminatorBlock(16, True, LayerSettings()), x, False)
    np.testing.assert_allclose(down[..., :8], x.reshape(2, 2, 2, 2, 2, 8).mean((2, 4)), rtol=1e-6)
    assert np.abs(down[..., 8:]).max() > 1


def test_both_orders_of_the_condition():
    embedding, z = np.zeros((1, 2)), np.ones((1, 3))
    joined = {order: conditioning.join(embedding, z, order)[0] for order in conditioning.ORDERS}
    np.testing.assert_array_equal(joined["embedding_z"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(joined["z_embedding"], [1, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_embedding": False}, ("model.shared_embedding=True",)),
        ({"hierarchical_z": False}, ("model.hierarchical_z=True",)),
        ({"d_thin": True}, ("model.d_thin=False", "bottlenecks")),
        ({"width_table": "studio"}, ("model.width_table", "studiogan_legacy")),
        ({"resolution": 512, "ch": 3}, ("3", "512", "at least 4", "model.ch=4")),
        ({"resolution": 48}, ("48", "16, 32, 64, 128, 256, 512")),
    ],
)
def test_bad_sections_are_refused_with_the_setting_to_change(changes, words):
    with pytest.raises(UserError) as e:
        models.build(deep(**changes))
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)
