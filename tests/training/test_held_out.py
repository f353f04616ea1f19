"""ADA held by held-out images: r_v, who is judged and when, on any devices, and what is refused."""

import shutil
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from biggan_jax import data
from biggan_jax.config import validation
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.storage import checkpoint
from biggan_jax.training import held_out, held_out_images, heuristics, objectives, run_data
from biggan_jax.training import state as state_lib
from tests import runs
from tests.training.test_augment import config

ADA = (
    *("--config.augment.policy=ada", "--config.augment.groups=colour"),
    *("--config.augment.heuristic=held_out", "--config.augment.every_steps=2"),
    *("--config.augment.ramp_images=256", "--config.data.holdout=0.1"),
    *("--config.augment.target=-0.9", "--config.num_steps=5"),
)


def section(**changes):
    return config("ada", heuristic="held_out", **changes).augment


def started(loss="hinge", **changes):
    """(the term, what it keeps at the start)."""
    term = heuristics.by_held_out(section(**changes), loss)
    return term, {name: jnp.float32(value) for name, value in term.initial.items()}


@pytest.mark.parametrize("loss", [*objectives.LOSSES])
def test_probability_follows_r_v(loss):
    """Equation 1 over two updates of two microbatches; logits moved together give the same."""
    real, fake = [[1.0, 3.0], [2.0, 2.0]], [[-2.0, -2.0], [0.0, 0.0]]  # of mean 2 and -1
    for shift in (0.0, 7.0):
        for judged, r_v, p in ((1.25, 0.25, 0.1), (0.25, 1.75 / 3, 0.5), (-4.0, 2.0, 0.5)):
            term, kept = started(loss, ramp_images=20, probability=0.3)
            kept["lecam_real"] = jnp.float32(9)  # of another term
            for x, y in zip(real, fake, strict=True):
                x, y = (jnp.asarray(values) + shift for values in (x, y))
                _, metrics, kept = term.of_logits(x, y, kept, 0)
            assert kept[heuristics.JUDGED] == 4 and metrics["augment/r_v"] == 0
            kept = heuristics.adjusted(kept, judged + shift, section(ramp_images=20))
            np.testing.assert_allclose(kept[heuristics.R_V], r_v, rtol=1e-6)
            np.testing.assert_allclose(kept[heuristics.P], p, rtol=1e-6)
            sums = (heuristics.REAL, heuristics.FAKE, heuristics.JUDGED)
            assert not any(kept[name] for name in sums) and kept["lecam_real"] == 9
            _, metrics, _ = term.of_logits(x, y, kept, 0)
            assert metrics["augment/r_v"] == kept[heuristics.R_V]
            assert metrics["augment/probability"] == kept[heuristics.P]


def test_r_v_where_d_does_not_tell_real_from_generated():
    """The denominator is 1e-8, as in the authors' code, and the sign the numerator's."""
    for held_out_logit, sign in ((0.5, 1), (1.5, -1)):
        found = heuristics.ratio(jnp.float32(1), jnp.float32(held_out_logit), jnp.float32(2))
        assert np.isfinite(found) and np.sign(found) == sign


class Pixels(nn.Module):
    """A D that weighs every pixel, with one spectral vector that a training forward changes."""

    settings = types.SimpleNamespace(param_dtype=jnp.float32, d_dropout=0.0)

    @nn.compact
    def __call__(self, images, labels, train):
        kernel = self.param("kernel", nn.initializers.ones, images.shape[1:])
        u = self.variable("spectral", "u", jnp.zeros, ())
        if train:
            u.value = u.value + 1
        return (images * kernel[None]).sum((1, 2, 3)) + labels.astype(images.dtype)


