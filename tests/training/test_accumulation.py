"""What the devices exchange with accumulation and fsdp, and that it changes no result."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.planning import costs, hlo, traffic
from biggan_jax.training import objectives, penalties
from biggan_jax.training import state as state_lib
from tests.training import test_step
from tests.training.test_step import assert_same, compiled_text, loops, run, tiny, with_sgd  # noqa: F401


def exchanged(train_step) -> dict[str, dict[str, float]]:
    """{kind: {count, bytes}} of one step, loops counted as often as they run."""
    module = hlo.Module(compiled_text(train_step))
    assert not module.unknown_loops
    return costs.collectives(module)


def check_sums(train_step) -> None:
    """Gradients cross the network once an update, and nothing but sums does."""
    found = exchanged(train_step)
    assert set(found) == {"all-reduce"}
    measured, predicted = found["all-reduce"]["bytes"], traffic.all_reduce_bytes(train_step)
    assert measured == pytest.approx(predicted, rel=2e-3)
    # A second sum of either player's gradients would be a third more, at least.
    state = state_lib.abstract(train_step.init)
    players = (state.generator, state.discriminator)
    g, d = (4 * sum(x.size for x in jax.tree.leaves(player.params)) for player in players)
    assert (
        g + train_step.num_d_steps * d < measured < g + train_step.num_d_steps * d + min(g, d) / 2
    )


@pytest.mark.full
def test_gradients_of_microbatches_are_summed_once_in_loops(loops):  # noqa: F811
    _, settings, _ = test_step.LAYOUTS["two_d_steps_and_accumulation"]
    check_sums(with_sgd(tiny((8, 1), **settings)))


@pytest.mark.full
def test_gradients_of_microbatches_are_summed_once_unrolled():
    check_sums(with_sgd(tiny((8, 1), accumulation_steps=2)))


@pytest.mark.full
def test_fsdp_gathers_each_weight_once(loops):  # noqa: F811
    """G's once a step, although every D update uses it; D's anew whenever it has changed."""
    train_step = with_sgd(tiny((4, 2), num_d_steps=2, accumulation_steps=2))
    found = exchanged(train_step)
    state = state_lib.abstract(train_step.init, train_step.mesh)
    split = lambda x: not x.sharding.is_fully_replicated
    g, d = (
        4 * sum(x.size for x in jax.tree.leaves(player.params) if split(x))
        for player in (state.generator, state.discriminator)
    )
    assert found["all-gather"]["bytes"] == g + 3 * d
    assert set(found) <= {"all-gather", "all-reduce", "reduce-scatter"}


def noisy_average(sign: int):
    """A loss that is no mean over examples, of images with noise: it must see the whole batch."""

    def loss(D, real, real_labels, fake, fake_labels, key):
        real_key, fake_key = jax.random.split(key)
        real = real + 0.1 * jax.random.normal(real_key, real.shape, real.dtype)
        fake = fake + 0.1 * jax.random.normal(fake_key, fake.shape, fake.dtype)
        logits = objectives.joint_logits(D, real, real_labels, fake, fake_labels)
        real_logits, fake_logits = (x / (1 + x.std()) for x in logits)
        return jax.nn.softplus(sign * (fake_logits - real_logits.mean())).mean(), {}

    return loss


@pytest.mark.full
def test_objectives_of_microbatches_see_the_whole_batch(loops):  # noqa: F811
    """Draws and penalties, too: second derivatives pass through what each device applies."""
    objective = objectives.Objective(
        d=noisy_average(1),
        g=lambda D, fake, fake_labels, real, labels, key: noisy_average(-1)(
            D, real, labels, fake, fake_labels, key
        ),
        paired=True,
        penalties={"r1": (0.5, penalties.r1)},
    )
    one, eight = (
        run(dataclasses.replace(with_sgd(tiny(mesh, accumulation_steps=2)), objective=objective))
        for mesh in ((1, 1), (4, 2))
    )
    assert_same(one[0], eight[0], 1e-5)
    for name, value in one[1].items():
        assert value == pytest.approx(eight[1][name], rel=1e-4, abs=1e-5), name


def test_gradients_of_copies_stay_apart_until_they_are_summed():
    mesh = sharding.make_mesh((4, 2))
    w, x = jnp.linspace(-1, 1, 24).reshape(6, 4), jnp.linspace(-1, 1, 16 * 6).reshape(16, 6)

    def apply(w, shared, x):
        return jnp.tanh(x @ w * shared), shared + 1

    def loss(copies, x):
        out, shared = sharding.by_device(apply, mesh)(copies, jnp.ones(()), x)
        return jnp.square(out).mean() + out.std(), shared

    @jax.jit
    def gradients(w, x):
        x = sharding.constrain_batch(x, mesh)
        grads, shared = jax.grad(loss, has_aux=True)(sharding.copies(w, mesh), x)
        return grads, sharding.sum_copies(grads, mesh), shared

    apart, total, shared = gradients(w, x)
    assert apart.shape == (8, 6, 4) and {s.data.shape for s in apart.addressable_shards} == {
        (1, 6, 4)
    }
    whole = jax.grad(lambda w: jnp.square(y := jnp.tanh(x @ w)).mean() + y.std())(w)
    assert shared == 2 and jnp.allclose(total, whole, atol=1e-6)
    assert not jnp.allclose(apart[0], apart[1], atol=1e-6)
    assert {s.data.shape for s in total.addressable_shards} == {(3, 4)}
