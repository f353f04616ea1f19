"""Losses against the peers' values (f07: BigGAN-PyTorch and StudioGAN, computed in float32)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.training import losses

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


@pytest.fixture(scope="module")
def peer():
    with np.load(FIXTURE) as file:
        return dict(file)


@pytest.mark.parametrize(("name", "d_key", "g_key"), PEERS)
def test_matches_peer(peer, name, d_key, g_key):
    with jax.enable_x64(True):
        loss = losses.get(name)
        real, fake = jnp.asarray(peer["in/d_real"]), jnp.asarray(peer["in/d_fake"])
        loss_real, loss_fake = loss.d_loss(real, fake)
        if isinstance(d_key, tuple):
            np.testing.assert_allclose(loss_real, peer[d_key[0]], rtol=0, atol=3e-7)
            np.testing.assert_allclose(loss_fake, peer[d_key[1]], rtol=0, atol=3e-7)
        else:
            np.testing.assert_allclose(loss_real + loss_fake, peer[d_key], rtol=0, atol=3e-7)
        np.testing.assert_allclose(loss.g_loss(fake), peer[g_key], rtol=0, atol=3e-7)
        assert loss_real.dtype == loss_fake.dtype == loss.g_loss(fake).dtype == jnp.float64


def test_hinge_gradient_matches_peer(peer):
    with jax.enable_x64(True):
        real, fake = jnp.asarray(peer["in/d_real"]), jnp.asarray(peer["in/d_fake"])
        total = lambda r, f: sum(losses.get("hinge").d_loss(r, f))
        grad_real, grad_fake = jax.grad(total, argnums=(0, 1))(real, fake)
        np.testing.assert_allclose(grad_real, peer["hinge/dreal"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(grad_fake, peer["hinge/dfake"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", losses.LOSSES)
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
        loss = losses.get(name)
        got = (*loss.d_loss(jnp.asarray(real), jnp.asarray(fake)), loss.g_loss(jnp.asarray(fake)))
    np.testing.assert_allclose(got, [part.mean() for part in expected], rtol=1e-14)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_bfloat16_logits_are_averaged_in_float32(name):
    logits = jnp.linspace(-3.0, 3.0, 4097).astype(jnp.bfloat16)
    loss = losses.get(name)
    got = (*loss.d_loss(logits, logits), loss.g_loss(logits))
    wide = logits.astype(jnp.float32)
    expected = (*loss.d_loss(wide, wide), loss.g_loss(wide))
    assert all(x.dtype == jnp.float32 and x.shape == () for x in got)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_large_logits_stay_finite_and_nan_is_not_hidden(name):
    loss = losses.get(name)
    large = jnp.array([-1e4, 1e4])
    grads = jax.grad(lambda x: sum(loss.d_loss(x, x)) + loss.g_loss(x))(large)
    assert np.isfinite(grads).all()
    bad = jnp.array([0.0, jnp.nan])
    assert np.isnan([*loss.d_loss(bad, bad), loss.g_loss(bad)]).all()


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match="unknown loss 'hing'; did you mean 'hinge'") as error:
        losses.get("hing")
    assert "\n" not in str(error.value) and "least_squares" in str(error.value)
    with pytest.raises(UserError, match="'qqq'; choose from hinge"):
        losses.get("qqq")
