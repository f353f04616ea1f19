"""BigGAN's and SAGAN's ablations: what is shared, what sees z, thin D, the attention block."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.planning.summary import count_parameters
from tests import peer
from tests.models.test_biggan import FIXTURES, inputs, section

VARIANTS = json.loads((FIXTURES / "variant_counts.json").read_text())
UNSHARED = {"shared_embedding": False, "hierarchical_z": False}
SCRIPT = re.compile(
    r"BigGAN-PyTorch/([GD])/(cifar|SAGAN|SNGAN)_script/(?:res\d+/)?ch(\d+).*/classes(\d+)$"
)
STUDIOGAN = re.compile(
    r"StudioGAN/big_resnet/([GD])/res(\d+)/ch(\d+)(?:/z(\d+))?/attn_._loc\[(\d)\]/classes(\d+)$"
)


def parameters(m, kind: str) -> int:
    player = models.build(m)[0 if kind == "G" else 1]
    z, labels, images = jax.eval_shape(lambda: inputs(m))
    first = z if kind == "G" else images
    shapes = jax.eval_shape(player.init, jax.random.key(0), first, labels)
    return count_parameters(shapes["params"])


@pytest.mark.parametrize("row", [r for r in VARIANTS if SCRIPT.match(r)])
def test_parameter_counts_of_the_peers_scripts(row):
    kind, script, ch, classes = SCRIPT.match(row).groups()
    m = section(ch=int(ch), num_classes=int(classes), dim_z=128, **UNSHARED)
    m.resolution = 32 if script == "cifar" else 128
    m.d_thin = script == "SNGAN"
    if script == "SAGAN":
        m.g_attention = m.d_attention = (64,)
    assert parameters(m, kind) == VARIANTS[row]


@pytest.mark.parametrize("row", [r for r in VARIANTS if STUDIOGAN.match(r)])
def test_parameter_counts_of_studiogan(row):
    kind, res, ch, dim_z, block, classes = STUDIOGAN.match(row).groups()
    m = section(resolution=int(res), ch=int(ch), num_classes=int(classes), shared_dim=128)
    m.dim_z = int(dim_z or 20 * len(models.biggan.G_WIDTHS[int(res)]))
    m.width_table = "studiogan"
    # Attention after a block, counted from 1.
    if kind == "G":
        m.g_attention = (4 * 2 ** int(block),)
    else:
        m.d_attention = (int(res) // 2 ** int(block),)
    assert parameters(m, kind) == VARIANTS[row]


def test_all_rows_are_read():
    """BigGAN-deep's rows are read by its own tests."""
    assert sum(bool(SCRIPT.match(r)) for r in VARIANTS) == 8
    assert sum(bool(STUDIOGAN.match(r)) for r in VARIANTS) == 10


def test_generator_without_shared_embedding_matches_the_peer():
    f = np.load(FIXTURES / "f01b_biggan32_G_cifar_script_noshared.npz")
    m = section(resolution=32, ch=8, dim_z=32, sn_eps=float(f["meta/SN_eps"]), **UNSHARED)
    g, _ = models.build(m)
    peer.check_generator(f, g, lambda arrays: peer.variables(arrays, {}, 32, tables=True))


ABLATIONS = {
    "unshared": dict(UNSHARED, d_thin=True, attention_reduction=2, d_attention=(8,)),
    "not_hierarchical": dict(
        hierarchical_z=False, attention_kind="residual", g_attention=(8,), d_attention=(8,)
    ),
    "unconditional": dict(UNSHARED, num_classes=1, init="normal", g_spectral_norm=False),
}


@pytest.mark.parametrize(
    "name", ["unshared", "not_hierarchical", pytest.param("unconditional", marks=pytest.mark.full)]
)
def test_every_parameter_has_a_gradient(name):
    """In eval mode, where biases before a norm count too, and with a gamma that is not 0."""
    assert_alive(section(**ABLATIONS[name]))


def random_variables(player, *inputs):
    """Variables of random numbers: compiling the orthogonal init takes longer than the test."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if "'var'" in jax.tree_util.keystr(path):
            return np.ones(leaf.shape, leaf.dtype)
        return (0.3 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    init = lambda key: player.init(key, *inputs)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map_with_path(fill, shapes)


def assert_alive(m):
    generator, discriminator = models.build(m)
    z, labels, images = inputs(m)
    g = random_variables(generator, z, labels)
    d = random_variables(discriminator, images, labels)

    @jax.jit
    def gradients(params):
        def loss(params):
            out = generator.apply(g | {"params": params[0]}, z, labels)
            logits = discriminator.apply(d | {"params": params[1]}, images, labels)
            return (out * images).sum() + (logits * jnp.array([1.0, 2.0])).sum()

        return jax.grad(loss)(params)

    for path, gradient in jax.tree.leaves_with_path(gradients((g["params"], d["params"]))):
        assert np.linalg.norm(gradient) > 1e-9, jax.tree_util.keystr(path)


def test_what_each_generator_is_made_of():
    """Names and shapes of what the batch norms are conditioned on."""

    def bn1(**changes):
        m = section(**changes)
        g, _ = models.build(m)
        z, labels, _ = jax.eval_shape(lambda: inputs(m))
        params = jax.eval_shape(g.init, jax.random.key(0), z, labels)["params"]
        norm = params["block_0"]["bn1"]["gain"]
        leaves = norm if isinstance(norm, dict) else {"": norm}
        return {k: v.shape for k, v in leaves.items()}, "shared" in params, params["linear"]

    shape, shared, linear = bn1()  # 8 of the embedding + 4 of z
    assert (shape, shared, linear["kernel"].shape[0]) == ({"kernel": (12, 16)}, True, 4)
    shape, shared, linear = bn1(hierarchical_z=False)
    assert (shape, shared, linear["kernel"].shape[0]) == ({"kernel": (8, 16)}, True, 12)
    shape, shared, linear = bn1(**UNSHARED)
    assert (shape, shared, linear["kernel"].shape[0]) == ({"embedding": (10, 16)}, False, 12)
    for shared_embedding in (True, False):
        one = {"num_classes": 1, "shared_embedding": shared_embedding}
        shape, shared, linear = bn1(**one)
        assert (shape, shared, linear["kernel"].shape[0]) == ({"kernel": (4, 16)}, False, 4)
        shape, shared, linear = bn1(hierarchical_z=False, **one)
        assert (shape, shared, linear["kernel"].shape[0]) == ({"": (16,)}, False, 12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_embedding": False}, ("hierarchical_z=False", "shared_embedding=True")),
        ({"attention_reduction": 3}, ("3", "model.attention_reduction", "1, 2, 4, 8")),
        ({"attention_form": "papr"}, ("did you mean 'paper'", "model.attention_form")),
        ({"attention_kind": "residul"}, ("did you mean 'residual'", "model.attention_kind")),
        ({"ch": 1, "d_attention": (8,), "attention_reduction": 8}, ("4 channels", "8", "model.ch")),
        ({"width_table": "studio"}, ("model.width_table", "studiogan")),
    ],
)
def test_bad_ablations_are_refused_with_the_setting_to_change(changes, words):
    with pytest.raises(UserError) as e:
        models.build(section(**changes))
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)


def test_fewer_channels_suffice_for_a_smaller_reduction_and_for_the_control():
    models.build(section(ch=1, d_attention=(8,), attention_reduction=4))
    models.build(section(ch=1, d_attention=(8,), attention_kind="residual"))
    # z only has to split into chunks where it is split.
    models.build(section(dim_z=13, hierarchical_z=False))
