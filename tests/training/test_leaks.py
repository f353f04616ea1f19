"""Leaks of augmentation: what is measured of images, and what the report says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from biggan_jax.config import default_config
from biggan_jax.evaluation import run_page
from biggan_jax.training import augment, leaks, objectives
from tests.evaluation import made_run


def test_statistics_of_a_bright_rectangle():
    image = np.full((1, 16, 16, 3), -1, np.float32)
    image[0, 2:4, 8:16] = [1, 1, 0]
    found = {name: x[0] for name, x in leaks.statistics(jnp.asarray(image)).items()}
    grey = image.mean(3)
    np.testing.assert_allclose(found["brightness"], image.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["contrast"], grey.std(), rtol=1e-5)
    np.testing.assert_allclose(found["tint"], 16 / 256, rtol=1e-5)
    mass = np.clip((grey[0] + 1) / 2, 1e-3, 1).ravel()
    places = (np.indices((16, 16)).reshape(2, -1) + 0.5) / 16 - 0.5
    row, column = np.average(places, axis=1, weights=mass)
    assert row < -0.25 and column > 0.15
    np.testing.assert_allclose([found["row"], found["column"]], [row, column], atol=1e-5)
    high, wide = np.sqrt(np.diag(np.cov(places, aweights=mass, ddof=0)))
    np.testing.assert_allclose(found["elongation"], wide - high, atol=1e-5)
    turned = leaks.statistics(jnp.asarray(image.transpose(0, 2, 1, 3)))
    np.testing.assert_allclose(turned["elongation"][0], -found["elongation"], atol=1e-6)
    assert "tint" not in leaks.statistics(jnp.asarray(image[..., :1]))


@pytest.fixture(scope="module")
def digits():
    """Two halves of the digits, as images and as what a perfect G would give."""
    images = load_digits().images[:1600, ..., None].astype(np.float32) / 8 - 1
    return images[::2], images[1::2]


# A G that has learnt to do what the ops do, and what the report then names.
LEAKS = {
    "none": ({}, None),
    "colour": ({"policy": "diffaugment", "ops": ("colour",)}, "mean brightness"),
    "translation": ({"policy": "diffaugment", "ops": ("translation",)}, "mean brightness"),
    "blit": ({"policy": "ada", "groups": ("blit",), "probability": 1.0}, "width less height"),
}


@pytest.mark.parametrize(
    "name",
    ["none", "blit", *(pytest.param(n, marks=pytest.mark.full) for n in ("colour", "translation"))],
)
def test_the_report_says_when_it_looks_like_a_leak(name, digits, tmp_path):
    settings, words = LEAKS[name]
    real, fake = map(jnp.asarray, digits)
    c = default_config()
    c.augment.policy = "diffaugment"
    c.augment.update(settings)
    if settings:
        fake = jax.jit(augment._transform(c.augment, None))(jax.random.key(0), fake, 1.0)
    game = objectives.of_config(c)
    y, key = jnp.zeros(len(real), jnp.int32), jax.random.key(1)
    metrics = game.d_objective(lambda x, y: x[:, 0, 0, 0], real, y, fake, y, key, 0)[1]
    line = {key: float(value) for key, value in metrics.items()}
    # Early images are far from the data, whatever G does: only the end counts.
    early = {key: 9.0 for key in line if key.startswith("augment/fake")}
    run = made_run.make(tmp_path / "run")
    made_run.jsonl(
        run / "metrics.jsonl",
        [{"step": 1} | line | early, *({"step": k} | line for k in range(8, 11))],
    )
    run_page.write(run)
    text = (run / run_page.PLACE).read_text()
    if words is None:
        assert "No sign of a leak" in text and "looks like a leak of" not in text
    else:
        assert "No sign of a leak" not in text
        assert f"{words} (spread" in text.partition("looks like a leak of")[2]
    assert f"{line['augment/real_row_spread']:.2g}" in text


def test_without_augmentation_nothing_is_said(tmp_path):
    run = made_run.make(tmp_path / "run")
    run_page.write(run)
    assert "leak" not in (run / run_page.PLACE).read_text()
