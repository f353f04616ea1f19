"""Learning rates: exact at every update, in generator updates for both players."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from biggan_jax.config import default_config, resume, validate
from biggan_jax.config.resume import Change
from biggan_jax.errors import UserError
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from biggan_jax.training import build as build_lib
from biggan_jax.training import optimizers, step
from biggan_jax.training import state as state_lib
from tests.models.test_biggan import section


def rates(optimizer, count):
    """The learning rate of each update: with a constant gradient every Adam update is -lr."""
    params = {"w": jnp.zeros(())}
    update = jax.jit(optimizer.update)
    state, seen = optimizer.init(params), []
    for _ in range(count):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = update({"w": jnp.ones(())}, state, params)
        seen.append(-float(updates["w"]))
    return np.array(seen)  # to 2e-5: Adam's bias correction in float32


def settings(**optimizer):
    c = default_config()
    c.model = section()
    c.batch_size, c.num_d_steps = 4, 3
    for key, value in ({"eps": 0.0} | optimizer).items():
        c.optimizer[key] = value
    return c


def build(c):
    return build_lib.train_step(c, sharding.make_mesh((1,)))


def test_both_players_decay_by_generator_updates():
    c = settings(g_lr=1e-4, d_lr=4e-4, decay_start_step=4, decay_end_step=8)
    validate(c, 1)
    train_step = build(c)
    shares = np.array([1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])  # of updates 0, 1, ...
    np.testing.assert_allclose(rates(train_step.g_optimizer, 10), 1e-4 * shares, rtol=2e-5)
    # Three D updates belong to one of G, and all have its share.
    np.testing.assert_allclose(
        rates(train_step.d_optimizer, 30), 4e-4 * np.repeat(shares, 3), rtol=2e-5
    )


def test_decay_from_the_first_update():
    shares = [1, 0.8, 0.6, 0.4, 0.2, 0, 0]
    c = settings(beta2=0.9, decay_start_step=0, decay_end_step=5)
    adam = optimizers.adam(c.optimizer, 2e-4)
    np.testing.assert_allclose(rates(adam, 7), 2e-4 * np.array(shares), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ({"warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1, 1]),
        ({"warmup_steps": 1}, [0, 1, 1]),
        (
            {"schedule": "cosine", "decay_start_step": 2, "decay_end_step": 6},
            [1, 1, 1, 0.8535534, 0.5, 0.1464466, 0, 0],  # (1 + cos(pi k / 4)) / 2
        ),
        (
            {"schedule": "cosine", "warmup_steps": 2, "decay_start_step": 2, "decay_end_step": 4},
            [0, 0.5, 1, 0.5, 0, 0],
        ),
        (
            {"schedule": "linear", "warmup_steps": 2, "decay_start_step": 0, "decay_end_step": 4},
            [0, 0.375, 0.5, 0.25, 0, 0],  # both at once: a product
        ),
        ({"schedule": "constant", "decay_start_step": 0, "decay_end_step": 4}, [1, 1, 1, 1, 1]),
        (
            {"schedule": "constant", "warmup_steps": 2, "decay_start_step": 0, "decay_end_step": 4},
            [0, 0.5, 1, 1, 1],
        ),
    ],
)
def test_schedules_of_both_players(given, shares):
    c = settings(g_lr=1e-4, d_lr=4e-4, **given)
    validate(c, 1)
    train_step, shares = build(c), np.array(shares)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-11)
    close(rates(train_step.g_optimizer, len(shares)), 1e-4 * shares)
    close(rates(train_step.d_optimizer, 3 * len(shares)), 4e-4 * np.repeat(shares, 3))


def test_the_state_holds_a_count_more_only_where_rates_move():
    """Which is what `resume` says, so that checkpoints are read where it lets them be."""
    decay = {"decay_start_step": 0, "decay_end_step": 4}
    constant, cosine = {"schedule": "constant"}, {"schedule": "cosine"} | decay
    warm, clipped = {"warmup_steps": 3}, {"clip_norm": 1.0}
    for given in ({}, constant, constant | decay, clipped, decay, warm, cosine):
        c = settings(**given)
        state = build(c).g_optimizer.init({"w": jnp.zeros(3)})
        moves = resume.rates_move(c.optimizer)
        assert len(jax.tree.leaves(state)) == (3 if moves else 2)
        assert moves == (given in (decay, warm, cosine))
        assert isinstance(state[0], optimizers.SecondMoment)  # its place in checkpoints


def test_clipping_by_the_global_norm():
    rng = np.random.default_rng(0)
    grads = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)
    norm = np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in grads.values()))
    for limit in (0.5 * norm, 2 * norm):
        optimizer = optimizers.clip(optax.sgd(1.0), limit)
        updates, _ = optimizer.update(grads, optimizer.init(grads))
        for got, grad in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(got, -grad * min(1, limit / norm), rtol=1e-6)
    adam = build(settings()).d_optimizer
    assert optimizers.clip(adam, None) is adam


def test_unset_is_constant_and_keeps_the_state_of_plain_adam():
    train_step = build(settings(g_lr=1e-4, d_lr=4e-4, beta1=0.5))
    np.testing.assert_allclose(rates(train_step.d_optimizer, 5), np.full(5, 4e-4), rtol=2e-5)
    leaves = jax.tree.leaves(train_step.g_optimizer.init({"w": jnp.zeros(3)}))
    assert len(leaves) == 3  # count, mu, nu: checkpoints of before the setting stay readable


@pytest.mark.parametrize("decay", [{}, {"decay_start_step": 1, "decay_end_step": 9}])
def test_without_a_first_moment_the_updates_have_the_same_bits(decay, monkeypatch):
    """A beta1 of 0 makes it the gradient, which needs no array of its own."""
    section = settings(eps=1e-8, **decay).optimizer
    ours = optimizers.adam(section, 2e-4)
    monkeypatch.setattr(optimizers, "_without_first_moment", lambda adam: adam)
    theirs = optimizers.adam(section, 2e-4)
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.standard_normal(1000), jnp.float32)}
    got, expected = ((params, optimizer.init(params)) for optimizer in (ours, theirs))
    arrays = [len(jax.tree.leaves(state)) for _, state in (got, expected)]
    assert arrays == ([3, 4] if decay else [2, 3])
    for done in range(4):
        grads = {"w": jnp.asarray(rng.standard_normal(1000) * 10.0**-done, jnp.float32)}
        got, expected = (
            jax.jit(functools.partial(optimizers.update, optimizer))(grads, state, params)
            for optimizer, (params, state) in ((ours, got), (theirs, expected))
        )
        np.testing.assert_array_equal(got[0]["w"], expected[0]["w"])
        np.testing.assert_array_equal(got[1][0].nu["w"], expected[1][0].nu["w"])


def test_what_is_said_of_a_changed_beta1():
    told = lambda old, new: optimizers.remark(Change("optimizer.beta1", old, new))
    assert "start at 0" in told(0.0, 0.5) and "dropped" in told(0.5, 0.0) and told(0.5, 0.9) == ""
    assert optimizers.remark(Change("optimizer.beta2", 0.0, 0.9)) == ""
    assert optimizers.is_optional("discriminator/opt_state/inner_state/0/mu/rgb/kernel")
    assert not optimizers.is_optional("discriminator/opt_state/0/nu/rgb/kernel")
    assert not optimizers.is_optional("generator/params/mu/kernel")
    assert not optimizers.is_optional("generator/opt_state/0/count")
    assert optimizers.is_optional("generator/opt_state/1/count")


class Linear(nn.Module):
    """The smallest player: a linear generator of 2 x 2 pixels, or a linear discriminator."""

    features: int
    settings: LayerSettings = LayerSettings()
    dim_z: int = 3
    num_classes: int = 1
    resolution: int = 2
    channels: int = 1

    @nn.compact
    def __call__(self, x, labels, train=False):
        y = nn.Dense(self.features)(x.reshape(x.shape[0], -1))
        return y.reshape(-1, 2, 2, 1) if self.features == 4 else y[:, 0]


def test_both_players_stop_when_the_rate_is_0():
    """In whole training steps: D's rate follows the G update that comes after its own."""
    c = settings(g_lr=1e-2, d_lr=1e-2, eps=1e-8, decay_start_step=0, decay_end_step=1)
    players = (Linear(4), Linear(1))
    train_step = build_lib.train_step(c, sharding.make_mesh((1,)), players=players)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 2, 2, 1), np.uint8)
    batch = {"image": images, "label": np.zeros((3, 4), np.int32)}
    batch = sharding.global_batch(batch, train_step.mesh, axis=1)
    state = state_lib.create(train_step.init, 0, train_step.mesh)
    seen = []
    for _ in range(2):
        seen.append(jax.device_get((state.generator.params, state.discriminator.params)))
        state, _ = step.jit_train_step(train_step)(state, batch)
    seen.append(jax.device_get((state.generator.params, state.discriminator.params)))
    kernels = [[p["Dense_0"]["kernel"] for p in players] for players in seen]
    for start, first, second in zip(*kernels, strict=True):
        assert np.abs(first - start).max() > 1e-3
        np.testing.assert_array_equal(first, second)  # update 1 and its three D updates: rate 0


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (5, None, ("5", "None", "--config.optimizer.decay_end_step")),
        (None, 5, ("5", "None", "--config.optimizer.decay_start_step")),
        (5, 5, ("is 5 and", "--config.optimizer.decay_end_step")),
        (9, 5, ("9", "5", "--config.optimizer.decay_end_step")),
        (-1, 5, ("-1", "from 0 to")),
    ],
)
def test_bad_decays_are_refused(start, end, words):
    c = settings()
    for key, value in (("start", start), ("end", end)):
        if value is not None:
            c.optimizer[f"decay_{key}_step"] = value
    with pytest.raises(UserError) as e:
        validate(c, 1)
    assert "\n" not in str(e.value) and all(word in str(e.value) for word in words)
