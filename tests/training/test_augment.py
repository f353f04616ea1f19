"""Augmentation inside the game: what is drawn, who sees it, across devices, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import config as config_lib
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.training import ada, augment, build, diffaugment, heuristics, objectives
from biggan_jax.training import step as step_lib
from tests import small_state
from tests.models.test_biggan import section
from tests.training.test_step import assert_same, batch_for, kinds, loops, tiny, with_sgd  # noqa: F401

EVERYTHING = {"ops": diffaugment.OPS, "groups": ada.GROUPS}


def config(policy, **changes):
    c = default_config()
    c.augment.policy = policy
    c.update_from_flattened_dict({f"augment.{name}": x for name, x in changes.items()})
    return c


def game(policy, **changes):
    return objectives.of_config(config(policy, **changes))


def images(n, size=8, channels=3, seed=0):
    shape = (n, size, size, channels)
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def plain_d(x, labels):
    """A discriminator that sees every pixel."""
    weights = jnp.cos(jnp.arange(np.prod(x.shape[1:])) ** 2).reshape(x.shape[1:])
    return (x * weights[None]).sum((1, 2, 3)) / 9


def test_diffaugment_draws_what_the_paper_says():
    draws = diffaugment.draw(jax.random.key(0), diffaugment.OPS, 4000, 18, 1.0)
    draws = jax.device_get(draws)
    for name, low, high in (
        ("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5),
    ):  # fmt: skip
        x = draws[name]
        assert low <= x.min() < low + 0.01 and high - 0.01 < x.max() < high
        assert abs(x.mean() - (low + high) / 2) < 0.05 * (high - low)
    # 18 / 8 is 2; a square of 9 pixels has its centre on a pixel, of which there are 18.
    for axis in range(2):
        assert set(draws["shift"][:, axis]) == set(range(-2, 3))
        assert set(draws["cutout"][:, axis]) == set(range(18))
    assert draws["is_cut"].all()
    independent = np.corrcoef([draws[n] for n in ("brightness", "saturation", "contrast")])
    assert np.abs(independent - np.eye(3)).max() < 0.06


def test_ada_draws_what_the_paper_says():
    p, n = 0.4, 20_000
    draws = jax.device_get(ada.draw(jax.random.key(1), ada.GROUPS, n, p, noise_shape=(1, 1, 1)))
    done = {"scale": 1, "stretch": 1, "contrast": 1, "saturation": 1, "brightness": 0, "hue": 0}
    stds = {"scale": 0.2, "stretch": 0.2, "contrast": 0.5, "saturation": 1.0}
    for name, idle in done.items():
        on = draws[name] != idle
        assert abs(on.mean() - p) < 0.015, name
        if name in stds:
            np.testing.assert_allclose(np.log2(draws[name][on]).std(), stds[name], rtol=0.05)
    turned = (draws["rotation"] != 0) | (draws["last_rotation"] != 0)
    assert abs(turned.mean() - p) < 0.015  # one of the two
    for name, values in (("flip", 2), ("quarters", 4), ("luma_flip", 2)):
        assert abs((draws[name] != 0).mean() - p * (values - 1) / values) < 0.015
        assert set(draws[name]) == set(range(values))
    moved = draws["shift"][(draws["shift"] != 0).any(1)]
    assert abs(len(moved) / n - p) < 0.015 and 0.12 < np.abs(moved).max() <= 0.125
    np.testing.assert_allclose(draws["move"].std(), 0.125 * p**0.5, rtol=0.05)
    np.testing.assert_allclose(draws["brightness"].std(), 0.2 * p**0.5, rtol=0.05)
    assert abs((draws["gains"] != 1).mean() - p) < 0.015 and draws["gains"].shape == (n, 4)
    # A sigma that is itself half normal, times normal noise: variances multiply.
    np.testing.assert_allclose(draws["noise"].std(), 0.1 * p**0.5, rtol=0.06)
    assert abs((draws["cutout"] == 0.5).mean() - p) < 0.015


@pytest.mark.parametrize(
    ("policy", "channels"),
    [("diffaugment", 1), ("ada", 3), pytest.param("ada", 1, marks=pytest.mark.full)],
)
def test_nothing_is_done_with_probability_0(policy, channels):
    """And with 1 every image is changed, each in its own way and the same for the same key."""
    transform = jax.jit(augment._transform(config(policy, **EVERYTHING).augment, None))
    x = jnp.repeat(images(1, channels=channels), 4, 0)
    np.testing.assert_allclose(transform(jax.random.key(0), x, 0.0), x, atol=2e-6)
    y = transform(jax.random.key(0), x, 1.0)
    np.testing.assert_array_equal(y, transform(jax.random.key(0), x, 1.0))
    changes = np.abs(np.asarray(y)[:, None] - np.asarray(y)[None]).mean((2, 3, 4))
    assert (changes + np.eye(4) > 0.05).all() and np.abs(y - x).mean((1, 2, 3)).min() > 0.05
    assert np.abs(y - transform(jax.random.key(1), x, 1.0)).mean() > 0.05


def test_saturation_of_a_grey_image_changes_nothing():
    x = images(2, channels=1)
    draws = {"brightness": jnp.zeros(2), "saturation": jnp.zeros(2), "contrast": jnp.ones(2)}
    np.testing.assert_allclose(diffaugment.transform(x, draws), x, atol=1e-6)


@pytest.mark.parametrize("loss", [pytest.param("hinge", marks=pytest.mark.full), "relativistic"])
def test_both_players_play_with_augmented_images(loss):
    """Both kinds of images in D's loss, those that it has in G's, and R1 of D(T(x)) in x."""
    c = config("diffaugment")
    c.loss, c.regularizer.r1 = loss, 1.0
    x, z, y, key = images(3), images(3, seed=1), jnp.zeros(3, jnp.int32), jax.random.key(4)
    bare = objectives.build(c.loss, c.regularizer)
    ours = objectives.of_config(c)
    transform = augment._transform(c.augment, None)
    at = jax.random.fold_in(key, 2**31 + 1)

    def by_hand(call):  # the draws of each call of D are its own
        def judge(images, labels):
            own = jax.random.fold_in(at, next(call))
            return plain_d(transform(own, images, 1.0), labels)

        return judge

    def metrics(game, judge):
        return jax.jit(lambda: game.d_objective(judge, x, y, z, y, key, 0)[1])()

    found, expected = metrics(ours, plain_d), metrics(bare, by_hand(iter(range(9))))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    assert found["augment/probability"] == 1 and -1 <= found["augment/r_t"] <= 1

    def gradient(game, judge):
        return jax.jit(jax.grad(lambda fake: game.g_objective(judge, fake, y, x, y, key)[0]))(z)

    found = gradient(ours, plain_d)
    np.testing.assert_allclose(found, gradient(bare, by_hand(iter(range(9)))), atol=1e-6)
    assert np.abs(found - gradient(bare, plain_d)).max() > 1e-3


def test_without_a_policy_the_game_is_the_same_object():
    c = config("none", probability=0.5)
    assert objectives.of_config(c) == objectives.build(c.loss, c.regularizer)


def test_r_t_is_the_mean_sign_of_real_logits():
    """About the middle of a loss, or of the generated ones where a loss compares the two."""
    real, fake = jnp.asarray([0.2, 0.7, -1.0, 3.0]), jnp.asarray([1.0, 0.5, -2.0, 1.0])
    for loss, expected in (
        ("hinge", 0.5), ("non_saturating", 0.5), ("least_squares", 0.0), ("relativistic", 0.5),
        ("wasserstein", 0.5),
    ):  # fmt: skip
        assert heuristics.signs(loss, real, fake).mean() == expected, loss
    assert heuristics.signs("relativistic", real, fake + 0.5).mean() == 0


def control(**changes):
    (term,) = game("ada", **changes).terms
    kept = {name: jnp.float32(value) for name, value in term.initial.items()}

    def seen(real_logits, kept, update):
        """After one D update of two microbatches."""
        for part in jnp.split(jnp.asarray(real_logits), 2):
            _, metrics, kept = term.of_logits(part, jnp.zeros_like(part), kept, update)
        return metrics, term.settle(kept, update)

    return kept, seen


def test_probability_follows_r_t():
    """It moves by the images since the last time, once in `every_steps` updates, within [0, 1]."""
    kept, seen = control(every_steps=2, ramp_images=20)
    assert set(kept) == {"augment_probability", "augment_signs", "augment_images"}
    sure, unsure = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, -1.0, -2.0]  # r_t 1 and 0, the target 0.6
    found = []
    for update, logits in enumerate([sure, unsure, sure, sure, unsure, unsure, *[sure] * 12]):
        metrics, kept = seen(logits, kept, update)
        found.append(float(kept["augment_probability"]))
    # r_t of the first two updates is 0.5, below the target: it stays at 0.
    np.testing.assert_allclose(found[:6], [0, 0, 0, 0.4, 0.4, 0], atol=1e-6)
    np.testing.assert_allclose(found[6:], [0, 0.4, 0.4, 0.8, 0.8, *[1] * 7], atol=1e-6)
    assert metrics["augment/r_t"] == 1 and kept["augment_images"] == 0
    _, kept = seen(unsure, kept, 18)
    assert kept["augment_images"] == 4 and kept["augment_signs"] == 0


def test_a_target_may_be_set_for_either_policy_and_a_start():
    assert augment.fixed_probability(config("diffaugment").augment) == 1
    assert augment.fixed_probability(config("ada", probability=0.3).augment) == 0.3
    for policy in ("diffaugment", "ada"):
        (term,) = game(policy, target=0.2, probability=0.25).terms
        assert term.initial[heuristics.P] == 0.25
    kept, seen = control(target=0.4, every_steps=1, ramp_images=8)
    assert seen([1.0, 1.0, 1.0, -1.0], kept, 0)[1][heuristics.P] == 0.5  # r_t is 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ops": ("color",)}, r"augment.ops has 'color' \(did you mean 'colour'\?\): set --config"),
        ({"ops": ("colour", "flip")}, "has 'flip'.*some of colour,translation,cutout$"),
        ({"ops": ()}, "augment.ops is empty: set --config.augment.ops=colour,translation, or"),
    ],
)
def test_words_that_are_none_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        game("diffaugment", **changes)


def test_saved_words_are_read():
    c = config("ada", groups=("blit", "noise"))
    c.remat = ("all", 8)
    saved = config_lib.from_saved(c.to_dict() | {"remat": ["all", 8]})
    assert saved.augment.groups == ("blit", "noise") and saved.remat == ("all", 8)
    with pytest.raises(UserError, match="augment.ops is"):
        config_lib.from_saved({"augment": {"ops": [3]}})


def stepped(mesh, policy, **changes):
    c = config(policy, **changes, every_steps=1, ramp_images=64)
    bound = tiny(mesh, augment=c.augment, accumulation_steps=2)
    train_step = with_sgd(bound)
    start = small_state.cheap_state(train_step)
    # Not at 0, where nothing would be drawn.
    start = start.replace(objective={n: jnp.full_like(x, 0.25) for n, x in start.objective.items()})
    return step_lib.jit_train_step(train_step)(start, batch_for(train_step))


@pytest.mark.full
@pytest.mark.parametrize(
    ("policy", "changes"), [("ada", {"groups": ada.GROUPS, "target": -0.5}), ("diffaugment", {})]
)
def test_eight_devices_equal_one(policy, changes, loops):  # noqa: F811
    """Draws, signs and the new probability too, over microbatches and split weights."""
    one, many = (stepped(mesh, policy, **changes) for mesh in ((1, 1), (2, 4)))
    assert_same(one[0], many[0], 1e-5)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, many[1][name], rtol=1e-4, atol=1e-5, err_msg=name)
    for name, value in one[0].objective.items():
        np.testing.assert_allclose(value, many[0].objective[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("policy", "groups"),
    [
        ("diffaugment", ()),
        pytest.param("ada", ("geometric", "cutout"), marks=pytest.mark.full),
        pytest.param("ada", ada.GROUPS, marks=pytest.mark.full),
    ],
)
def test_no_image_leaves_its_device(policy, groups):
    """Draws, transforms and their gradients need no exchange over a split batch."""
    section = config(policy, groups=groups).augment
    mesh = sharding.make_mesh((8, 1))
    transform = augment._transform(section, mesh)
    split = sharding.over_batch(mesh)
    x = jax.device_put(images(16), split)
    weights = jax.device_put(images(16, seed=1), split)

    def gradient(key, x, p):
        y, back = jax.vjp(lambda x: transform(key, x, p), x)
        return y, back(weights)

    compiled = jax.jit(gradient, out_shardings=split).lower(jax.random.key(0), x, 0.9).compile()
    assert not kinds(compiled.as_text())
    # What is made inside a loop has no sharding of its own (`sharding.constrain_batch`).
    made = jax.jit(lambda key: transform(key, jnp.zeros((16, 8, 8, 3)), 0.9))(jax.random.key(0))
    assert made.sharding.is_equivalent_to(split, 4)
    alone = augment._transform(section, None)
    expected = jax.jit(alone)(jax.random.key(0), images(16), 0.9)
    np.testing.assert_allclose(compiled(jax.random.key(0), x, 0.9)[0], expected, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("policy", ["diffaugment", "ada"])
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_it_goes_with_everything_else(policy, loss):
    """On paper: every remedy, lazy penalties, bfloat16, grey images, several updates and parts."""
    c = config(policy, **EVERYTHING, target=0.5)
    c.model = section(ch=4, channels=1, d_head="san")
    c.batch_size, c.num_d_steps, c.accumulation_steps = 16, 2, 2
    c.loss, c.compute_dtype, c.remat = loss, "bfloat16", ("all",)
    names = ("r1", "r2", "wgan_gp", "dragan", "consistency", "zcr_d", "zcr_g", "lecam")
    c.regularizer.update(dict.fromkeys(names, 0.1) | {"every_steps": 3})
    train_step = build.train_step(c, sharding.make_mesh((8, 1)))
    before = jax.eval_shape(train_step.init, jax.random.key(0))
    assert {x.dtype for x in before.objective.values()} == {jnp.dtype("float32")}
    after, metrics = jax.eval_shape(train_step.train_step, before, batch_for(train_step))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), before
    )
    assert {"augment/probability", "augment/r_t", "augment/fake_row_spread", *names} - set(
        metrics
    ) == set()
