"""The one walk over the modules of a player: every call in order, as shapes, nothing computed."""

import dataclasses
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

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        module = context.module
        if module.path and context.method_name == "__call__":
            inputs = tuple(_shape(x) for x in args if isinstance(x, jax.Array))
            alone = module.clone(parent=None, name=None)
            calls.append(Call(alone, module.path, inputs, _shape(out)))
        return out

    def forward(key, *inputs):
        with nn.intercept_methods(record):
            return player.init(key, *inputs)

    variables = jax.eval_shape(forward, jax.random.key(0), *inputs)
    return Walk(calls, dict(variables))


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
