"""SNGAN-projection: the authors' layer tables, initialisers, and where spectral norm acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.models import initializers
from biggan_jax.planning.summary import count_parameters
from tests.models.test_biggan import inputs, section


def sngan(**changes):
    paper = {"g_spectral_norm": False, "d_thin": True, "init": "glorot_relu", "dim_z": 8}
    return section(**({"name": "sngan"} | paper | changes))


def shapes(m):
    """(images, logits, G's variables, D's variables) as shapes."""
    generator, discriminator = models.build(m)
    z, labels, images = jax.eval_shape(lambda: inputs(m))
    key = jax.random.key(0)
    out, g = jax.eval_shape(generator.init_with_output, key, z, labels)
    logits, d = jax.eval_shape(discriminator.init_with_output, key, images, labels)
    return out, logits, g, d


def counts(m):
    _, _, g, d = shapes(m)
    return count_parameters(g["params"]), count_parameters(d["params"])


def conv(size, inputs, outputs):
    return size**2 * inputs * outputs + outputs


def g_block(inputs, outputs, classes):
    """Two class-conditional norms of a gain and a bias, two 3x3 and the 1x1 shortcut."""
    norms = 2 * classes * (inputs + outputs)
    return norms + conv(3, inputs, outputs) + conv(3, outputs, outputs) + conv(1, inputs, outputs)


def d_block(inputs, hidden, outputs, shortcut=True):
    convs = conv(3, inputs, hidden) + conv(3, hidden, outputs)
    return convs + shortcut * conv(1, inputs, outputs)


def test_cifar_layers_of_the_authors_table():
    g = 128 * 16 * 256 + 16 * 256 + 3 * g_block(256, 256, 10) + 2 * 256 + conv(3, 256, 3)
    d = d_block(3, 128, 128) + d_block(128, 128, 128) + 2 * d_block(128, 128, 128, False)
    d += 128 + 10 * 128  # a head without bias, and the projection
    m = sngan(resolution=32, ch=64, dim_z=128)
    assert counts(m) == (g, d) == (4_304_387, 1_055_104)


def test_imagenet_layers_of_the_authors_table():
    g = 128 * 16 * 1024 + 16 * 1024 + 2 * 64 + conv(3, 64, 3)
    for a, b in ((1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)):
        g += g_block(a, b, 1000)
    d = d_block(3, 64, 64) + d_block(1024, 1024, 1024, False) + 1025 + 1000 * 1024
    for a in (64, 128, 256, 512):
        d += d_block(a, a, 2 * a)
    # BigGAN-PyTorch's SNGAN script: the same G; its thin D has 3 hidden channels in the first
    # block, where the authors' has 64: 36,844 parameters fewer.
    assert (g, d) == (41_996_931, 30_005_013 + d_block(3, 64, 64) - d_block(3, 3, 64))
    m = sngan(resolution=128, ch=64, dim_z=128, num_classes=1000)
    assert counts(m) == (g, d)


def test_64_pixels_start_at_16_ch_and_have_no_last_block():
    out, _, g, d = shapes(sngan(resolution=64, ch=2))
    assert g["params"]["block_0"]["conv1"]["kernel"].shape == (3, 3, 32, 16)
    assert sorted(k for k in d["params"] if k.startswith("block")) == [
        f"block_{i}" for i in range(5)
    ]
    assert "bias" in d["params"]["linear"] and out.shape[1] == 64


@pytest.mark.parametrize("resolution", models.sngan.G_WIDTHS)
@pytest.mark.parametrize(("channels", "num_classes"), [(3, 10), (1, 1)])
def test_shapes_for_every_resolution(resolution, channels, num_classes):
    m = sngan(resolution=resolution, ch=2, channels=channels, num_classes=num_classes)
    out, logits, g, d = shapes(m)
    assert out.shape == (2, resolution, resolution, channels) and logits.shape == (2,)
    assert ("embed" in d["params"]) == (num_classes > 1)
    gain = g["params"]["block_0"]["bn1"]["gain"]
    if num_classes > 1:
        assert gain["embedding"].shape[0] == num_classes
    else:
        assert gain.ndim == 1


def test_wide_blocks_and_norm_in_both_by_override():
    _, _, g, d = shapes(sngan(resolution=32, ch=4, d_thin=False, g_spectral_norm=True))
    thin = shapes(sngan(resolution=32, ch=4, g_attention=(16,), d_attention=(8,)))
    assert {"linear", "block_0", "rgb"} <= set(g["spectral"])
    assert "spectral" not in thin[2] and "attention_16" in thin[2]["params"]
    assert "attention_8" in thin[3]["params"]
    # At 128 pixels widths change, and thin is another network.
    wide, narrow = (
        shapes(sngan(resolution=64, ch=4, d_thin=t))[3]["params"]["block_1"] for t in (False, True)
    )
    assert wide["conv1"]["kernel"].shape[-1] == 8 and narrow["conv1"]["kernel"].shape[-1] == 4


def test_glorot_with_gain_by_kernel_size():
    fill = lambda *shape: np.asarray(initializers.glorot_relu(jax.random.key(0), shape))
    for shape, fans, gain in (
        ((3, 3, 16, 48), 9 * 64, 2**0.5),
        ((1, 1, 32, 64), 96, 1),
        ((64, 128), 192, 1),
    ):
        bound = gain * (6 / fans) ** 0.5
        assert 0.98 * bound < np.abs(fill(*shape)).max() <= bound
        assert fill(*shape).std() == pytest.approx(bound / 3**0.5, rel=0.05)


def initial(m, *names):
    """G's initial parameters of some top-level modules; nothing else of the init is compiled."""
    generator, _ = models.build(m)
    z, labels, _ = inputs(m)
    pick = lambda params: {name: params[name] for name in names}
    return jax.jit(lambda key: pick(generator.init(key, z, labels)["params"]))(jax.random.key(0))


