"""A trained generator as one pure function, for programs that run without this package."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import layers
from biggan_jax.sampling.generator import LoadedGenerator


class Portable(NamedTuple):
    """A generator without anything that changes or that only this package understands.

    Attributes:
      function: (z float32 [N, dim_z], labels int32 [N]) -> images float32 [N, R, R, C] in [-1, 1].
      parameters: numbers that it holds.
    """

    function: Callable[[jax.Array, jax.Array], jax.Array]
    parameters: int


def portable(generator: LoadedGenerator) -> Portable:
    """Folds what an evaluation computes from the weights alone into the weights.

    Every weight is divided by its spectral norm, as an evaluation forward takes it; batch norm
    keeps the statistics of the generator's mode. Resampling is written in its plain form, which
    every compiler knows.

    Args:
      generator: in the mode 'running' or 'standing'.

    Returns:
      The function; it computes in float32 whatever the generator's `compute_dtype` is.

    Raises:
      UserError: the mode is 'batch', whose images depend on each other.
    """
    if generator.bn_mode == "batch":
        raise UserError(
            "with --bn-mode batch an image depends on those made with it: export with running or "
            "standing statistics"
        )
    config = generator.config.copy_and_resolve_references()
    with config.unlocked():
        config.model.g_spectral_norm = False
    module, _ = models.build(config.model, dtype=jnp.float32, fused=False)
    variables = folded(generator)

    def function(z: jax.Array, labels: jax.Array) -> jax.Array:
        return module.apply(variables, z, labels, train=False)

    return Portable(function, sum(x.size for x in jax.tree.leaves(variables["params"])))


def folded(generator: LoadedGenerator) -> dict[str, Any]:
    """The variables of a generator, each weight divided by its spectral norm.

    Args:
      generator: in the mode 'running' or 'standing'.

    Returns:
      {params, batch_stats}, of a model with `g_spectral_norm=False`, on the host.
    """
    module, variables = generator.applied
    variables = jax.device_get(variables)
    z, labels = jnp.zeros((1, generator.dim_z)), jnp.zeros(1, jnp.int32)

    def divided(variables: Any) -> dict[str, jax.Array]:
        found = {}

        def keep(call, args, kwargs, context):
            out = call(*args, **kwargs)
            layer = context.module
            if isinstance(layer, layers.SpectralModule) and context.method_name == "normalize":
                found["/".join([*layer.path, layer.weight_name])] = out
            return out

        with nn.intercept_methods(keep):
            module.apply(variables, z, labels, train=False)
        return found

    weights = jax.device_get(jax.jit(divided)(variables))
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    assert weights.keys() <= params.keys(), weights.keys() - params.keys()
    params |= {name: np.asarray(x) for name, x in weights.items()}
    statistics = variables.get("batch_stats", {})
    return {"params": traverse_util.unflatten_dict(params, sep="/"), "batch_stats": statistics}
