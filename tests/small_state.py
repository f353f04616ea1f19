"""Training states that cost little: one with every kind of leaf, and a random one of any model."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.digest import digests
from biggan_jax.training import state as state_lib
from biggan_jax.training.step import TrainStep


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: Any
    ema: dict
    images_seen: int


def make_state(seed: int = 0) -> State:
    key = jax.random.key(seed)
    params = {
        "conv": {"kernel": jax.random.normal(key, (3, 3, 16, 32)), "bias": jnp.zeros(32)},
        "half": jax.random.normal(key, (8, 8)).astype(jnp.bfloat16),
        "flags": jnp.arange(16) % 3 == 0,
        "noise": jax.random.bits(key, (32, 32)),  # incompressible: lies on the disk as it is
    }
    ema = {"params": jax.tree.map(jnp.copy, params), "empty": {}, "none": None}
    opt_state = optax.adam(1e-3).init(params["conv"])
    return State(jnp.asarray(seed, jnp.int32), key, params, opt_state, ema, 10_000_000_000 + seed)


def target_of(state: Any) -> Any:
    """What restores a state: a `jax.ShapeDtypeStruct`, sharding included, for every jax.Array."""

    def struct(x):
        if not isinstance(x, jax.Array):
            return x
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(struct, state)


def cheap_state(train_step: TrainStep) -> state_lib.GANState:
    """A training state of random numbers: compiling the init takes longer than the step."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if "opt_state" in name or leaf.dtype == jnp.int32:
            return np.zeros(leaf.shape, leaf.dtype)
        if "'var'" in name:
            return np.ones(leaf.shape, leaf.dtype)
        return (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    shapes = state_lib.abstract(train_step.init)
    state = jax.tree_util.tree_map_with_path(fill, shapes)
    return jax.device_put(state, state_lib.shardings(train_step.init, train_step.mesh))


def on_mesh(state: Any, axis: int | None) -> Any:
    """Puts a state on 8 devices, its axis `axis` (counted from the end) split where it divides."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def put(x):
        if not isinstance(x, jax.Array):
            return x
        spec = [None] * x.ndim
        if axis is not None and x.ndim >= axis and x.shape[-axis] % 8 == 0:
            spec[-axis] = "data"
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, state)


def assert_same(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert digests(got) == digests(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def data_file(step: Path) -> Path:
    """The largest file of arrays of a checkpoint."""
    files = [p for p in Path(step, "state").rglob("d/*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def truncate(step: Path) -> None:
    path = data_file(step)
    os.truncate(path, path.stat().st_size // 2)


def zero_64_bytes(step: Path) -> None:
    """Zeroes a piece of `params/noise`, which Orbax restores without a word."""
    noise = np.asarray(make_state(int(step.name)).params["noise"]).tobytes()
    for path in Path(step, "state").rglob("d/*"):
        data = path.read_bytes()
        while (at := data.find(noise[1024:1088])) >= 0:
            data = data[:at] + bytes(64) + data[at + 64 :]
            path.write_bytes(data)


def spoil_index(step: Path) -> None:
    (step / "state" / "_METADATA").write_text("{")


def spoil_record(step: Path) -> None:
    path = step / "meta" / "metadata"
    path.write_text(path.read_text().replace('"images": 2', '"images": 3'))


def remove_record(step: Path) -> None:
    (step / "meta" / "metadata").unlink()


def save_two_steps(directory: Path) -> Checkpoints:
    """A run with checkpoints 1 and 2, which keeps two."""
    checkpoints = Checkpoints(directory, keep_latest=2)
    for step in (1, 2):
        assert checkpoints.save(step, make_state(step), {"images": step})
    checkpoints.close()
    return checkpoints
