"""Penalties of D, and what else enters its loss, against the authors' code and the textbook.

`fixtures/regularizers.npz` holds what that code makes of a small D (float64) and of given draws:
StudioGAN's `cal_grad_penalty`, `cal_dra_penalty`, `random_flip`, `random_translation` and its terms
of bCR and zCR; lecam-gan's `ema_losses` and `lecam_reg`; SAN's `SanDiscriminator` and
`compute_loss_san`; gSRGAN's `plot_sn` by singular values. `NAME/grad/...` are torch's gradients.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.training import penalties

F = np.load(Path(__file__).parent.parent / "fixtures" / "regularizers.npz")
REAL, FAKE, Y, FAKE_Y = (F[f"in/{name}"] for name in ("real", "fake", "y", "gy"))
close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def part(prefix):
    """{name: array} of the fixture's entries PREFIX/NAME."""
    prefix += "/"
    return {k.removeprefix(prefix): F[k] for k in F.files if k.startswith(prefix)}


def logits(p, images, labels):
    """The fixture's D: one hidden layer, a linear layer and the projection on the class."""
    h = jnp.tanh(images.reshape(len(images), -1) @ p["w1"] + p["b1"][None])
    return h @ p["w2"] + (h * p["e"][labels]).sum(1)


def assert_equals_fixture(name, loss):
    """`loss(D)` and its gradients with respect to D's parameters."""
    of_parameters = lambda p: loss(functools.partial(logits, p))
    value, grads = jax.jit(jax.value_and_grad(of_parameters))(part("D"))
    close(value, F[name])
    jax.tree.map(close, grads, part(f"{name}/grad"))


def test_wgan_gp_equals_studiogan():
    share = F["wgan_gp/share"]
    points = penalties.interpolates(jnp.asarray(REAL), jnp.asarray(FAKE), share)
    assert_equals_fixture("wgan_gp", lambda D: penalties.two_sided(D, points, Y))


def test_dragan_equals_studiogan():
    points = penalties.perturbed(jnp.asarray(REAL), F["dragan/share"], F["dragan/noise"])
    assert_equals_fixture("dragan", lambda D: penalties.two_sided(D, points, Y))


@pytest.mark.parametrize("name", ["wgan_gp", "dragan"])
def test_where_a_penalty_looks(name):
    """One share an image, the labels of the real images, and draws that follow the key."""
    seen = []

    def D(images, labels):
        seen.append((images, labels))
        return jnp.sin(images).sum((1, 2, 3))

    shape = (64, 8, 8, 1)
    real, fake = jnp.full(shape, 1.0).at[::2].set(0.5), jnp.full(shape, -1.0)
    y, fake_y = jnp.arange(64), jnp.arange(64) + 100
    penalty = penalties.PENALTIES[name]
    values = [penalty(D, real, y, fake, fake_y, jax.random.key(i)) for i in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    points = np.asarray(seen[0][0].primal if hasattr(seen[0][0], "primal") else seen[0][0])
    np.testing.assert_array_equal(seen[0][1], y)
    if name == "wgan_gp":
        share = (points + 1) / (np.asarray(real) + 1)
        assert np.ptp(share.reshape(64, -1), axis=1).max() < 1e-12  # one an image
        assert share.min() > 0 and share.max() < 1 and 0.4 < share.mean() < 0.6
    else:
        noise = (points - np.asarray(real)) / (0.5 * np.std(real, ddof=1))
        assert noise.min() >= 0 and 0.2 < noise.mean() < 0.3  # share times noise, both uniform
        assert np.ptp(noise.reshape(64, -1).max(1)) > 0.3


def test_a_flat_discriminator_has_a_finite_gradient():
    """The norm has no derivative at 0; torch takes 0 there."""
    x = jnp.ones((2, 4, 4, 1))

    def loss(scale):
        return penalties.two_sided(lambda x, y: scale * x.sum((1, 2, 3)), x, jnp.arange(2))

    value, gradient = jax.value_and_grad(loss)(0.0)
    assert value == 1.0 and gradient == 0.0
