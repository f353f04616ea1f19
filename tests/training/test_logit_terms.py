"""Terms of the logits with a state: over microbatches, devices, checkpoints and a resume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.storage import checkpoint, digest
from biggan_jax.training import losses, objectives
from biggan_jax.training import state as state_lib
from biggan_jax.training.logit_terms import LogitTerm
from tests import small_state
from tests.training.test_step import batch_for, loops, tiny, with_sgd  # noqa: F401


def of_logits(real_logits, fake_logits, state, update):
    """Adds their squares; keeps how many there were, their sum, and of which update."""
    total = state["toy_sum"] + jax.lax.stop_gradient(real_logits.sum())
    state = state | {"toy_seen": state["toy_seen"] + len(real_logits), "toy_sum": total}
    loss = 0.1 * (jnp.square(real_logits).mean() + jnp.square(fake_logits).mean())
    return loss, {"toy": loss}, state


def settle(state, update):
    update = jnp.asarray(update, jnp.float32)
    return state | {"toy_updates": state["toy_updates"] * 10 + update + 1}


TOY = LogitTerm(of_logits, {"toy_seen": 0.0, "toy_sum": 5.0, "toy_updates": 0.0}, settle)


def with_toy(train_step):
    game = dataclasses.replace(train_step.objective, terms=(TOY,))
    return with_sgd(dataclasses.replace(train_step, objective=game))


def stepped(mesh):
    """(state, metrics) of one D update of two microbatches of 8."""
    train_step = with_toy(tiny(mesh, accumulation_steps=2))
    state = small_state.cheap_state(train_step)
    start = train_step.objective.initial
    state = state.replace(objective={name: jnp.float32(x) for name, x in start.items()})
    state = jax.device_put(state, state_lib.shardings(train_step.init, train_step.mesh))
    batch = batch_for(train_step)
    real, labels = batch["image"][0].astype(np.float32) / 127.5 - 1, batch["label"][0]
    z = jax.random.normal(jax.random.key(1), (16, train_step.generator.dim_z))
    return jax.device_get(jax.jit(train_step.d_step)(state, real, labels, z, labels))


@pytest.mark.full
def test_microbatches_are_seen_one_by_one_and_settled_once(loops):  # noqa: F811
    """The logits are those of the metrics."""
    state, metrics = stepped((1, 1))
    kept = state.objective
    assert kept["toy_seen"] == 16 and kept["toy_updates"] == 1
    np.testing.assert_allclose(kept["toy_sum"], 5 + 16 * metrics["d_real"], rtol=1e-5)
    assert metrics["toy"] > 0
    parts = metrics["d_loss_real"] + metrics["d_loss_fake"] + metrics["toy"]
    np.testing.assert_allclose(metrics["d_loss"], parts, rtol=1e-5)


@pytest.mark.full
def test_eight_devices_equal_one(loops):  # noqa: F811
    one, eight = (stepped(mesh) for mesh in ((1, 1), (2, 4)))
    for name, value in one[0].objective.items():
        np.testing.assert_allclose(eight[0].objective[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(eight[1]["d_loss"], one[1]["d_loss"], rtol=1e-5)


def test_without_terms_a_state_has_the_leaves_of_before():
    train_step = tiny()
    names = digest.named_leaves(state_lib.abstract(train_step.init))
    assert {name.partition("/")[0] for name in names} == {
        *("step", "key", "generator", "discriminator", "ema")
    }
    assert train_step.objective.initial == {}


def test_a_checkpoint_may_lack_a_term_or_hold_one_more(tmp_path):
    """Whatever it has is restored bit for bit; what it lacks is left for `continued` to start."""
    plain = tiny()
    train_step = with_toy(plain)
    mesh = sharding.make_mesh((4, 2))
    shapes = {"ours": train_step, "plain": plain}
    targets = {}
    for name, bound in shapes.items():
        whole = state_lib.abstract(bound.init, mesh)
        # The players are the same and no part of the question.
        targets[name] = whole.replace(generator={}, discriminator={}, ema={})
    state = jax.tree.map(lambda x: jnp.full(x.shape, 3, x.dtype), targets["ours"].objective)
    saved = targets["ours"].replace(step=jnp.int32(2), key=jax.random.key(0), objective=state)
    checkpoints = checkpoint.Checkpoints(tmp_path / "with", async_save=False)
    checkpoints.save(2, saved, {})
    bare = checkpoint.Checkpoints(tmp_path / "without", async_save=False)
    bare.save(2, saved.replace(objective={}), {})

    def restored(checkpoints, target):
        return checkpoints.restore(target, optional=state_lib.is_optional)[0].objective

    assert restored(checkpoints, targets["ours"]) == state
    assert restored(checkpoints, targets["plain"]) == {}
    assert set(restored(bare, targets["ours"])) == set(state)
    for each in (checkpoints, bare):
        each.close()


def test_an_objective_that_hides_its_logits_is_refused():
    game = objectives.Objective(lambda D, x, y, *_: (D(x, y).mean(), {}), None, terms=(TOY,))
    with pytest.raises(ValueError, match="never calls joint_logits"):
        game.d_objective(lambda x, y: x, jnp.ones(2), None, None, None, jax.random.key(0), 0)


def test_only_the_first_forward_is_seen():
    """A penalty that judges other images by the same function changes nothing."""
    hinge = objectives.separate(losses.hinge_d, losses.critic_g)

    def again(D, real, real_labels, fake, fake_labels, key):
        return sum(objectives.joint_logits(D, 9 * real, real_labels, fake, fake_labels)).mean()

    def D(images, labels):
        return images.mean((1, 2, 3))

    hinge = dataclasses.replace(hinge, terms=(TOY,), penalties={"again": (1.0, again)})
    x, y = jnp.ones((2, 1, 1, 1)), jnp.zeros(2, jnp.int32)
    start = {name: jnp.float32(value) for name, value in TOY.initial.items()}
    state = hinge.d_update(D, x, y, -x, y, jax.random.key(0), 0, start)[2]
    assert state["toy_sum"] == 5 + 2
