"""Clamp, dropout and clipping in whole steps of the smallest players that have all parts."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from biggan_jax.models import heads
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import judge, matrices, optimizers, step
from tests import small_state
from tests.training.test_optimizers import Linear, settings
from tests.training.test_sigma_clamp import sigmas
from tests.training.test_step import assert_same, loops  # noqa: F401


class Judging(nn.Module):
    """D's head on pixels."""

    settings: LayerSettings = LayerSettings()
    num_classes: int = 3
    resolution: int = 2

    @nn.compact
    def __call__(self, images, labels, train=False):
        features = images.reshape(len(images), -1)
        return heads.logits(features, labels, train, self.settings, self.num_classes)


def bound_step(mesh=(1, 1), dropout=0.0, **regularizer):
    c = settings()
    c.batch_size, c.num_d_steps, c.accumulation_steps = 16, 2, 2
    c.regularizer.g_orthogonal = 0.0
    for key, value in regularizer.items():
        c.regularizer[key] = value
    D = Judging(LayerSettings(d_dropout=dropout))
    players = (Linear(4, num_classes=3), D)
    return build_lib.train_step(c, sharding.make_mesh(mesh), players=players)


def with_sgd(train_step, rate=0.05, clip_norm=None):
    sgd = optimizers.clip(optax.sgd(rate), clip_norm)
    return dataclasses.replace(train_step, g_optimizer=sgd, d_optimizer=sgd)


def batch(train_step, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 16, 2, 2, 1), np.uint8)
    labels = rng.integers(0, 3, (2, 16), np.int32)
    return sharding.global_batch({"image": images, "label": labels}, train_step.mesh, axis=1)


def run(train_step, steps):
    """The states after each of some steps, and the last metrics."""
    state, states = small_state.cheap_state(train_step), []
    jitted = step.jit_train_step(train_step)
    for i in range(steps):
        state, metrics = jitted(state, batch(train_step, i))
        states.append(jax.device_get((state.generator.params, state.discriminator.params)))
    return state, states, metrics


def weights(params):
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if x.ndim > 1:
            yield matrices.as_matrix(path, x)


ALL = {"dropout": 0.4, "g_sigma_clamp": 0.2, "d_sigma_clamp": 0.15, "r1": 0.1}


def test_eight_devices_equal_one(loops):  # noqa: F811
    """Microbatches, two D updates, a penalty, weights split over devices, every setting on."""
    one, states, _ = run(with_sgd(bound_step(**ALL), clip_norm=0.3), 2)
    other, *_ = run(with_sgd(bound_step((4, 2), **ALL), clip_norm=0.3), 2)
    assert_same(one, other, 1e-5)
    for params, limit in zip(states[-1], (0.2, 0.15), strict=True):
        assert max(sigmas(w)[0] for w in weights(params)) == pytest.approx(limit, rel=1e-3)


@pytest.mark.full
def test_the_clamp_holds_over_a_hundred_steps():
    limits = {"g_sigma_clamp": 1.0, "d_sigma_clamp": 1.3}
    for form in ("value", "ratio"):
        bound = with_sgd(bound_step(sigma_clamp_form=form, **limits), 0.5)
        for player in zip(run(bound, 100)[1], strict=True):
            for params, limit in zip(player[0], limits.values(), strict=True):
                for sigma in map(sigmas, weights(params)):
                    if form == "value":
                        assert sigma[0] <= limit * 1.01
                    elif len(sigma) > 1:
                        assert sigma[0] <= limit * sigma[1] * 1.01
    free = run(with_sgd(bound_step(), 0.5), 100)[1][-1]
    for params, limit in zip(free, limits.values(), strict=True):
        assert max(sigmas(w)[0] for w in weights(params)) > 1.1 * limit


def test_the_norm_is_that_before_clipping():
    free, clipped = (with_sgd(bound_step(), 1.0, norm) for norm in (None, 0.01))
    for player in ("generator", "discriminator"):
        name = f"{player[0]}_grad_norm"
        moves = []
        for train_step in (free, clipped):
            state = small_state.cheap_state(train_step)
            labels = jnp.arange(16, dtype=jnp.int32) % 3
            z = jax.random.normal(jax.random.key(1), (16, 3))
            images = jax.random.normal(jax.random.key(2), (16, 2, 2, 1))
            if player == "generator":
                new, metrics = jax.jit(train_step.g_step)(state, z, labels)
            else:
                new, metrics = jax.jit(train_step.d_step)(state, images, labels, z, labels)
            old, new = getattr(state, player).params, getattr(new, player).params
            moves.append(optax.global_norm(jax.tree.map(lambda a, b: a - b, old, new)))
            assert metrics[name] > 0.02
        assert moves[0] == pytest.approx(float(metrics[name]), rel=1e-4)
        assert moves[1] == pytest.approx(0.01, rel=1e-4)


def test_real_and_fake_and_every_call_draw_their_own():
    # Without spectral norm, whose vectors the first call advances, only dropout differs.
    D = Judging(LayerSettings(d_dropout=0.5, spectral_norm=False))
    mesh = sharding.make_mesh((1, 1))
    images, labels = jnp.ones((8, 2, 2, 1)), jnp.zeros(8, jnp.int32)
    variables = D.init(jax.random.key(0), images, labels)

    def judged(key):
        judging = judge.Judge(D, variables["params"], {}, mesh, key)
        return [np.asarray(judging(images, labels)) for _ in range(2)]

    (first, second), (again, _) = judged(jax.random.key(0)), judged(jax.random.key(0))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.round(5))) > 3  # of eight equal images
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, judged(jax.random.key(1))[0])
    assert len(set(np.concatenate(judged(None)))) == 1


def test_off_means_that_nothing_of_it_is_traced():
    trace = lambda bound: str(
        jax.make_jaxpr(bound.train_step)(
            jax.eval_shape(bound.init, jax.random.key(0)), batch(bound)
        )
    )
    off = trace(bound_step())
    assert "eigh" not in off and "eigh" in trace(bound_step(d_sigma_clamp=1.0))
    draws = off.count("random_bits")
    assert trace(bound_step(dropout=0.5)).count("random_bits") > draws
    assert trace(bound_step(dropout=0.0, sigma_clamp_form="ratio")).count("random_bits") == draws
