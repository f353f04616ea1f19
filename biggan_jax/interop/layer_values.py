"""One player of ours, computed layer by layer in the forms in which its layers were recorded."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.interop import causes, views
from biggan_jax.interop.module_names import OUTPUT
from biggan_jax.models import walk


@dataclasses.dataclass(frozen=True)
class Layers:
    """A player, ready to be computed layer by layer.

    Attributes:
      module: in float32, whatever the `compute_dtype` of the run was.
      variables: its collections.
      inputs: (z or images, labels).
      found: the walk over the module for as many samples.
      train: whether batch norm takes the statistics of these samples.
    """

    module: nn.Module
    variables: Any
    inputs: tuple[np.ndarray, np.ndarray]
    found: walk.Walk
    train: bool

    @functools.cached_property
    def calls(self) -> dict[str, walk.Call]:
        """{path: the first call of the module}, in order of execution."""
        first: dict[str, walk.Call] = {}
        for call in self.found.calls:
            first.setdefault("/".join(call.path), call)
        return first

    def compute(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], np.ndarray]:
        """{(path, form): output} of some layers, each for what the layers before it gave."""
        others = sorted((path, form) for path, form in wanted if form != views.AS_IT_IS)
        made, given = self._run(
            [path for path, form in wanted if form == views.AS_IT_IS], [path for path, _ in others]
        )
        found = {(path or OUTPUT, views.AS_IT_IS): x for path, x in made.items()}
        for path, form in others:
            found[path, form] = self._alone(path, form, given[path])
        return jax.device_get(found)

    def given(self, path: str) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
        """(the arrays among the arguments of one layer, its variables), on the host."""
        # No further than this layer: the inputs of all layers at once would fill the memory.
        return jax.device_get((self._run([], [path])[1][path], self._own(path)))

    def _run(self, outputs: list[str], arguments: list[str]) -> tuple[dict, dict]:
        paths = {"outputs": outputs, "arguments": arguments}
        kept = {name: frozenset(map(_path, some)) for name, some in paths.items()}
        with jax.default_matmul_precision("highest"):
            return _values(self.module, self.variables, *self.inputs, **kept, train=self.train)

    def _alone(self, path: str, form: str, given: tuple[jax.Array, ...]) -> jax.Array:
        """One layer in another form than as it is, for what it was given."""
        module = self.calls[path].module
        if form == views.WITHOUT_RESAMPLING:
            module = module.clone(resample="none")
        else:
            x, gain, bias = given
            given = (x, jnp.ones_like(gain), jnp.zeros_like(bias))
        with jax.default_matmul_precision("highest"):
            return causes.applied(module, self._own(path), given, self.train)

    def _own(self, path: str) -> dict[str, Any]:
        found = dataclasses.replace(self.found, variables=self.variables)
        return found.variables_of(self.calls[path])


# One program for all weights of an architecture.
_values = jax.jit(walk.values, static_argnums=0, static_argnames=("outputs", "arguments", "train"))


def _path(text: str) -> tuple[str, ...]:
    return () if text == OUTPUT else tuple(text.split("/"))
