"""The device mesh, partition specs, and host batches as global arrays.

The batch is split over both axes of the mesh. Under jit a mean over it is a mean over the global
batch, so batch norm is cross-replica without an axis name, and the same program runs on one device
or a thousand. Weights are whole on every device, or split over the axis 'fsdp'.
"""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from biggan_jax.errors import UserError, counts

AXES = ("data", "fsdp")


def make_mesh(shape: tuple[int, ...], devices: list | None = None) -> Mesh:
    """Builds the mesh ('data', 'fsdp').

    Args:
      shape: devices along each axis; one entry may be -1 and takes what is left. A missing last
        entry is 1.
      devices: devices to use; all of them when absent.

    Returns:
      The mesh, with axes of type Auto.

    Raises:
      UserError: when the shape does not fit the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    asked, shape = tuple(shape), (*shape, *[1] * (len(AXES) - len(shape)))
    valid = all(isinstance(n, int) and (n == -1 or n > 0) for n in shape)
    if not asked or not valid or len(shape) != len(AXES) or sum(n == -1 for n in shape) > 1:
        raise UserError(
            f"mesh is {asked}: set --config.mesh to the devices along {AXES}, such as -1,1"
        )
    known = int(np.prod([n for n in shape if n != -1]))
    sizes = tuple(len(devices) // known if n == -1 else n for n in shape)
    if min(sizes) < 1 or int(np.prod(sizes)) > len(devices):
        raise UserError(
            f"mesh {asked} needs {counts(known, 'device', 'devices')}, but there are "
            f"{len(devices)}: set --config.mesh=-1,1 to take them all"
        )
    # Auto, always named: make_mesh now defaults to Explicit axes, which break embeddings and
    # reshapes.
    axis_types = (AxisType.Auto,) * len(AXES)
    used = _devices_of_equal_slices(asked, sizes, devices)
    try:
        ordered = _in_order(sizes, used, split_axes=False)
    except NotImplementedError:
        # No set of the network's axes is as long as an axis of the mesh, such as (32, 2) on 4x4x4.
        ordered = _in_order(sizes, used, split_axes=True)
    return Mesh(ordered, AXES, axis_types=axis_types)


def _devices_of_equal_slices(
    asked: tuple[int, ...], sizes: tuple[int, int], devices: list
) -> list[list]:
    """The devices of a mesh by the slice on which they lie, as many of each.

    Args:
      asked: the shape as the user gave it, for the message.
      sizes: devices along 'data' and 'fsdp'.
      devices: at least as many.

    Raises:
      UserError: when the weights would be split over several slices.
    """
    slices: dict[int, list] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    rows, (data, fsdp) = [slices[i] for i in sorted(slices)], sizes
    if data * fsdp <= len(rows[0]):
        return [rows[0][: data * fsdp]]
    share = data * fsdp // len(rows)
    if data % len(rows) == 0 and all(len(row) >= share for row in rows):
        return [row[:share] for row in rows]
    least = min(map(len, rows))
    inside = max(n for n in range(1, min(fsdp, least) + 1) if least % n == 0)
    raise UserError(
        f"mesh {asked} cannot lie on {len(rows)} slices of {least} devices with every copy of the "
        "weights inside one slice (the network between slices is slow): set "
        f"--config.mesh={len(rows) * (least // inside)},{inside}"
    )


def _in_order(sizes: tuple[int, int], slices: list[list], split_axes: bool) -> np.ndarray:
    """The devices in the order of the mesh, where 'data' alone runs over several slices."""
    kinds = {device.device_kind for row in slices for device in row}
    # As jax.make_mesh does, which knows one slice only.
    split_axes = split_axes or bool(kinds & {"TPU v5 lite", "TPU v5e"})
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(sizes, slices[0], allow_split_physical_axes=split_axes)
    return mesh_utils.create_hybrid_device_mesh(
        (sizes[0] // len(slices), sizes[1]),
        (len(slices), 1),
        [device for row in slices for device in row],
        allow_split_physical_axes=split_axes,
    )


def check_even(mesh: Mesh) -> None:
    """Raises UserError unless every process holds as many devices of the mesh."""
    own = collections.Counter(device.process_index for device in mesh.devices.flat)
    counts = [own[i] for i in range(jax.process_count())]
    if len(set(counts)) > 1:
        raise UserError(
            f"the {mesh.size} devices of the mesh are {counts[0]} of process 0 and "
            f"{next(n for n in counts if n != counts[0])} of another: set --config.mesh=-1,1 to "
            "take all devices, and give every process as many"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of metrics, and of weights without an axis 'fsdp'."""
    return NamedSharding(mesh, P())


