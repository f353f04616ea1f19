"""The device mesh, partition specs, and host batches as global arrays.

Under jit a mean over the sharded batch is a mean over the global batch, so batch norm is
cross-replica without an axis name, and the same program runs on one device or a thousand.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from biggan_jax.errors import UserError

AXES = ("data",)


def make_mesh(shape: tuple[int, ...] = (-1,), devices: list | None = None) -> Mesh:
    """Builds the mesh ('data',).

    Args:
      shape: devices along each axis; one entry may be -1 and takes what is left.
      devices: devices to use; all of them when absent.

    Raises:
      UserError: when the shape does not fit the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    valid = all(isinstance(n, int) and (n == -1 or n > 0) for n in shape)
    if not valid or len(shape) != len(AXES) or sum(n == -1 for n in shape) > 1:
        raise UserError(
            f"mesh is {tuple(shape)}: set --config.mesh to one size for {AXES}, such as (-1,)"
        )
    known = int(np.prod([n for n in shape if n != -1]))
    sizes = tuple(len(devices) // known if n == -1 else n for n in shape)
    if min(sizes) < 1 or int(np.prod(sizes)) > len(devices):
        raise UserError(
            f"mesh {tuple(shape)} needs {known} devices, but there are {len(devices)}: set "
            "--config.mesh=(-1,) to take them all"
        )
    count = int(np.prod(sizes))
    # Auto, always named: make_mesh now defaults to Explicit axes, which break embeddings and
    # reshapes.
    axis_types = (AxisType.Auto,) * len(AXES)
    slice_of = lambda device: getattr(device, "slice_index", None) or 0
    if len({slice_of(d) for d in devices[:count]}) > 1:
        # jax.make_mesh refuses several slices: one after another along the first axis, so that
        # whatever else is sharded stays inside one.
        ordered = np.array(sorted(devices[:count], key=slice_of)).reshape(sizes)
        return Mesh(ordered, AXES, axis_types=axis_types)
    return jax.make_mesh(sizes, AXES, axis_types=axis_types, devices=devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, optimizer state and metrics."""
    return NamedSharding(mesh, P())


def over_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of an array whose dimension `axis` is the batch."""
    return NamedSharding(mesh, P(*[None] * axis, "data"))


def constrain_batch(tree: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Keeps dimension `axis` of every array sharded over the batch, inside jit.

    A latent drawn inside a `lax.scan` has no sharding: without this XLA replicates every activation
    (BigGAN-128, batch 2048 on 128 TPU v4 cores: 72 GB of temporaries per core instead of 1.9 GB).
    """
    return jax.lax.with_sharding_constraint(tree, over_batch(mesh, axis))


def global_batch(local: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Assembles each process's slice of a host batch into global arrays sharded over `axis`."""
    sharding = over_batch(mesh, axis)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)
