"""What users write against the public interface, as a type checker sees it: `make lint` checks it.

Nothing here runs. A signature that loses its types, or takes less than the docs promise, fails.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
from ml_collections import ConfigDict

from biggan_jax import default_config, evaluate, load_discriminator, load_generator, train
from biggan_jax.metrics import scores


def samples(directory: Path) -> np.ndarray:
    g = load_generator(directory, step="best", ema="decay_0.999", bn_mode="standing")
    z = g.sample_z(seed=0, n=10, truncation=0.5)
    assert_type(z, np.ndarray)
    assert_type(g(z, labels=range(10)), np.ndarray)  # as the README has it
    assert_type(g.attention(z, labels=[0] * 10), dict[str, np.ndarray])
    g.set_bn_mode("running")
    return g(z.tolist(), g.labels("cat,dog"))


def judged(directory: str, images: np.ndarray) -> np.ndarray:
    d = load_discriminator(directory, step=1000)
    assert_type(d.attention(images, (1, 2)), dict[str, np.ndarray])
    return d(images, range(10))


def trained(workdir: str) -> float:
    config = default_config()
    assert_type(config, ConfigDict)
    assert_type(train(config, workdir, allow_change=True), dict[str, Any])
    result = evaluate(Path(workdir), truncations=(None, 0.5), sweep_ema=False)
    assert_type(result, dict[str, Any])
    return result["scores"]["fid"]


def scored(real: np.ndarray, fake: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    mu, sigma = fake.mean(0), np.cov(fake, rowvar=False)
    assert_type(scores.frechet_distance(mu, sigma, mu, sigma), float)
    assert_type(scores.inception_score(logits, splits=10), dict[str, float])
    assert_type(scores.kernel_distance(real, fake), dict[str, float])
    assert_type(scores.density_coverage(real, fake, k=5), dict[str, float])
    return scores.precision_recall(real, fake, k=3)