def over_weights(x: Any, mesh: Mesh) -> NamedSharding:
    """The sharding of one array of the state: parameters, their moments, their average.

    Matrices and kernels are split over 'fsdp' along their longest axis that it divides; vectors and
    scalars (biases, batch statistics, spectral vectors, counts) stay whole.

    Args:
      x: anything with a `shape`.
      mesh: from `make_mesh`.

    Returns:
      The sharding, `replicated` where nothing of the shape can be split.

    References:
      Rajbhandari et al. 2020, "ZeRO", stage 3.
    """
    n = mesh.shape["fsdp"]
    axes = [i for i, size in enumerate(x.shape) if size % n == 0]
    if n == 1 or len(x.shape) < 2 or not axes:
        return replicated(mesh)
    axis = max(axes, key=lambda i: x.shape[i])
    return NamedSharding(mesh, P(*[None] * axis, "fsdp"))


def gather_weights(tree: Any, mesh: Mesh) -> Any:
    """The whole weights on every device, inside jit.

    To be done once and before they are used: left to itself XLA splits the convolutions' channels
    instead, at 10 times the memory.
    """
    return tree if mesh.shape["fsdp"] == 1 else lax.with_sharding_constraint(tree, replicated(mesh))


def scatter_weights(tree: Any, mesh: Mesh) -> Any:
    """The opposite of `gather_weights`, for gradients."""
    if mesh.shape["fsdp"] == 1:
        return tree
    # Whole first: the split would otherwise spread backwards into the layers, which then exchange
    # partial results of their own. The compiler makes one reduce-scatter of the two where it can.
    tree = lax.with_sharding_constraint(tree, replicated(mesh))
    return jax.tree.map(lambda x: lax.with_sharding_constraint(x, over_weights(x, mesh)), tree)


def over_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of an array whose dimension `axis` is the batch."""
    return NamedSharding(mesh, P(*[None] * axis, AXES))


def constrain_batch(tree: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Keeps dimension `axis` of every array sharded over the batch, inside jit.

    A latent drawn inside a `lax.scan` has no sharding: without this XLA replicates every activation
    (BigGAN-128, batch 2048 on 128 TPU v4 cores: 72 GB of temporaries per core instead of 1.9 GB).
    """
    return lax.with_sharding_constraint(tree, over_batch(mesh, axis))


def copies(tree: Any, mesh: Mesh) -> Any:
    """One copy of the weights for each device, [devices, ...], inside jit.

    What is computed by `by_device` from its own copy has gradients that stay on the device, where
    those of shared weights are summed over all devices as soon as they are there.
    """
    repeat = lambda x: jnp.broadcast_to(x, (mesh.size, *x.shape))
    return constrain_batch(jax.tree.map(repeat, tree), mesh)


def sum_copies(tree: Any, mesh: Mesh) -> Any:
    """The sum of gradients of `copies` over the devices, split as the weights are."""
    return scatter_weights(jax.tree.map(lambda x: x.sum(0), tree), mesh)


def by_device(f: Callable, mesh: Mesh) -> Callable:
    """`f(weights, shared, *batch) -> (outputs, shared)` as each device computes it for its part.

    Args:
      f: a function of weights, of a tree that is the same on all devices, and of examples, which
        returns examples and another tree that is the same on all devices.
      mesh: over which the examples are split.

    Returns:
      The same function, but of the weights' `copies`.
    """

    def own(weights: Any, shared: Any, *batch: Any) -> tuple[Any, Any]:
        return f(jax.tree.map(lambda x: x[0], weights), shared, *batch)

    def call(weights: Any, shared: Any, *batch: Any) -> tuple[Any, Any]:
        return jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(P(AXES), P(), *[P(AXES)] * len(batch)),
            out_specs=(P(AXES), P()),
            check_vma=False,  # that the second output is the same everywhere cannot be inferred
        )(weights, shared, *batch)

    return call


def global_batch(local: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Assembles each process's slice of a host batch into global arrays sharded over `axis`."""
    sharding = over_batch(mesh, axis)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)