def test_classes_start_with_gain_1_and_bias_0():
    norm = initial(sngan(ch=2, num_classes=3), "block_0")["block_0"]["bn1"]
    assert norm["gain"]["embedding"].shape == (3, 8)  # of 1 + table
    assert not np.any(norm["gain"]["embedding"]) and not np.any(norm["bias"]["embedding"])


def test_spectral_vectors_move_in_d_only():
    m = sngan(ch=2, num_classes=3)
    _, discriminator = models.build(m, fused=False)
    _, labels, images = inputs(m)
    _, _, g, d = shapes(m)
    assert "spectral" not in g
    rng = np.random.default_rng(0)
    d = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), d)
    run = lambda v: discriminator.apply(v, images, labels, True, mutable=["spectral"])[1]
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), d["spectral"], jax.jit(run)(d)["spectral"]
    )
    # Three convolutions in each of the blocks that halve, two in the last one, and the head's two.
    assert jax.tree.leaves(moved) == [True] * (3 + 3 + 2 + 2)


def gradients(m):
    """Gradients of D(G(z)) with respect to both, at random weights (gammas are not 0 there).

    Eval mode: under a batch's own statistics a bias before a norm has no effect at all.
    """
    generator, discriminator = models.build(m, fused=False)
    z, labels, _ = inputs(m)
    rng = np.random.default_rng(0)
    fill = lambda x: (0.5 * rng.standard_normal(x.shape)).astype(x.dtype)
    players, rest = [], []
    for variables in shapes(m)[2:]:
        params = jax.tree.map(fill, variables.pop("params"))
        # Positive: running variances are among them.
        players.append(params)
        rest.append(jax.tree.map(lambda x: np.abs(fill(x)) + 0.1, variables))

    def loss(g_params, d_params):
        images = generator.apply({"params": g_params, **rest[0]}, z, labels)
        logits = discriminator.apply({"params": d_params, **rest[1]}, images, labels)
        return (logits * jnp.array([1.0, -0.7])).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1)))(*players)


def assert_reached(grads):
    for path, g in jax.tree.leaves_with_path(grads):
        assert np.all(np.isfinite(g)) and np.any(g), jax.tree_util.keystr(path)


def test_gradient_reaches_every_parameter():
    assert_reached(gradients(sngan(ch=2)))
