"""The memory of a step on paper."""

import jax
import jax.numpy as jnp
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.planning import estimate
from biggan_jax.training import build as build_lib
from tests import runs


def footprint(*overrides):
    config = runs.tiny_config("--config.model.num_classes=10", *overrides)
    return estimate.footprint(build_lib.train_step(config, sharding.make_mesh((1,))))


@pytest.mark.full
def test_of_a_tiny_step(trained):
    """The state is what a checkpoint holds; the rest follows the batch and the precision."""
    found = footprint()
    state, _ = runs.load_state(trained, 4)
    arrays = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.number)]
    assert found.state == sum(x.nbytes for x in arrays)
    players = (state.generator.params, state.discriminator.params)
    assert found.gradients == max(sum(x.nbytes for x in jax.tree.leaves(p)) for p in players)
    assert footprint("--config.remat=('all',)").per_image < 0.6 * found.per_image
    half = footprint("--config.compute_dtype=bfloat16").per_image / found.per_image
    assert 0.45 < half < 0.8  # softmax and losses stay in float32


@pytest.mark.full
def test_groups_of_batch_norm_that_divide_the_batch_of_a_run():
    assert footprint("--config.bn_group_size=4").per_image == footprint().per_image


def test_on_a_device():
    config = runs.tiny_config("--config.batch_size=16", "--config.accumulation_steps=2")
    footprint = estimate.Footprint(state=1000, gradients=200, per_image=10)
    assert footprint.on_device(config, sharding.make_mesh((1,))) == 1200 + 10 * 8
    assert footprint.on_device(config, sharding.make_mesh((2, 2))) == 600 + 10 * 2


@pytest.mark.full
def test_a_compiled_step_is_up_to_twice_as_large():
    from biggan_jax.planning import bench
    from biggan_jax.training import state as state_lib
    from biggan_jax.training import step

    config = runs.tiny_config("--config.model.num_classes=10", "--config.model.ch=16")
    train_step = build_lib.train_step(config, sharding.make_mesh((1,)))
    on_paper = estimate.footprint(train_step).on_device(config, train_step.mesh)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, bench.synthetic_batch(config)))
    state = state_lib.abstract(train_step.init, train_step.mesh)
    memory = step.jit_train_step(train_step).lower(state, batch).compile().memory_analysis()
    compiled = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    assert on_paper < compiled < 2 * on_paper