def measured(mesh, parts, **changes):
    """(what is kept after an adjustment, the images that were judged)."""
    c = config("diffaugment", ops=("colour",), heuristic="held_out", target=0.5, **changes)
    mesh = sharding.make_mesh(mesh)
    bound = types.SimpleNamespace(
        discriminator=Pixels(), objective=objectives.of_config(c, mesh), mesh=mesh, num_d_steps=1
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (parts, 16 // parts, 4, 4, 3), np.uint8)
    labels = rng.integers(0, 3, images.shape[:2], np.int32)
    weights = rng.uniform(0, 2, images.shape[:2]).astype(np.float32)
    judged = held_out.HeldOut(images, labels, weights)
    params = {"kernel": np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 4, 3)}
    kept = {name: jnp.float32(0.25) for name in bound.objective.initial}
    kept |= {heuristics.REAL: jnp.float32(40), heuristics.JUDGED: jnp.float32(4)}

    def adjust(*arrays):
        return held_out.adjusted(bound, c.augment, *arrays)

    step = jnp.int32(3)
    arguments = (kept, params, {"u": np.float32(0)}, jax.random.key(1), step)
    batch = sharding.global_batch(judged, mesh, axis=1)
    return jax.device_get(jax.jit(adjust)(*arguments, batch)), judged, params


@pytest.mark.parametrize("parts", [1, 2])
def test_held_out_images_are_judged_as_training_ones(parts, monkeypatch):
    """The weighed mean of D over augmented images, on one device and on eight."""
    kept, judged, params = measured((1, 1), parts, probability=0.0)
    x = judged.images.astype(np.float64) / 127.5 - 1
    logits = (x * params["kernel"]).sum((2, 3, 4)) + judged.labels
    mean = (judged.weights * logits).sum() / judged.weights.sum()

    def r_v(mean):
        return (10 - mean) / (10 - 0.0625)

    # p is 0.25: some images are changed.
    assert abs(kept[heuristics.R_V] - r_v(mean)) > 1e-4
    for mesh in ((8, 1), (2, 4)):
        many = measured(mesh, parts, probability=0.0)[0]
        for name, value in kept.items():
            np.testing.assert_allclose(many[name], value, rtol=1e-5, err_msg=name)
    with monkeypatch.context() as patch:  # not augmented, it is the mean itself
        patch.setattr(objectives.augment, "Augmented", lambda D, *others: D)
        kept = measured((1, 1), parts)[0]
    np.testing.assert_allclose(kept[heuristics.R_V], r_v(mean), rtol=1e-5)


def test_it_is_done_once_in_so_many_updates_of_d(monkeypatch):
    """Also where a step has several, and from a restored step on as in a run from the start."""
    player = state_lib.Player({}, {}, {}, ())
    state = state_lib.GANState(0, None, player, player, None, {"times": 0})

    def adjusted(train_step, section, kept, *others):
        return {"times": kept["times"] + 1}

    monkeypatch.setattr(held_out, "adjusted", adjusted)
    monkeypatch.setattr(held_out.jax, "jit", lambda f, **options: f)
    mesh = sharding.make_mesh((1,))
    for updates, every, expected in (
        (1, 3, [0, 0, 1, 1, 1, 2]), (2, 4, [0, 1, 1, 2, 2, 3]), (3, 4, [0, 1, 2, 3, 3, 4]),
        (3, 2, [1, 2, 3, 4, 5, 6]),
    ):  # fmt: skip
        bound = types.SimpleNamespace(num_d_steps=updates, mesh=mesh)
        for start in (0, 2):
            step = held_out.AdjustedSteps(
                lambda state, batch: (state, {}), bound, section(every_steps=every), None, start
            )
            now, found = state, []
            for _ in expected[start:]:
                now, _ = step(now, None)
                found.append(now.objective["times"])
            before = expected[start - 1] if start else 0
            assert found == [count - before for count in expected[start:]]


def test_another_heuristic_goes_on_with_the_probability():
    """As `--allow-change` and a fork change it; its own sums start afresh."""
    new, old = runs.tiny_config(*ADA), runs.tiny_config(*ADA, "--config.augment.heuristic=signs")
    player = state_lib.Player({}, {}, {}, ())
    for c, saved in ((new, old), (old, new)):
        names = objectives.of_config(c).initial
        restored = {name: jnp.float32(0.125) for name in names}
        state = state_lib.GANState(0, None, player, player, None, restored)
        kept = state_lib.continued(state, 2, saved.to_dict(), c, None).objective
        assert kept.pop(heuristics.P) == 0.125 and not any(kept.values()) and len(kept) > 1


def read(tmp_path, batch_size, mesh=(1, 1), **changes):
    c = runs.tiny_config(*ADA)
    c.batch_size = batch_size
    c.update_from_flattened_dict(changes)
    source = data.open_source("digits", resolution=8, channels=1)
    data.hold_out(source, c.data.holdout)
    c.model.num_classes = c.model.num_classes or 10
    return source, held_out_images.read(source, c, tmp_path, sharding.make_mesh(mesh))


def test_which_images_are_judged(tmp_path):
    """Held-out ones alone, as many as D sees between two adjustments or 256, in microbatches."""
    for batch_size, changes, parts, width in (
        (16, {}, 2, 16),
        (16, {"augment.every_steps": 99}, 11, 16),  # all that are held out
        (64, {"augment.every_steps": 99, "accumulation_steps": 4, "data.holdout": 0.3}, 16, 16),
        (512, {"accumulation_steps": 4, "data.holdout": 0.02}, 1, 128),
    ):
        source, found = read(tmp_path, batch_size, (8, 1), **changes)
        assert found.images.shape == (parts, width, 8, 8, 1), (batch_size, changes)
        mine = {x.tobytes() for x in source.read(np.flatnonzero(source.held_out))[0]}
        judged = np.asarray(found.images).reshape(-1, 64)
        assert {x.tobytes() for x in judged} <= mine
        # Each of them weighs the same, however often it stands there.
        _, which = np.unique(judged, axis=0, return_inverse=True)
        weights = np.bincount(which.ravel(), np.ravel(found.weights))
        np.testing.assert_allclose(weights, 1)
    source, found = read(tmp_path, 16, **{"model.num_classes": 1})
    assert not found.labels.any() and source.num_classes == 10


def test_a_balanced_stream_weighs_rare_classes_more(tmp_path):
    """As much as the stream has of them."""
    source, found = read(tmp_path, 16, **{"data.balance": 0.5})
    counts = np.bincount(source.labels_of(np.flatnonzero(~source.held_out)), minlength=10)
    labels, weights = np.ravel(found.labels), np.ravel(found.weights)
    np.testing.assert_allclose(weights, counts[labels] ** -0.5, rtol=1e-6)
    assert len(np.unique(weights)) > 1


def test_without_held_out_images_it_is_refused(tmp_path, capsys):
    """Before anything is opened; what the line names is taken."""
    workdir = tmp_path / "run"
    assert runs.train(workdir, *ADA, "--config.data.holdout=0") == 2
    words = (r"augment.heuristic is held_out, but data.holdout is 0", "--config.data.holdout=0.1 ")
    runs.assert_one_error(capsys.readouterr(), *words)
    assert not workdir.exists()
    for fixed in ("augment.policy=none", "augment.heuristic=signs"):
        runs.tiny_config(*ADA, "--config.data.holdout=0", f"--config.{fixed}")


def test_too_few_images_are_refused_once(tmp_path, capsys):
    """Either remedy, as it is written, is taken."""
    folder = tmp_path / "pictures" / "one"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("L", (16, 16), 40 * i).save(folder / f"{i}.png")
    config = runs.tiny_config(*ADA, f"--config.data.source=folder:{folder.parent}")
    config.data.holdout = 0.01
    with pytest.raises(UserError, match="of which none is held out") as refused:
        run_data.opened(config)
    one, other = str(refused.value).partition(": set ")[2].split(", or ")
    for advice, kept in ((one, 1), (other, 0)):
        options = [word for word in advice.split() if word.startswith("--")]
        taken = runs.tiny_config(*ADA, f"--config.data.source=folder:{folder.parent}", *options)
        validation.validate(taken, 1)
        source = run_data.opened(taken)
        assert np.sum(0 if source.held_out is None else source.held_out) == kept


@pytest.mark.full
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path):
    """Two adjustments, saved before and after them, with monitors that judge the same images."""
    more = ("--config.monitor_every_steps=2", "--config.checkpoint_every_steps=1")
    straight = tmp_path / "straight"
    assert runs.train(straight, *ADA, *more) == 0
    kept = {}
    for number in range(1, 6):
        record = checkpoint.integrity.read_record(straight / "checkpoints" / str(number))
        state = jax.device_get(runs.load_state(straight, number)[0].objective)
        assert {f"objective/{name}" for name in state} <= set(record["arrays"])
        kept[number] = state
    p = [float(kept[number][heuristics.P]) for number in kept]
    assert p[0] == 0 and {abs(b - a) for a, b in zip(p, p[1:], strict=False)} <= {0, 0.125}
    assert [int(kept[n][heuristics.JUDGED]) for n in kept] == [16, 0, 16, 0, 16]
    lines = runs.metric_lines(straight)
    by_step = {line["step"]: line for line in lines if "augment/r_v" in line}
    assert by_step[2]["augment/r_v"] == 0
    for number in (3, 4, 5):  # as it was during the step
        found = by_step[number]["augment/r_v"]
        np.testing.assert_allclose(found, kept[number - 1][heuristics.R_V], rtol=1e-5)
        assert found != 0 and by_step[number]["augment/probability"] == p[number - 2]
    for after in (1, 2, 3):
        killed = shutil.copytree(straight, tmp_path / f"killed{after}")
        for number in range(after + 1, 6):
            shutil.rmtree(killed / "checkpoints" / str(number))
        assert runs.train(killed, *ADA, *more) == 0
        runs.assert_same_state(killed, straight, 5)
        assert runs.metric_lines(killed) == lines
