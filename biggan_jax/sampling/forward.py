"""Forwards of a trained network over all local devices of this process.

The weights lie on every device, and the batch is split over them. One program serves every network
of the same architecture, whatever its weights are.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from biggan_jax.errors import UserError
from biggan_jax.models import layers
from biggan_jax.parallel import compiler_options

AXIS = "batch"
BATCH_SIZE = 64  # examples of one forward
ATTENTION_BATCH_SIZE = 8  # the maps of one 256-pixel sample (128 x 128 queries) take 268 MB


def place(variables: Any) -> Any:
    """Puts weights on every device, to be used by any number of forwards."""
    return jax.device_put(variables, NamedSharding(_mesh(), P()))


def as_float32(x: Any, name: str) -> np.ndarray:
    """An input of a network as float32; UserError, with its name, where it is no finite array."""
    if x is None or np.iscomplexobj(x):  # which NumPy makes NaN, or takes the real part of
        raise UserError(f"{name} cannot be made an array of floats: of type {type(x).__name__}")
    try:
        x = np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be made an array of floats: {error}") from error
    if not np.isfinite(x).all():
        raise UserError(f"{name} hold NaN or infinity")
    return x


def rounded(batch_size: int) -> int:
    """The least number of examples from `batch_size` on that the devices divide evenly."""
    devices = _mesh().size
    return -(-batch_size // devices) * devices


def call(
    module: nn.Module,
    variables: Any,
    *inputs: np.ndarray,
    train: bool = False,
    collections: tuple[str, ...] = (),
) -> tuple[jax.Array, dict[str, Any]]:
    """Computes one forward.

    Args:
      module: a player as `models.build` gives it.
      variables: its weights, from `place`.
      *inputs: arrays [B, ...]. They are split over the devices where these divide B; otherwise
        every device computes all of it.
      train: whether batch statistics are taken, over all of B.
      collections: what the layers sow and shall be returned, such as 'attention'.

    Returns:
      (outputs [B, ...], collections), still being computed.
    """
    even = len(inputs[0]) % _mesh().size == 0
    put = jax.device_put(inputs, NamedSharding(_mesh(), P(AXIS) if even else P()))
    return _jitted(apply)(module, variables, *put, train=train, collections=collections)


def between(
    module: nn.Module,
    variables: Any,
    z: np.ndarray,
    labels: np.ndarray,
    others: np.ndarray,
    weights: np.ndarray,
    *,
    train: bool = False,
    collections: tuple[str, ...] = (),
) -> tuple[jax.Array, dict[str, Any]]:
    """Computes one forward of a generator between two classes.

    Args:
      module, variables, train, collections: see `call`.
      z: latents [B, dim_z].
      labels, others: class ids [B].
      weights: of `others` [B], float32; 0 gives `labels` alone.

    Returns:
      See `call`.
    """
    inputs = z, labels, others, weights
    even = len(z) % _mesh().size == 0
    put = jax.device_put(inputs, NamedSharding(_mesh(), P(AXIS) if even else P()))
    return _jitted(_between)(module, variables, *put, train=train, collections=collections)


def ahead(
    batches: Iterable[tuple], compute: Callable[..., Any]
) -> Iterator[tuple[np.ndarray, Any]]:
    """Computes each batch while the one before it is copied to the host.

    Args:
      batches: tuples (indices [n], arrays [B, ...] of which the first n rows count).
      compute: a function of these arrays that returns a tree of arrays [B, ...].

    Yields:
      (indices, the tree on the host, [n, ...]).
    """
    running = None
    for index, *arrays in batches:
        following = index, compute(*arrays)
        if running is not None:
            yield _finished(*running)
        running = following
    if running is not None:
        yield _finished(*running)


def gammas(variables: dict) -> dict[str, float]:
    """{layer: gamma} of the self-attention blocks of a player's variables."""
    layers = variables["params"].items()
    return {name: float(p["gamma"]) for name, p in layers if isinstance(p, dict) and "theta" in p}


def attention_maps(sown: dict[str, Any]) -> dict[str, jax.Array]:
    """{layer: [B, Q, K]} of what the attention layers sowed."""
    return {layer: beta["map"][0] for layer, beta in sown.get("attention", {}).items()}


def _finished(index: np.ndarray, tree: Any) -> tuple[np.ndarray, Any]:
    return index, jax.tree.map(lambda x: np.asarray(x)[: len(index)], tree)


@functools.cache
def _mesh() -> Mesh:
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def apply(
    module: nn.Module,
    variables: Any,
    *inputs: jax.Array,
    train: bool = False,
    collections: tuple[str, ...] = (),
) -> tuple[jax.Array, dict[str, Any]]:
    """The function that `call` compiles; its arguments are the same."""
    # A static argument: two modules of one architecture are equal, and share their programs.
    mutable = sorted({*collections, *(("spectral", "batch_stats") if train else ())})
    return module.apply(variables, *inputs, train=train, mutable=mutable)


def _between(module, variables, z, labels, others, weights, **settings):
    """Every table of classes gives the weighted mean of two of its rows."""

    def mixed(call, args, kwargs, context):
        if not isinstance(context.module, layers.Embed) or context.method_name != "__call__":
            return call(*args, **kwargs)
        _, *rest = args
        # One lookup of both: a module makes its parameters once.
        rows = call(jnp.concatenate([labels, others]), *rest, **kwargs)
        one, other = jnp.split(rows, 2)
        share = weights[:, None].astype(rows.dtype)
        return (1 - share) * one + share * other

    with nn.intercept_methods(mixed):
        return apply(module, variables, z, labels, **settings)


@functools.cache
def _jitted(function: Callable) -> Callable:
    # Not at the import: the options depend on the backend, which nobody has chosen by then.
    return jax.jit(
        function,
        static_argnames=("module", "train", "collections"),
        compiler_options=compiler_options.of_network(),
    )
