"""The architecture of every size is read off the shapes that the peer gives its tensors."""

import jax
import pytest

from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.interop import convert, infer, layout

SIZES = [32, 64, 128, 256, 512]


def section(**changes):
    m = default_config().model
    m.update({"num_classes": 7, "g_attention": (), "d_attention": (), "shared_dim": 12} | changes)
    return m


def peer_shapes(m, player, statistics="stored_"):
    """{peer's name: peer's shape} of a model of ours."""
    target = convert.target(m, player)
    keys = layout.keys_of(target, m, player, statistics)
    assert len(set(keys.values())) == len(keys)
    return {keys[path]: layout.peer_shape(path, leaf.shape) for path, leaf in target.items()}


def check(found, m, *keys):
    keys += ("name", "resolution", "ch", "channels", "num_classes")
    assert {key: found[key] for key in keys} == {key: m[key] for key in keys}


G_KEYS = ("dim_z", "hierarchical_z", "shared_embedding", "g_attention", "bn_variance")
D_KEYS = ("d_thin", "d_attention", "d_spectral_norm")


GENERATORS = [
    {"resolution": 32, "dim_z": 40, "ch": 6},
    {"resolution": 64, "dim_z": 40, "g_attention": (64,), "ch": 8},
    {"resolution": 128, "dim_z": 13, "shared_embedding": False, "hierarchical_z": False},
    {"resolution": 32, "dim_z": 11, "hierarchical_z": False, "g_spectral_norm": False},
    {"resolution": 256, "dim_z": 70, "g_attention": (64, 128), "bn_variance": "biased"},
    {"resolution": 512, "dim_z": 80, "g_attention": (64,)},
    {"resolution": 32, "dim_z": 9, "name": "biggan_deep", "g_attention": (8, 32), "ch": 4},
    {"resolution": 256, "dim_z": 9, "name": "biggan_deep", "g_attention": (64,)},
]


@pytest.mark.parametrize(
    "changes",
    [pytest.param(c, marks=[pytest.mark.full] * (c["resolution"] > 128)) for c in GENERATORS],
    ids=lambda c: f"{c.get('name', 'biggan')}{c['resolution']}",
)
def test_generator(changes):
    m = section(**{"ch": 8, **changes})
    statistics = "bn.stored_" if m.bn_variance == "biased" else "stored_"
    found = infer.generator(peer_shapes(m, "g", statistics), "G.pth")
    check(found, m, *G_KEYS, "g_spectral_norm", *(("shared_dim",) if m.shared_embedding else ()))


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 32, "d_thin": True, "ch": 6},
        {"resolution": 64, "d_attention": (32, 8), "d_thin": True},
        {"resolution": 128, "d_attention": (64,), "channels": 1},
        {"resolution": 256, "d_attention": (64, 4)},
        {"resolution": 512},
        {"resolution": 32, "name": "biggan_deep", "ch": 4, "d_attention": (16,)},
        {"resolution": 128, "name": "biggan_deep", "d_attention": (64,)},
        {"resolution": 512, "name": "biggan_deep", "d_attention": (64,)},
    ],
    ids=lambda c: f"{c.get('name', 'biggan')}{c['resolution']}",
)
def test_discriminator(changes):
    m = section(**{"ch": 8, "dim_z": 8 * 7 * 6 * 5 * 3, **changes})
    m.update(d_attention=tuple(sorted(m.d_attention)))
    check(infer.discriminator(peer_shapes(m, "d"), "D.pth"), m, *D_KEYS)


def test_what_is_no_architecture_of_ours():
    m = section(resolution=32, dim_z=16, ch=8, d_attention=(16,))
    shapes = peer_shapes(m, "d")
    twice = {k.replace("blocks.0.1", "blocks.2.1"): v for k, v in shapes.items()} | shapes
    with pytest.raises(UserError, match="blocks.2.1.theta.weight puts attention where"):
        infer.discriminator(twice, "D.pth")
    wide = shapes | {"blocks.1.0.conv2.weight": (48, 32, 3, 3)}
    with pytest.raises(UserError, match="blocks of 32, 48, 32, 32 channels fit no table"):
        infer.discriminator(wide, "D.pth")
    with pytest.raises(UserError, match="D.pth: the tensor embed.weight is missing"):
        infer.discriminator({k: v for k, v in shapes.items() if "embed" not in k}, "D.pth")


def test_layout_there_and_back():
    """The inverse of an import is exact, the permutation of G's first layer included."""
    m = section(resolution=32, dim_z=16, ch=4)
    shapes = convert.target(m, "g")
    for path in ("params/linear/kernel", "params/linear/bias", "spectral/linear/u",
                 "params/block_0/conv1/kernel", "params/block_1/bn2/gain/kernel"):  # fmt: skip
        value = jax.random.normal(jax.random.key(0), shapes[path].shape)
        theirs = layout.to_peer(path, value, "g")
        assert theirs.shape == layout.peer_shape(path, value.shape)
        assert (layout.to_ours(path, theirs, "g") == value).all()
