"""The peers' names of modules, as they follow from the names of their tensors."""

import pytest

from biggan_jax import models
from biggan_jax.interop import module_names, pretrained_biggan, studiogan
from biggan_jax.models import walk
from tests.interop.test_infer import section

STUDIO = dict(studiogan.MODEL)
HF = {"name": "biggan_deep", "dim_z": 9, "sn_eval": "stored", "cond_order": "z_embedding"}
# (settings of the model, player, the peer, {its module: ours}), by reading the peers' code.
KNOWN = [
    ({"g_attention": (16,), "dim_z": 8}, "g", "BigGAN-PyTorch", {
        "shared": "shared", "linear": "linear", "blocks.1.0": "block_1",
        "blocks.1.1": "attention_16", "blocks.1.1.theta": "attention_16/theta",
        "blocks.0.0.bn1": "block_0/bn1",
        "blocks.0.0.bn1.bn": "block_0/bn1/norm", "blocks.0.0.bn1.gain": "block_0/bn1/gain",
        "blocks.2.0.conv_sc": "block_2/shortcut", "output_layer.0": "bn_out",
        "output_layer.0.bn": "bn_out/norm", "output_layer.2": "rgb"}),
    ({"name": "biggan_deep", "dim_z": 9, "d_attention": (16,)}, "d", "BigGAN-PyTorch", {
        "input_conv": "stem", "blocks.0.1": "block_1", "blocks.0.2": "attention_16",
        "blocks.2.0.conv3": "block_4/conv3", "embed": "embed", "linear": "linear"}),
    ({"g_attention": (16,), "dim_z": 8, **STUDIO}, "g", "PyTorch-StudioGAN", {
        "linear0": "linear", "blocks.2.0": "attention_16", "blocks.3.0": "block_2",
        "blocks.2.0.conv1x1_attn": "attention_16/o", "blocks.3.0.conv2d0": "block_2/shortcut",
        "blocks.3.0.bn2.bn": "block_2/bn2/norm", "bn4": "bn_out", "conv2d5": "rgb"}),
    ({"g_attention": (16,), **HF}, "g", "pytorch-pretrained-BigGAN", {
        "embeddings": "shared", "generator.gen_z": "linear", "generator.layers.4": "attention_16",
        "generator.layers.5": "block_4", "generator.layers.3.bn_1.scale": "block_3/bn2/gain",
        "generator.layers.3.bn_1": "block_3/bn2", "generator.conv_to_rgb": "rgb",
        "generator.bn": "bn_out", "generator.layers.0.conv_3": "block_0/conv4"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "player", "peer", "expected"),
    [pytest.param(*case, marks=[pytest.mark.full] * (i % 2)) for i, case in enumerate(KNOWN)],
)
def test_modules(changes, player, peer, expected):
    m = section(resolution=32, ch=8, **changes)
    peers = module_names.of_peers(m, player)
    (names,) = (names for names in peers if names.peer == peer)
    assert expected.items() <= names.modules.items()
    built = models.build(m)
    found = walk.of_generator(built[0]) if player == "g" else walk.of_discriminator(built[1], 3)
    paths = {"/".join(call.path) for call in found.calls}
    assert set(names.modules.values()) <= paths
    # What is left has its output elsewhere: an inner batch norm's is that of the one around it.
    left = paths - set(names.modules.values())
    assert all(path.endswith("/norm") for path in left)
    # Even a few names tell whose they are, where other peers have none of them or another model.
    resolved = module_names.resolve(expected, peers, module_names.own(paths), {})
    assert resolved.names.peer == peer and resolved.ours == expected and not resolved.unknown


def test_a_name_that_two_peers_have():
    """`blocks.2.0` is a block of BigGAN-PyTorch's and the attention of StudioGAN's."""
    for more, ours in (({}, "block_2"), (STUDIO, "attention_16")):
        m = section(resolution=32, dim_z=8, g_attention=(16,), **more)
        peers = module_names.of_peers(m, "g")
        resolved = module_names.resolve(["blocks.2.0"], peers, module_names.own([]), {})
        assert resolved.ours == {"blocks.2.0": ours}


def test_no_peer_has_another_family():
    m = section(name="sngan", resolution=32)
    assert module_names.of_peers(m, "g") == []
    own = module_names.own(["linear", "block_0/conv1"])
    recorded = ["module.block_0.conv1", "block_0/conv1", "", "lineer", "x" * 9]
    resolved = module_names.resolve(recorded, [], own, {"x" * 9: "linear"})
    assert resolved.ours == dict.fromkeys(recorded[:2], "block_0/conv1") | {
        "": "output", "x" * 9: "linear"}  # fmt: skip
    assert resolved.unknown == {"lineer": "linear"} and resolved.names is None


def test_the_place_of_attention_is_read_as_it_is_written():
    for resolution in (8, 16, 32, 64, 128):
        position = pretrained_biggan.layer_of_attention(resolution)
        assert 4 * 2 ** (position // 2) == resolution  # as `pretrained_biggan.settings` reads it
