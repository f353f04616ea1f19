"""Every remedy at once, in whole training steps: on one device and on eight, in microbatches."""

import jax
import numpy as np
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import microbatches, step
from tests import small_state
from tests.training.test_objectives import config
from tests.training.test_step import assert_same, batch_for, with_sgd

REMEDIES = {
    "loss": "hinge",
    "model.d_head": "san",
    "regularizer.r1": 0.1,
    "regularizer.r2": 0.1,
    "regularizer.wgan_gp": 1.0,
    "regularizer.dragan": 1.0,
    "regularizer.consistency": 1.0,
    "regularizer.zcr_d": 1.0,
    "regularizer.zcr_g": 0.5,
    "regularizer.lecam": 0.3,
    "regularizer.lecam_start_step": 0,
    "regularizer.g_group_spectral": 0.5,
    "regularizer.every_steps": 2,  # the first update has the penalties
}
METRICS = (
    "wgan_gp",
    "dragan",
    "consistency",
    "zcr_d",
    "zcr_g",
    "lecam",
    "san_direction",
    "g_group_spectral",
)


def stepped(mesh, **changes):
    """(state, metrics) after a step from one and the same state, under SGD."""
    plain = {"model.g_attention": (), "model.d_attention": ()}
    c = config(**REMEDIES, **plain, **changes)
    train_step = with_sgd(build_lib.train_step(c, sharding.make_mesh(mesh)))
    state = small_state.cheap_state(train_step)
    state, metrics = step.jit_train_step(train_step)(state, batch_for(train_step))
    return state, jax.device_get(metrics)


@pytest.mark.full
def test_eight_devices_equal_one(monkeypatch):
    monkeypatch.setattr(microbatches, "unroll", lambda mesh: False)
    one, eight = (stepped(mesh, accumulation_steps=2) for mesh in ((1, 1), (2, 4)))
    assert all(abs(one[1][name]) > 1e-6 for name in METRICS)
    assert_same(one[0], eight[0], 1e-5)
    for name, value in one[0].objective.items():
        np.testing.assert_allclose(eight[0].objective[name], value, rtol=1e-5, err_msg=name)
    for name, value in one[1].items():
        np.testing.assert_allclose(eight[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
