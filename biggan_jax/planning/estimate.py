"""Memory and FLOPs of a training step on paper: nothing is compiled, so it takes seconds."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.models import walk
from biggan_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes that a training step keeps.

    Attributes:
      state: both players, their optimizers and the average.
      gradients: of the larger player.
      per_image: activations that the backward pass of the larger update keeps of each image.
    """

    state: int
    gradients: int
    per_image: int

    def on_device(self, config: ConfigDict, mesh: Mesh) -> int:
        """What one device keeps: state, gradients and the activations of a microbatch.

        XLA's compiled steps on CPUs were measured 1.2 to 1.6 times as large: it works in more than
        what the backward pass keeps.

        Args:
          config: its `batch_size` and `accumulation_steps` say how large a microbatch is.
          mesh: of the run.
        """
        weights = (self.state + self.gradients) // mesh.shape.get("fsdp", 1)
        microbatch = -(-config.batch_size // (mesh.size * config.accumulation_steps))
        return weights + self.per_image * microbatch


def footprint(train_step: TrainStep) -> Footprint:
    """Estimates the memory of a step.

    Args:
      train_step: the bound step.

    Returns:
      The bytes. Activations are the residuals of the reverse mode, counted for one and for two
      examples, so that the weights among them cancel.
    """
    state = jax.eval_shape(train_step.init, jax.random.key(0))
    players = [_bytes(state.generator.params), _bytes(state.discriminator.params)]
    g, d = train_step.generator, train_step.discriminator
    # Groups divide the batch of a run, and need not divide one example.
    g = g.clone(settings=dataclasses.replace(g.settings, bn_group_size=None))

    def of_g(batch: int) -> int:
        player, inputs = state.generator, walk.generator_inputs(g, batch)
        return _residuals(g, player.variables, ["spectral", "batch_stats"], *inputs)

    def of_d(batch: int) -> int:
        player, inputs = state.discriminator, walk.discriminator_inputs(d, g.channels, batch)
        return _residuals(d, player.variables, ["spectral"], *inputs)

    g_image, d_image = of_g(2) - of_g(1), of_d(2) - of_d(1)
    # G's update goes back through D and G; D's sees as many real images as generated ones.
    return Footprint(_bytes(state), max(players), d_image + max(g_image, d_image))


def flops_per_image(train_step: TrainStep) -> float:
    """Estimates the FLOPs of a step for each image of the batch.

    Only products with weights are counted, in the textbook order of resampling and convolution:
    `summary.step_flops`, which takes longer, found 0.6 to 1 times as many.

    Args:
      train_step: the bound step.
    """
    g, d = train_step.generator, train_step.discriminator
    forward_g = _forward_flops(walk.of_generator(g))
    forward_d = _forward_flops(walk.of_discriminator(d, g.channels))
    # A backward pass of weights and inputs costs two forward passes, of inputs alone one.
    of_d_step = forward_g + 3 * 2 * forward_d
    return train_step.num_d_steps * of_d_step + 3 * forward_g + 2 * forward_d


def _forward_flops(found: walk.Walk) -> float:
    total = 0.0
    for call in found.calls:
        kernel = found.variables_of(call).get("params", {}).get("kernel")
        if kernel is not None:
            pixels = call.output.shape[1:-1]
            total += 2.0 * kernel.size * math.prod(pixels)
    return total


def _residuals(player: nn.Module, variables, mutable: list[str], inputs, labels) -> int:
    """Bytes that the reverse mode of a player keeps, for gradients of weights and inputs."""
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def forward(params, rest, inputs, labels):
        def apply(params, inputs):
            return player.apply({"params": params} | rest, inputs, labels, True, mutable=mutable)[0]

        return jax.vjp(apply, params, inputs)[1]

    return _bytes(jax.eval_shape(forward, variables["params"], rest, inputs, labels))


def _bytes(tree: Any) -> int:
    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(x.size * x.dtype.itemsize for x in leaves)
