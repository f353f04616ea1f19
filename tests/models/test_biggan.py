"""BigGAN against the peer: parameter counts, forward passes, statistics and gradients."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.planning.summary import count_parameters
from tests import peer

FIXTURES = Path(__file__).parent.parent / "fixtures"
COUNTS = json.loads((FIXTURES / "param_counts.json").read_text())
ROW = re.compile(
    r"([GD])/res(\d+)/ch(\d+)(?:/dim_z(\d+)/shared128/hier)?(?:/attn(\d+))?/classes(\d+)$"
)
nhwc = lambda x: x.transpose(0, 2, 3, 1)


def section(**changes):
    c = default_config().model
    c.num_classes, c.g_attention, c.d_attention = 10, (), ()
    c.resolution, c.ch, c.dim_z, c.shared_dim = 16, 4, 12, 8
    for key, value in changes.items():
        c[key] = value
    return c


def inputs(m, n=2):
    labels = jnp.arange(n, dtype=jnp.int32) % m.num_classes
    z = jax.random.normal(jax.random.key(0), (n, m.dim_z))
    images = jax.random.uniform(
        jax.random.key(1), (n, m.resolution, m.resolution, m.channels), minval=-1
    )
    return z, labels, images


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(r, marks=[pytest.mark.full] * ("/ch96/" in r and not r.startswith("D/res512")))
        for r in COUNTS
        if ROW.match(r)
    ],
)
def test_parameter_counts_equal_the_peers(row):
    kind, res, ch, dim_z, attn, classes = ROW.match(row).groups()
    res, attn = int(res), int(attn or 0)
    # The peer's D has no block that ends at the full resolution: its '64' at 64 pixels is no
    # attention.
    attention = (attn,) if attn and (kind == "G" or attn < res) else ()
    m = section(resolution=res, ch=int(ch), num_classes=int(classes), shared_dim=128)
    m.dim_z = int(dim_z or 20 * len(models.biggan.G_WIDTHS[res]))
    m["g_attention" if kind == "G" else "d_attention"] = attention
    generator, discriminator = models.build(m)
    z, labels, images = jax.eval_shape(lambda: inputs(m))
    key = jax.random.key(0)
    if kind == "G":
        shapes = jax.eval_shape(generator.init, key, z, labels)
    else:
        shapes = jax.eval_shape(discriminator.init, key, images, labels)
    assert count_parameters(shapes["params"]) == COUNTS[row]


def test_all_rows_are_read():
    assert sum(bool(ROW.match(r)) for r in COUNTS) == 35


@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256, 512])
@pytest.mark.parametrize(
    ("channels", "num_classes"), [(1, 10), pytest.param(3, 10, marks=pytest.mark.full), (3, 1)]
)
def test_shapes_for_every_resolution(resolution, channels, num_classes):
    chunks = len(models.biggan.G_WIDTHS[resolution])
    m = section(resolution=resolution, channels=channels, num_classes=num_classes, dim_z=2 * chunks)
    generator, discriminator = models.build(m)
    z, labels, images = jax.eval_shape(lambda: inputs(m))
    key = jax.random.key(0)
    out, g = jax.eval_shape(generator.init_with_output, key, z, labels)
    logits, d = jax.eval_shape(discriminator.init_with_output, key, images, labels)
    assert out.shape == (2, resolution, resolution, channels) and logits.shape == (2,)
    assert ("shared" in g["params"]) == ("embed" in d["params"]) == (num_classes > 1)


def _models(f, kind, **changes):
    m = section(
        resolution=int(f["meta/resolution"]),
        ch=int(f[f"meta/{kind}_ch"]),
        num_classes=10,
        **changes,
    )
    return models.build(m)[0 if kind == "G" else 1]


def _check_generator(f, attention=()):
    g = _models(
        f,
        "G",
        dim_z=int(f["meta/dim_z_used"]),
        shared_dim=int(f["meta/shared_dim"]),
        g_attention=attention,
    )
    names = {"3": "attention_64"} if attention else {}
    bottom = g.ch * models.biggan.G_WIDTHS[g.resolution][0]
    peer.check_generator(f, g, lambda arrays: peer.variables(arrays, names, bottom))


def test_generator_32_matches_the_peer():
    _check_generator(np.load(FIXTURES / "f01_biggan32_G_shared_hier.npz"))


def test_generator_128_with_attention_matches_the_peer(fixtures_dir):
    _check_generator(np.load(fixtures_dir / "f03_biggan128_G_attn64.npz"), (64,))


def _check_discriminator(f, attention=()):
    d = _models(f, "D", dim_z=24 if attention else 16, d_attention=attention)
    names = {"0": "attention_64"} if attention else {}
    peer.check_discriminator(f, d, lambda arrays: peer.variables(arrays, names))


def test_discriminator_32_matches_the_peer():
    _check_discriminator(np.load(FIXTURES / "f01_biggan32_D.npz"))


def test_discriminator_128_with_attention_matches_the_peer(fixtures_dir):
    _check_discriminator(np.load(fixtures_dir / "f03_biggan128_D_attn64.npz"), (64,))


@pytest.mark.full
def test_conditioning_order_changes_the_weights_meaning():
    m = section()
    generator, _ = models.build(m)
    z, labels, _ = inputs(m)
    variables = jax.jit(generator.init)(jax.random.key(0), z, labels)
    other = generator.clone(cond_order="z_embedding")
    assert not np.allclose(generator.apply(variables, z, labels), other.apply(variables, z, labels))


def test_kernels_start_orthogonal_and_biases_at_zero():
    m = section(ch=8)
    generator, discriminator = models.build(m)
    z, labels, images = inputs(m)
    for variables in (
        jax.jit(generator.init)(jax.random.key(0), z, labels),
        jax.jit(discriminator.init)(jax.random.key(0), images, labels),
    ):
        for path, x in jax.tree.leaves_with_path(variables["params"]):
            if path[-1].key in ("kernel", "embedding"):
                w = np.asarray(x).reshape(-1, x.shape[-1])
                gram = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
                np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
            elif path[-1].key == "bias":
                assert not np.any(x)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 48}, ("48", "model.resolution")),
        ({"dim_z": 13}, ("13", "3", "model.dim_z=12")),
        ({"ch": 1, "g_attention": (8,)}, ("4 channels", "8", "model.ch")),
        ({"d_attention": (64,)}, ("64", "8, 4", "model.d_attention")),
        ({"channels": 2}, ("2", "model.channels")),
        ({"name": "bigan"}, ("bigan", "'biggan'")),
        ({"num_classes": 0}, ("0", "model.num_classes")),
        ({"sn_eval": "store"}, ("store", "stored")),
    ],
)
def test_bad_sections_are_refused_with_the_setting_to_change(changes, words):
    with pytest.raises(UserError) as e:
        models.build(section(**changes))
    message = str(e.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unset_classes_name_the_override():
    m = default_config().model
    with pytest.raises(UserError, match="--config.model.num_classes"):
        models.build(m)
