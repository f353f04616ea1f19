"""That a run learns: its samples come to show the digits that were asked for, in many hands."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import SVC

from biggan_jax import cli, data
from biggan_jax.sampling import load
from tests import runs

# Higher rates, a faster second moment and half the width of configs/digits.py, for a short run.
SHORT = (
    "--config.num_steps=260",
    "--config.model.ch=8",
    "--config.optimizer.g_lr=2e-3",
    "--config.optimizer.d_lr=2e-3",
    "--config.optimizer.beta2=0.99",
    "--config.ema.decay=0.9",
)
PER_CLASS = 40


class Judge:
    """A support vector machine fitted on the real digits; nothing of it is this library's."""

    def __init__(self):
        source = data.open_source("digits", resolution=16, channels=1)
        images, self.labels = source.read(range(len(source)))
        self.images = images / 127.5 - 1
        self.svm = SVC().fit(self.images.reshape(len(images), -1), self.labels)

    def __call__(self, workdir: Path) -> tuple[float, float]:
        """Judges the averaged generator of a run.

        Returns:
          (share of its samples that show the class asked for, spread of its classes relative to
          that of the real ones: the mean over pixels and classes of the standard deviation).
        """
        generator = load.load_generator(workdir)
        asked = np.repeat(np.arange(10, dtype=np.int32), PER_CLASS)
        images = np.asarray(generator(generator.sample_z(0, len(asked)), asked))
        seen = self.svm.predict(images.reshape(len(asked), -1))
        spread = self._spread(images, asked) / self._spread(self.images, self.labels)
        return float(np.mean(seen == asked)), spread

    @staticmethod
    def _spread(images: np.ndarray, labels: np.ndarray) -> float:
        return float(np.mean([images[labels == k].std(axis=0).mean() for k in range(10)]))


@pytest.fixture(scope="module")
def judge():
    return Judge()


def train(workdir: Path, *overrides: str) -> None:
    quiet = ("log_every_steps=50", "tensorboard=False", "mesh=(1,)",
             "checkpoint_every_steps=10000", "sample_every_steps=10000")  # fmt: skip
    argv = ["train", f"--config={runs.DIGITS}", f"--workdir={workdir}"]
    assert cli.main([*argv, *(f"--config.{setting}" for setting in quiet), *overrides]) == 0


@pytest.mark.full
def test_a_short_run_learns_the_classes(tmp_path, judge):
    """Chance is 0.1. Seeds 0 to 2 end above 0.9 and 0.5 after 240 steps already."""
    train(tmp_path, *SHORT, "--config.num_steps=1")
    assert judge(tmp_path)[0] < 0.25
    train(tmp_path, *SHORT)
    accuracy, spread = judge(tmp_path)
    assert accuracy > 0.7
    assert 0.2 < spread < 1.1  # neither one picture of each class nor noise


@pytest.mark.full
def test_the_digits_config_learns_the_classes_and_their_spread(tmp_path, judge):
    """The demo as it ships, on one device."""
    train(tmp_path)
    accuracy, spread = judge(tmp_path)
    assert accuracy > 0.97
    assert 0.65 < spread < 1.1
