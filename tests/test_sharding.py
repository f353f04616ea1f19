"""The mesh and the batch on it."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from biggan_jax import sharding
from biggan_jax.errors import UserError


@pytest.mark.parametrize(("shape", "size"), [((-1,), 8), ((1,), 1), ((3,), 3), ((8,), 8)])
def test_mesh(shape, size):
    mesh = sharding.make_mesh(shape)
    assert mesh.size == size and mesh.axis_names == ("data",)
    assert mesh.axis_types == (AxisType.Auto,)
    assert list(mesh.devices.flat) == jax.devices()[:size]
    assert sharding.make_mesh((-1,), devices=jax.devices()[2:4]).size == 2


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((9,), r"mesh \(9,\) needs 9 devices, but there are 8"),
        ((0,), r"mesh is \(0,\)"),
        ((-2,), r"mesh is \(-2,\)"),
        ((2, 2), r"mesh is \(2, 2\)"),
        ((-1, -1), r"mesh is \(-1, -1\)"),
        ((), r"mesh is \(\)"),
        (("",), r"mesh is \('',\)"),
        ((1.5,), r"mesh is \(1.5,\)"),
    ],
)
def test_bad_mesh(shape, words):
    with pytest.raises(UserError, match=words) as error:
        sharding.make_mesh(shape)
    assert "--config.mesh" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("axis", [0, 1])
def test_global_batch_is_split_over_its_batch(axis):
    mesh = sharding.make_mesh((8,))
    host = {"image": np.arange(16 * 16 * 3).reshape(16, 16, 3), "label": np.ones((16, 16), int)}
    batch = sharding.global_batch(host, mesh, axis=axis)
    for name, array in batch.items():
        np.testing.assert_array_equal(array, host[name])
        assert array.sharding == sharding.over_batch(mesh, axis)
        for i, shard in enumerate(array.addressable_shards):
            part = np.split(host[name], 8, axis=axis)[i]
            np.testing.assert_array_equal(shard.data, part)
            assert shard.device == mesh.devices.flat[i]


def test_constrained_batch_stays_split_under_jit():
    mesh = sharding.make_mesh((8,))
    draw = lambda key: sharding.constrain_batch(jax.random.normal(key, (2, 16)), mesh, axis=1)
    z = jax.jit(draw)(jax.random.key(0))
    assert {shard.data.shape for shard in z.addressable_shards} == {(2, 2)}
    whole = jax.device_put(np.ones(3), sharding.replicated(mesh))
    assert {shard.data.shape for shard in whole.addressable_shards} == {(3,)}
