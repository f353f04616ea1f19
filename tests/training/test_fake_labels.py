"""Classes of the fakes: uniform as before, or as often as in the stream of real images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import load_generator
from biggan_jax.data import balance, hold_out, open_source
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.storage import lock
from biggan_jax.training import build, fake_labels, setup
from biggan_jax.training.state import GANState, Player
from biggan_jax.training.step import TrainStep
from tests import runs

COUNTS = (30, 0, 60, 10, 0)


def config(*overrides, counts=COUNTS):
    loaded = runs.tiny_config(*overrides)
    loaded.model.num_classes = len(counts)
    loaded.data.class_counts = counts
    return loaded


def test_uniform_labels_are_those_of_before():
    key = jax.random.key(4)
    assert fake_labels.ends(config()) is None
    np.testing.assert_array_equal(
        fake_labels.draw(key, (3, 50), 7, None), jax.random.randint(key, (3, 50), 0, 7, jnp.int32)
    )


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_labels_of_the_data_come_as_often_as_in_the_stream(power):
    ends = fake_labels.ends(
        config("--config.data.fake_labels=data", f"--config.data.balance={power}")
    )
    labels = fake_labels.draw(jax.random.key(0), (20, 5000), 5, ends)
    assert labels.dtype == jnp.int32
    got = np.bincount(labels.ravel(), minlength=5)
    want = balance.shares(np.array(COUNTS), power)
    assert got[1] == got[4] == 0 and len(got) == 5  # no image of them is ever seen
    np.testing.assert_allclose(got / 1e5, want, atol=0.006)  # 4 standard deviations


def test_counts_of_other_classes_are_refused():
    wrong = config("--config.data.fake_labels=data", counts=(1, 2))
    wrong.model.num_classes = 3
    with pytest.raises(
        UserError, match="2 counts .3 images. for the 3 classes.*leave --config.data"
    ):
        fake_labels.ends(wrong)
    wrong.model.num_classes = 1  # no class to draw
    assert fake_labels.ends(wrong) is None
    # Whoever times a step has no data.
    untold = config("--config.data.fake_labels=data", counts=())
    untold.model.num_classes = 4
    assert fake_labels.ends(untold) == (0.25, 0.5, 0.75, 1.0)


class Recording(TrainStep):
    """A step whose players only say which labels they were given."""

    def d_step(self, state, real, labels, z, gen_labels, *unused):
        return state, {"d": gen_labels}

    def g_step(self, state, z, gen_labels, *unused):
        return state, {"g": gen_labels}


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_the_step_draws_them_for_both_players_unless_they_are_paired(loss):
    only = config("--config.data.fake_labels=data", f"--config.loss={loss}", counts=(0, 0, 5))
    built = build.train_step(only, sharding.make_mesh((1,)))
    step = Recording(**{name: getattr(built, name) for name in built.__dataclass_fields__})
    nobody = Player({}, {}, {}, {})
    state = GANState(jnp.zeros((), jnp.int32), jax.random.key(0), nobody, nobody, {})
    shape = (1, 16, built.generator.resolution, built.generator.resolution, 1)
    batch = {"image": jnp.zeros(shape, jnp.uint8), "label": jnp.ones((1, 16), jnp.int32)}
    _, metrics = step.train_step(state, batch)
    want = 1 if loss == "relativistic" else 2  # the real labels, or the only class of the data
    assert set(np.asarray(metrics["d"]).ravel()) == set(np.asarray(metrics["g"])) == {want}


def test_a_run_counts_its_data_and_balances_its_stream(tmp_path):
    settings = [f"--config.data.{x}" for x in ("fake_labels=data", "balance=1", "holdout=0.1")]
    started = runs.tiny_config(*settings)
    with lock.held(setup.check(started, tmp_path)) as owned:
        run = setup.prepare(started, tmp_path, owned)
        assert any("data.balance 1: in the time of an epoch" in line for line in run.report.lines())
        labels = np.concatenate([run.batches.batch_at(i)["label"].ravel() for i in range(100)])
        with run:
            pass  # closed
    source = open_source("digits", resolution=8, channels=1)
    hold_out(source, 0.1)
    want = np.bincount(source.labels_of(np.flatnonzero(~source.held_out)))
    saved = json.loads((tmp_path / "config.json").read_text())["data"]
    assert saved["class_counts"] == want.tolist() and np.ptp(want) > 5
    assert np.ptp(np.bincount(labels)) <= 8 < np.ptp(want)
    assert run.train_step.label_ends == pytest.approx(np.arange(1, 11) / 10)


@pytest.mark.full
def test_such_a_run_goes_on_bit_for_bit_and_samples_without_its_data(tmp_path):
    settings = ["--config.data.fake_labels=data", "--config.data.balance=0.5"]
    assert runs.train(tmp_path / "straight", *settings) == 0
    assert runs.train(tmp_path / "halves", *settings, "--config.num_steps=2") == 0
    assert runs.train(tmp_path / "halves", *settings) == 0
    runs.assert_same_state(tmp_path / "straight", tmp_path / "halves", 4)
    path = tmp_path / "halves" / "config.json"
    path.write_text(path.read_text().replace('"digits"', '"folder:gone"'))
    generator = load_generator(tmp_path / "halves")
    assert generator(generator.sample_z(0, 2), np.array([0, 9])).shape == (2, 16, 16, 1)
