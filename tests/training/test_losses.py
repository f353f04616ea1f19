"""Losses against the peers' values (f07: BigGAN-PyTorch and StudioGAN, computed in float32)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.training import losses, objectives

FIXTURE = Path(__file__).parent.parent / "fixtures" / "f07_losses.npz"
# Ours -> the keys of the peer's D loss (a tuple: real and fake part) and G loss.
PEERS = [
    ("hinge", ("hinge/d_loss_real", "hinge/d_loss_fake"), "hinge/g_loss"),
    ("non_saturating", ("dcgan/d_loss_real", "dcgan/d_loss_fake"), "dcgan/g_loss"),
    ("hinge", "studiogan/hinge/d", "studiogan/hinge/g"),
    ("non_saturating", "studiogan/logistic/d", "studiogan/logistic/g"),
    ("non_saturating", "studiogan/vanilla/d", "studiogan/vanilla/g"),
    ("wasserstein", "studiogan/wasserstein/d", "studiogan/wasserstein/g"),
    ("least_squares", "studiogan/ls/d", "studiogan/ls/g"),
]


# Losses of real and fake logits apart: (of D, of G).
SEPARATE = {
    "hinge": (losses.hinge_d, losses.critic_g),
    "non_saturating": (losses.non_saturating_d, losses.non_saturating_g),
    "wasserstein": (losses.wasserstein_d, losses.critic_g),
    "least_squares": (losses.least_squares_d, losses.least_squares_g),
}


@pytest.fixture(scope="module")
def peer():
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.mark.parametrize(("name", "d_key", "g_key"), PEERS)
def test_matches_peer(peer, name, d_key, g_key):
    with jax.enable_x64(True):
        d_loss, g_loss = SEPARATE[name]
        real, fake = jnp.asarray(peer["in/d_real"]), jnp.asarray(peer["in/d_fake"])
        loss_real, loss_fake = d_loss(real, fake)
        if isinstance(d_key, tuple):
            np.testing.assert_allclose(loss_real, peer[d_key[0]], rtol=0, atol=3e-7)
            np.testing.assert_allclose(loss_fake, peer[d_key[1]], rtol=0, atol=3e-7)
        else:
            np.testing.assert_allclose(loss_real + loss_fake, peer[d_key], rtol=0, atol=3e-7)
        np.testing.assert_allclose(g_loss(fake), peer[g_key], rtol=0, atol=3e-7)
        assert loss_real.dtype == loss_fake.dtype == g_loss(fake).dtype == jnp.float64


def test_hinge_gradient_matches_peer(peer):
    with jax.enable_x64(True):
        real, fake = jnp.asarray(peer["in/d_real"]), jnp.asarray(peer["in/d_fake"])
        total = lambda r, f: sum(losses.hinge_d(r, f))
        grad_real, grad_fake = jax.grad(total, argnums=(0, 1))(real, fake)
        np.testing.assert_allclose(grad_real, peer["hinge/dreal"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(grad_fake, peer["hinge/dfake"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", SEPARATE)
def test_closed_forms_in_float64(name):
    """Each form written out in numpy, on batches of different sizes (means are separate)."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=7), rng.normal(size=(4, 1))
    softplus = lambda x: np.logaddexp(0.0, x)
    expected = {
        "hinge": (np.maximum(0, 1 - real), np.maximum(0, 1 + fake), -fake),
        "non_saturating": (softplus(-real), softplus(fake), softplus(-fake)),
        "wasserstein": (-real, fake, -fake),
        "least_squares": ((real - 1) ** 2 / 2, fake**2 / 2, (fake - 1) ** 2 / 2),
    }[name]
    with jax.enable_x64(True):
        d_loss, g_loss = SEPARATE[name]
        got = (*d_loss(jnp.asarray(real), jnp.asarray(fake)), g_loss(jnp.asarray(fake)))
    np.testing.assert_allclose(got, [part.mean() for part in expected], rtol=1e-14)


@pytest.mark.parametrize("name", SEPARATE)
def test_bfloat16_logits_are_averaged_in_float32(name):
    logits = jnp.linspace(-3.0, 3.0, 4097).astype(jnp.bfloat16)
    d_loss, g_loss = SEPARATE[name]
    got = (*d_loss(logits, logits), g_loss(logits))
    wide = logits.astype(jnp.float32)
    expected = (*d_loss(wide, wide), g_loss(wide))
    assert all(x.dtype == jnp.float32 and x.shape == () for x in got)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", SEPARATE)
def test_large_logits_stay_finite_and_nan_is_not_hidden(name):
    d_loss, g_loss = SEPARATE[name]
    large = jnp.array([-1e4, 1e4])
    grads = jax.grad(lambda x: sum(d_loss(x, x)) + g_loss(x))(large)
    assert np.isfinite(grads).all()
    bad = jnp.array([0.0, jnp.nan])
    assert np.isnan([*d_loss(bad, bad), g_loss(bad)]).all()


@pytest.mark.parametrize("name", SEPARATE)
def test_the_config_s_name_is_that_loss(name):
    """With logits for images and a D that hands them on."""
    rng = np.random.default_rng(0)
    real, fake = (jnp.asarray(rng.normal(size=6), jnp.float32) for _ in range(2))
    y = jnp.zeros(6, jnp.int32)
    objective = objectives.build(name, default_config().regularizer)
    D = lambda images, labels: images
    loss, metrics = objective.d_objective(D, real, y, fake, y, jax.random.key(0), 0)
    d_loss, g_loss = SEPARATE[name]
    parts = d_loss(real, fake)
    np.testing.assert_array_equal((metrics["d_loss_real"], metrics["d_loss_fake"]), parts)
    np.testing.assert_array_equal((loss, metrics["d_loss"]), [sum(parts)] * 2)
    np.testing.assert_allclose((metrics["d_real"], metrics["d_fake"]), (real.mean(), fake.mean()))
    loss, metrics = objective.g_objective(D, fake, y, None, None, jax.random.key(0))
    np.testing.assert_array_equal((loss, metrics["g_loss"]), [g_loss(fake)] * 2)
    assert not objective.paired and not objective.penalties


def test_unknown_name_gives_the_nearest():
    regularizer = default_config().regularizer
    with pytest.raises(UserError, match=r"unknown loss 'hing' \(did you mean 'hinge'") as error:
        objectives.build("hing", regularizer)
    assert "\n" not in str(error.value) and "least_squares" in str(error.value)
    with pytest.raises(UserError, match="'qqq': set --config.loss to one of hinge"):
        objectives.build("qqq", regularizer)
