"""bCR, zCR and LeCam: against the authors' code, and as terms of an update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.config import default_config
from biggan_jax.parallel import sharding
from biggan_jax.training import consistency, lecam, objectives
from biggan_jax.training.logit_terms import Seen
from tests.training.test_penalties import (  # noqa: F401
    FAKE,
    FAKE_Y,
    REAL,
    F,
    Y,
    assert_equals_fixture,
    close,
    double,
    logits,
    part,
)

NEAR = F["in/near"]
KEY = jax.random.key(0)


def section(**changes):
    c = default_config().regularizer
    c.update(changes)
    return c


def judged(D):
    """D after the joint forward of an update."""
    seen = Seen(D)
    objectives.joint_logits(seen, REAL, Y, jnp.asarray(FAKE), FAKE_Y)
    return seen


def test_flips_and_shifts_equal_studiogan():
    drawn = (F["cr/flip"], F["cr/rows"], F["cr/columns"])
    assert drawn[0].any() and not drawn[0].all() and all(np.ptp(x) for x in drawn[1:])
    got = consistency.flipped_and_shifted(jnp.asarray(REAL), *map(jnp.asarray, drawn))
    close(got, F["cr/images"])


def test_what_is_drawn():
    """All shifts up to an eighth, one image in two mirrored, each by itself; by its key alone."""
    side = 32
    x = jnp.arange(side, dtype=jnp.float32)
    images = jnp.broadcast_to(x[:, None, None] * 1000 + x[None, :, None], (400, side, side, 1))
    draw = jax.jit(consistency.augmented, static_argnums=2)
    moved = np.asarray(draw(images, KEY, True))
    np.testing.assert_array_equal(moved, draw(images, KEY, True))
    assert (moved != draw(images, jax.random.key(1), True)).mean() > 0.5
    middle = moved[:, 16, 16, 0]
    rows, columns = middle // 1000 - 16, middle % 1000
    mirrored = moved[:, 16, 17, 0] < moved[:, 16, 16, 0]
    shifts = np.where(mirrored, 15 - columns, columns - 16)
    for found in (rows, shifts):
        assert set(found) == set(range(-4, 5))
    assert 0.4 < mirrored.mean() < 0.6 and abs(np.corrcoef(mirrored, rows)[0, 1]) < 0.2
    plain = np.asarray(draw(images, KEY, False))
    assert (plain[:, 16, 17, 0] > plain[:, 16, 16, 0]).all()  # none mirrored


def test_no_device_needs_images_of_another():
    mesh = sharding.make_mesh((8, 1))
    where = sharding.over_batch(mesh)
    images = jax.ShapeDtypeStruct((16, 8, 8, 3), jnp.float32)
    jitted = jax.jit(consistency.augmented, in_shardings=(where, None), out_shardings=where)
    text = jitted.lower(images, KEY).compile().as_text()
    assert "gather(" in text
    for kind in ("all-gather", "all-to-all", "all-reduce", "collective-permute"):
        assert kind not in text


def test_bcr_equals_studiogan():
    """Real and generated images, each with its strength; the clean logits are those of the loss."""

    def augment(images, key):
        is_real = jnp.all(images == REAL)
        return jnp.where(is_real, F["cr/images"], NEAR)

    penalty = consistency.balanced(10.0, 5.0, augment)
    images = (REAL, Y, jnp.asarray(FAKE), FAKE_Y)
    assert_equals_fixture("bcr", lambda D: penalty(judged(D), *images, KEY))


def test_bcr_of_a_config():
    """A strength of 0 leaves a side out, and an unset lambda_fake is lambda_real."""
    calls = []

    def D(images, labels):
        calls.append(labels)
        return jnp.sin(images).sum((1, 2, 3))

    def value(augments=False, **changes):
        ((one, penalty),) = consistency.of_section(section(**changes), augments).values()
        seen = judged(D)
        calls.clear()
        return one * penalty(seen, REAL, Y, jnp.asarray(FAKE), FAKE_Y, KEY)

    both, real = value(consistency=10.0), value(consistency=10.0, consistency_fake=0.0)
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], Y)
    fake = value(consistency_fake=10.0)
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], FAKE_Y)
    close(both, real + fake)
    assert real > 1e-6 and fake > 1e-6
    assert value(augments=True, consistency=10.0) == 0  # this D augments nothing in its second call
    assert not consistency.of_section(section(), False)


def test_zcr_equals_studiogan():
    latent = consistency.Latent(20.0, 0.5, 0.05)
    assert_equals_fixture("zcr_d", lambda D: latent.of_d(judged(D), jnp.asarray(NEAR), FAKE_Y))
    value, grads = jax.value_and_grad(latent.of_g, argnums=(0, 1))(FAKE, NEAR)
    close(value, F["zcr_g"])
    close(grads, (F["zcr_g/grad/fake"], F["zcr_g/grad/near"]))


def test_lecam_equals_the_authors_code():
    """Six iterations of moving logits, with the averages from the third and the term from the
    fourth on (decay 0.9, start 3); gradients of the last one."""
    term = lecam.term(0.3, 0.9, 3, num_d_steps=1)
    state = {k: jnp.asarray(v) for k, v in term.initial.items()}
    D, real, fake = functools.partial(logits, part("D")), jnp.asarray(REAL), jnp.asarray(FAKE)
    judge = lambda D, i: (D(real * (0.5 + 0.3 * i), Y), D(fake * (2 - 0.2 * i), FAKE_Y))
    values = []
    for i in range(1, 7):
        before = state
        value, metrics, state = term.of_logits(*judge(D, i), state, i - 1)
        values.append(value)
        close((state["lecam_real"], state["lecam_fake"]), F["lecam/anchors"][i - 1])
        assert metrics["lecam"] == value and metrics["lecam_real"] == state["lecam_real"]
    close(values, F["lecam/values"])
    assert_equals_fixture("lecam", lambda D: term.of_logits(*judge(D, 6), before, 5)[0])


def test_lecam_counts_generator_updates_and_may_begin_late():
    term = lecam.term(1.0, 0.5, 2, num_d_steps=3)
    one, zero = jnp.ones(2), jnp.zeros(2)
    on = [term.of_logits(one, zero, term.initial, k)[0] > 0 for k in range(9)]
    assert on == [False] * 6 + [True] * 3  # 1-based updates 1 and 2 of G are without
    state = term.of_logits(3 * one, zero - 1, term.initial, 999)[2]
    assert state == {"lecam_real": 3.0, "lecam_fake": -1.0, "lecam_seen": 1.0}
    state = term.of_logits(one, zero, state, 1000)[2]
    assert state == {"lecam_real": 2.0, "lecam_fake": -0.5, "lecam_seen": 1.0}


def test_off_by_default():
    game = objectives.build("hinge", section())
    assert game.latent is None and game.terms == () and game.initial == {} and not game.penalties


@pytest.mark.parametrize("every", [1, 3])
def test_lazy(every):
    """In update 0 and every third one, three times as strong; LeCam and zCR of G in every one."""
    on = {"consistency": 1.0, "zcr_d": 2.0, "zcr_g": 0.5, "lecam": 0.1, "lecam_start_step": 0}
    game = objectives.build("hinge", section(every_steps=every, **on))
    state = {k: jnp.asarray(v) for k, v in game.initial.items()}
    D, fake = functools.partial(logits, part("D")), jnp.asarray(FAKE)
    near = lambda key, sigma: fake + sigma * jax.random.normal(key, fake.shape)
    got = [
        game.d_update(D, REAL, Y, fake, FAKE_Y, KEY, jnp.asarray(update), state, near)
        for update in (0, 1, 3)
    ]
    plain = objectives.build("hinge", section()).d_objective(D, REAL, Y, fake, FAKE_Y, KEY, 0)[0]
    for (loss, metrics, _), due in zip(got, (True, every == 1, True), strict=True):
        for name in ("consistency", "zcr_d"):
            want = every * due * got[0][1][name] / every
            close(metrics[name], want)
            assert (metrics[name] > 0) == due
        assert metrics["lecam"] > 0
        close(loss, plain + sum(metrics[k] for k in ("consistency", "zcr_d", "lecam")))
    loss, metrics = game.g_objective(D, fake, FAKE_Y, None, None, KEY, state, near)
    assert metrics["zcr_g"] < 0
    close(loss, metrics["zcr_g"] - D(fake, FAKE_Y).mean())
