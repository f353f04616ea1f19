"""Objectives and penalties that the package does not have, written as CONTRIBUTING.md says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import microbatches, objectives, step
from tests import small_state
from tests.training.test_objectives import config
from tests.training.test_step import assert_same, batch_for, with_sgd


def consistency_d(D, real, real_labels, fake, fake_labels, key):
    """Hinge, and the squared change of the logits of real images under noise."""
    real_logits, fake_logits = objectives.joint_logits(D, real, real_labels, fake, fake_labels)
    noise = 0.1 * jax.random.normal(key, real.shape, real.dtype)
    change = jnp.square(D(real + noise, real_labels) - real_logits).mean()
    hinge = jax.nn.relu(1 - real_logits).mean() + jax.nn.relu(1 + fake_logits).mean()
    return hinge + change, {"change": change}


def consistency_g(D, fake, fake_labels, real, real_labels, key):
    assert real is None and real_labels is None
    noise = 0.1 * jax.random.normal(key, fake.shape, fake.dtype)
    return -D(fake, fake_labels).mean() - D(fake + noise, fake_labels).mean(), {}


def interpolated(D, real, real_labels, fake, fake_labels, key):
    """Gulrajani et al. 2017, equation 3, with the labels of the real images."""
    at = jax.random.uniform(key, (len(real), 1, 1, 1), real.dtype)
    gradients = jax.grad(lambda x: D(x, real_labels).sum())(real + at * (fake - real))
    norms = jnp.sqrt(jnp.square(gradients).sum((1, 2, 3)))
    return jnp.square(norms - 1.0).mean()


def bound(objective, mesh, **changes):
    """The step of an objective under SGD."""
    nothing = {"loss": "hinge", "regularizer.r1": 0.0, "regularizer.r2": 0.0}
    small = {"model.g_attention": (), "model.d_attention": ()}
    c = config(**nothing, **small, **changes)
    train_step = with_sgd(build_lib.train_step(c, sharding.make_mesh(mesh)))
    return dataclasses.replace(train_step, objective=objective)


@pytest.mark.full
def test_eight_devices_equal_one(monkeypatch):
    """Second forwards, draws and second derivatives, over microbatches and split weights."""
    monkeypatch.setattr(microbatches, "unroll", lambda mesh: False)
    penalties = {"interpolated": (2.0, interpolated)}
    game = objectives.Objective(consistency_d, consistency_g, penalties=penalties)

    def run(mesh, **changes):
        train_step = bound(game, mesh, accumulation_steps=2, **changes)
        state = small_state.cheap_state(train_step)
        return step.jit_train_step(train_step)(state, batch_for(train_step))

    one, many = run((1, 1)), run((2, 4), remat=("all",))
    assert one[1]["change"] > 1e-4 and one[1]["interpolated"] > 1e-4
    assert_same(one[0], many[0], 1e-5)
    for metric, value in one[1].items():
        np.testing.assert_allclose(value, many[1][metric], rtol=1e-4, atol=1e-5, err_msg=metric)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_single_images_are_refused(accumulation_steps):
    """They cannot be split over the devices; on one device nothing is to be split."""

    def alone(D, real, real_labels, fake, fake_labels, key):
        logits = jax.vmap(lambda x, y: D(x[None], y[None])[0])(real, real_labels)
        return logits.mean(), {}

    def trace(mesh):
        game = objectives.Objective(alone, consistency_g)
        train_step = bound(game, mesh, accumulation_steps=accumulation_steps)
        state = jax.eval_shape(train_step.init, jax.random.key(0))
        return jax.eval_shape(train_step.train_step, state, batch_for(train_step))

    with pytest.raises(ValueError, match="D is called with 1 images on a mesh of 8 devices: call"):
        trace((8, 1))
    if accumulation_steps == 1:
        assert trace((1, 1))[1]["d_loss"].shape == ()
