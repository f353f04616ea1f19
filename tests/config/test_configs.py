"""Every file in configs/ builds, trains one step of its test config, and says how to run it."""

import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import config
from biggan_jax.config import config_file
from biggan_jax.parallel import sharding
from biggan_jax.planning import bench
from biggan_jax.training import build as build_lib
from biggan_jax.training import state as state_lib
from biggan_jax.training import step
from tests import runs, small_state
from tests.conftest import FULL

FILES = sorted((runs.ROOT / "configs").glob("*.py"))
# DCGAN's trains its step here and BigGAN's in test_train.py, more in `make test-full`; the others
# take theirs on paper, since compiling the same layers again would tell nothing new.
COMPILED = ("dcgan_cifar10", *(["sagan128", "sngan_cifar10", "biggan_deep512"] if FULL else []))
# Tiny as that of the config of 128 pixels; `test_config_builds` builds them at their own size.
LARGER = ("biggan256", "biggan512", "biggan_deep256", "biggan_deep512")
# Of a family and kind of training whose step another config takes already.
ALIKE = ("cifar10", "digits", "fashion_mnist", "folder", "r3_biggan32", "sngan128")


def files(*longer):
    """Every config; those of these names in `make test-full` alone."""
    full = lambda path: [pytest.mark.full] * (path.stem in longer)
    files = [pytest.param(path, marks=full(path)) for path in FILES]
    return pytest.mark.parametrize("path", files, ids=lambda path: path.stem)


@files()
def test_docstring_and_settings(path):
    doc = runpy.run_path(str(path))["__doc__"]
    assert re.search(rf"biggan train --config {path.stem} --workdir \S+", doc)
    assert "Hardware" in doc
    for override in re.findall(r"--config\.([\w.]+)=", doc):
        assert override in config.flatten(config.default_config()), override


@files("biggan512", "biggan_deep256", "biggan_deep512")
def test_config_builds(path):
    """At full size, without computing anything; by the loader of the command line too."""
    c = config_file.load(str(path), [])
    assert c.data.source is not None
    if c.model.num_classes is None:
        c.model.num_classes = 10
    config.validate(c, 1)
    train_step = build_lib.train_step(c, sharding.make_mesh((1,)))
    state = state_lib.abstract(train_step.init)
    size = c.model.resolution
    shape = (2, size, size, c.model.channels)
    g, z, labels = train_step.generator, jnp.zeros((2, c.model.dim_z)), jnp.zeros(2, jnp.int32)
    images = jax.eval_shape(g.apply, state.ema.variables, z, labels)
    assert images.shape == shape and images.dtype == jnp.float32


@files(*LARGER, *ALIKE)
def test_test_config_trains_one_step(path):
    """For real, or on paper (`COMPILED`)."""
    c = runpy.run_path(str(path))["get_test_config"]()
    if c.model.num_classes is None:
        c.model.num_classes = 10
    full = config.flatten(runpy.run_path(str(path))["get_config"]())
    assert full["model.name"] == c.model.name
    # Equal where compiling the plan is cheap; `test_config_builds` sees all at their full size.
    assert c.model.resolution in (full["model.resolution"], 32, 16)
    assert c.data.source == "digits" and not c.tensorboard and c.num_steps <= 4
    config.validate(c, 1)
    train_step = build_lib.train_step(c, sharding.make_mesh((1,)))
    if path.stem not in COMPILED:
        batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, bench.synthetic_batch(c)))
        state = state_lib.abstract(train_step.init)
        after, metrics = jax.eval_shape(train_step.train_step, state, batch)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert all(value.shape == () for value in metrics.values())
        return
    state = small_state.cheap_state(train_step)
    batch = sharding.global_batch(bench.synthetic_batch(c), train_step.mesh, axis=1)
    before = np.asarray(state.generator.params["rgb"]["kernel"])
    state, metrics = step.jit_train_step(train_step)(state, batch)
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    assert state.step == 1
    assert not np.array_equal(before, state.generator.params["rgb"]["kernel"])
