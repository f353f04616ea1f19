"""A workdir from before a setting existed: its config.json lacks the key, and the run goes on."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest

from biggan_jax import cli
from biggan_jax.sampling import load
from biggan_jax.storage import checkpoint
from tests import runs

LATER = {
    "model": ("attention_form",),
    "regularizer": ("r1", "r2", "every_steps"),
}


@pytest.fixture
def earlier(run_copy):
    """The tiny run as an earlier version would have left it."""
    path = run_copy / "config.json"
    config = json.loads(path.read_text())
    for section, names in LATER.items():
        for name in names:
            del config[section][name]
    del config["class_names"], config["augment"]
    path.write_text(json.dumps(config))
    # A scored step had its score beside its arrays, where the best one was kept.
    score = run_copy / "checkpoints" / "2" / "metrics"
    score.mkdir()
    (score / "metrics").write_text('{"fid": 12.5}')
    _keep_first_moments(run_copy / "checkpoints")
    return run_copy


def _keep_first_moments(directory):
    """Saves the newest checkpoint with the first moments of a beta1 of 0: the last gradients."""
    state, step = runs.load_state(directory.parent)
    meta = checkpoint.integrity.read_record(directory / str(step))["meta"]
    shutil.rmtree(directory / str(step))

    def with_moments(player):
        adam, *rest = player.opt_state
        mu = jax.tree.map(lambda x: x + 1, adam.nu)
        full = optax.ScaleByAdamState(adam.count, mu, adam.nu)
        return player.replace(opt_state=(full, *rest))

    players = {name: with_moments(getattr(state, name)) for name in ("generator", "discriminator")}
    checkpoints = checkpoint.Checkpoints(directory)
    checkpoints.save(step, state.replace(**players), meta)
    checkpoints.close()
    assert "generator/opt_state/0/mu/rgb/kernel" in str(
        checkpoint.integrity.read_record(directory / str(step))["arrays"].keys()
    )


def test_it_goes_on_as_it_would_have(earlier, trained, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    g, expected = (load.load_generator(path) for path in (earlier, other))
    z, labels = g.sample_z(0, 4), np.arange(4)
    np.testing.assert_array_equal(g(z, labels), expected(z, labels))
    for workdir in (earlier, other):
        assert runs.train(workdir, "--config.num_steps=5", "--config.keep_checkpoints=1") == 0
    runs.assert_same_state(earlier, other, 5)
    assert runs.metric_lines(earlier) == runs.metric_lines(other)
    assert (earlier / "config.json").read_bytes() == (other / "config.json").read_bytes()
    steps = [checkpoint.Checkpoints(w / "checkpoints").all_steps() for w in (earlier, other)]
    assert steps == [[2, 5], [5]]  # the best one is still kept


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.regularizer.r1=1", "regularizer.r1 0.0 -> 1.0.*--allow-change$"),
        ("--config.augment.policy=ada", "augment.policy none -> ada.*--allow-change$"),
        ("--config.model.attention_form=paper", "attention_form published -> paper.*--workdir$"),
    ],
)
def test_its_rules_are_the_defaults_of_today(earlier, capsys, override, words):
    arguments = ["train", f"--workdir={earlier}", *runs.TINY, "--config.num_steps=5", override]
    assert cli.main(arguments) == 2
    runs.assert_one_error(capsys.readouterr(), words)
