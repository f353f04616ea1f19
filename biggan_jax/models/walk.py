"""The one walk over the modules of a player: every call in order, as shapes or as values."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of one module.

    Attributes:
      module: the module, detached from its player (it can be applied on its own).
      path: its names in the parameter tree, from the top; one name for a top-level module.
      inputs: shapes of the arrays among its positional arguments.
      output: shape of what it returned.
    """

    module: nn.Module
    path: tuple[str, ...]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    output: jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes:
      calls: every call of a module below the player, in the order in which they returned: what is
        inside a module comes before the module itself.
      variables: shapes of the player's variables, {collection: tree}.
    """

    calls: list[Call]
    variables: dict[str, Any]

    def top_level(self) -> list[Call]:
        """The first call of every top-level module, in order."""
        first: dict[tuple[str, ...], Call] = {}
        for call in self.calls:
            if len(call.path) == 1:
                first.setdefault(call.path, call)
        return list(first.values())

    def variables_of(self, call: Call) -> dict[str, Any]:
        """Shapes of the variables of one module, {collection: tree}, as its `apply` takes them."""
        found = {}
        for collection, tree in self.variables.items():
            for name in call.path:
                tree = tree.get(name, {})
            if tree:
                found[collection] = tree
        return found


def of_generator(generator: nn.Module, batch: int = 1) -> Walk:
    """Walks over an unbound generator, from z to the image, for `batch` examples."""
    return walk(generator, *generator_inputs(generator, batch))


def of_discriminator(discriminator: nn.Module, channels: int, batch: int = 1) -> Walk:
    """Walks over an unbound discriminator, from the image to the logit, for `batch` examples."""
    return walk(discriminator, *discriminator_inputs(discriminator, channels, batch))


def generator_inputs(generator: nn.Module, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of (z, labels)."""
    z = jax.ShapeDtypeStruct((batch, generator.dim_z), jnp.float32)
    return z, jax.ShapeDtypeStruct((batch,), jnp.int32)


def discriminator_inputs(
    discriminator: nn.Module, channels: int, batch: int
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of (images, labels)."""
    size = discriminator.resolution
    images = jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)
    return images, jax.ShapeDtypeStruct((batch,), jnp.int32)


def walk(player: nn.Module, *inputs: jax.ShapeDtypeStruct) -> Walk:
    """Walks over any module, by tracing its `init` with these inputs.

    Args:
      player: unbound.
      *inputs: shapes of the arguments of its call.
    """
    calls: list[Call] = []

    def keep(module, args, out):
        if module.path:
            inputs = tuple(_shape(x) for x in args if isinstance(x, jax.Array))
            alone = module.clone(parent=None, name=None)
            calls.append(Call(alone, module.path, inputs, _shape(out)))

    def forward(key, *inputs):
        return _watched(keep, player.init, key, *inputs)

    variables = jax.eval_shape(forward, jax.random.key(0), *inputs)
    return Walk(calls, dict(variables))


def values(
    player: nn.Module,
    variables: Any,
    *inputs: jax.Array,
    outputs: Collection[tuple[str, ...]],
    arguments: Collection[tuple[str, ...]] = (),
    train: bool = False,
) -> tuple[dict[str, jax.Array], dict[str, tuple[jax.Array, ...]]]:
    """Computes a forward and keeps what some of its modules gave, and what some were given.

    Args:
      player: unbound.
      variables: its collections; none of them is changed.
      *inputs: arguments of its call.
      outputs: paths of the modules whose output is kept; () is the player itself.
      arguments: paths of those whose positional arguments are kept, the arrays among them.
      train: whether it is a training forward.

    Returns:
      ({path, joined by '/': output}, {path, joined by '/': arguments}), of the first call of each
      module.
    """
    made: dict[str, jax.Array] = {}
    given: dict[str, tuple[jax.Array, ...]] = {}

    def keep(module, args, out):
        name = "/".join(module.path)
        if module.path in outputs:
            made.setdefault(name, out)
        if module.path in arguments:
            given.setdefault(name, tuple(x for x in args if isinstance(x, jax.Array)))

    # A training forward advances these two.
    mutable = ["spectral", "batch_stats"]
    _watched(keep, player.apply, variables, *inputs, train=train, mutable=mutable)
    return made, given


def _watched(keep: Callable[..., None], run: Callable, *args, **kwargs) -> Any:
    """What `run` gives; `keep(module, args, out)` sees every call of a module in it."""

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            keep(context.module, args, out)
        return out

    with nn.intercept_methods(record):
        return run(*args, **kwargs)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
