"""The mesh and the batch on it."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((-1, 1), (8, 1)),
        ((-1, 2), (4, 2)),
        ((2, 4), (2, 4)),
        ((1, -1), (1, 8)),
        ((3, 1), (3, 1)),
        ((-1,), (8, 1)),  # a missing last entry is 1
        ((1,), (1, 1)),
    ],
)
def test_mesh(shape, sizes):
    mesh = sharding.make_mesh(shape)
    size = sizes[0] * sizes[1]
    assert mesh.shape == dict(zip(("data", "fsdp"), sizes, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 2
    assert list(mesh.devices.flat) == jax.devices()[:size]
    assert sharding.make_mesh((-1,), devices=jax.devices()[2:4]).size == 2


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((9,), r"mesh \(9,\) needs 9 devices, but there are 8"),
        ((0,), r"mesh is \(0,\)"),
        ((-2,), r"mesh is \(-2,\)"),
        ((2, 2, 2), r"mesh is \(2, 2, 2\)"),
        ((4, 4), r"mesh \(4, 4\) needs 16 devices, but there are 8"),
        ((-1, 0), r"mesh is \(-1, 0\)"),
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


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh asks of a device."""

    id: int
    slice_index: int = 0
    coords: tuple[int, int, int] = (0, 0, 0)
    platform: str = "cpu"
    device_kind: str = "cpu"
    process_index: int = 0
    core_on_chip: int = 0


def on_slices(*counts: int) -> list[Device]:
    """Devices of several slices, one of each in turn, as no mesh wants them."""
    found = [(k, i) for i, count in enumerate(counts) for k in range(count)]
    return [Device(10 * i + k, slice_index=i) for k, i in sorted(found)]


@pytest.mark.parametrize(
    ("counts", "shape", "sizes"),
    [
        ((4, 4), (-1, 1), (8, 1)),
        ((4, 4), (-1, 2), (4, 2)),
        ((4, 4), (2, -1), (2, 4)),
        ((4, 4), (4, 1), (4, 1)),  # one slice has them
        ((4, 4), (6, 1), (6, 1)),  # three of each
        ((2, 2, 2), (3, 2), (3, 2)),
    ],
)
def test_weights_stay_within_a_slice(counts, shape, sizes):
    mesh = sharding.make_mesh(shape, devices=on_slices(*counts))
    assert mesh.devices.shape == sizes and mesh.axis_types == (AxisType.Auto,) * 2
    assert mesh.axis_names == ("data", "fsdp")
    slices = [[device.slice_index for device in row] for row in mesh.devices]
    assert all(len(set(row)) == 1 for row in slices)  # a row holds one copy of the weights
    firsts = [row[0] for row in slices]
    assert firsts == sorted(firsts)
    assert len({firsts.count(i) for i in firsts}) == 1  # as many of each slice
    assert len({device.id for device in mesh.devices.flat}) == mesh.size


@pytest.mark.parametrize(
    ("counts", "shape", "words", "remedy"),
    [
        ((4, 4), (1, -1), r"mesh \(1, -1\) cannot lie on 2 slices of 4 devices", (2, 4)),
        ((4, 4), (-1, 8), r"mesh \(-1, 8\)", (2, 4)),
        ((4, 4), (3, 2), r"mesh \(3, 2\)", (4, 2)),
        ((6, 6), (-1, 4), r"2 slices of 6", (4, 3)),
        ((5, 3), (-1, 1), r"2 slices of 3", (6, 1)),
    ],
)
def test_weights_that_would_not_are_refused(counts, shape, words, remedy):
    devices = on_slices(*counts)
    with pytest.raises(UserError, match=words) as error:
        sharding.make_mesh(shape, devices=devices)
    said = str(error.value)
    assert said.endswith(f"set --config.mesh={remedy[0]},{remedy[1]}") and "\n" not in said
    assert sharding.make_mesh(remedy, devices=devices).devices.shape == remedy


@pytest.mark.parametrize("slices", [1, 2])
def test_an_axis_of_the_torus_may_be_split(slices):
    """4 x 4 x 4 chips have no axis, or set of axes, of two or of eight."""
    torus = [(x, y, z) for z in range(4) for y in range(4) for x in range(4)]
    devices = [
        Device(64 * i + k, i, coords, "tpu", "TPU v4")
        for i in range(slices)
        for k, coords in enumerate(torus)
    ]
    for n in (2, 8):
        mesh = sharding.make_mesh((-1, n), devices=devices)
        assert mesh.devices.shape == (64 * slices // n, n)
        assert {device.id for device in mesh.devices.flat} == {device.id for device in devices}
        for row in mesh.devices:
            assert len({device.slice_index for device in row}) == 1
            # Neighbours: a row of two lies along one axis, one of eight in a box.
            extent = np.ptp([device.coords for device in row], axis=0)
            assert np.prod(extent + 1) == n


@pytest.mark.parametrize("axis", [0, 1])
def test_global_batch_is_split_over_its_batch(axis):
    mesh = sharding.make_mesh((4, 2))  # over both axes
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


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 16, 32), (None, None, None, "fsdp")),
        ((3, 3, 32, 16), (None, None, "fsdp")),
        ((1, 1, 6, 8), (None, None, None, "fsdp")),
        ((10, 6), ()),  # 4 divides neither
        ((64,), ()),
        ((), ()),
    ],
)
def test_weights_are_split_along_their_longest_axis_that_divides(shape, spec):
    mesh = sharding.make_mesh((2, 4))
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    assert sharding.over_weights(leaf, mesh).spec == jax.sharding.PartitionSpec(*spec)
    assert sharding.over_weights(leaf, sharding.make_mesh((8, 1))).is_fully_replicated


def test_weights_gathered_and_scattered_are_the_same_numbers():
    mesh = sharding.make_mesh((2, 4))
    kernel = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
    placed = jax.device_put(kernel, sharding.over_weights(kernel, mesh))
    whole = jax.jit(lambda w: sharding.gather_weights(w, mesh))(placed)
    part = jax.jit(lambda w: sharding.scatter_weights(w, mesh))(whole)
    assert {s.data.shape for s in placed.addressable_shards} == {(8, 3)}
    assert {s.data.shape for s in whole.addressable_shards} == {(8, 12)}
    assert {s.data.shape for s in part.addressable_shards} == {(8, 3)}
    np.testing.assert_array_equal(part, kernel)
