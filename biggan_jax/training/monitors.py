"""What can be seen of a collapse before the losses show it: a pure function of a state.

References:
  Brock et al. 2019, section 4 and appendices F and G: the singular values of the weights of both
  players over training, and D's accuracy on images that it was not trained on.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from biggan_jax.models import layers as layers_lib
from biggan_jax.models import walk
from biggan_jax.models.settings import at_least_float32
from biggan_jax.parallel import processes, sharding
from biggan_jax.training import singular_values
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

PREFIX = "monitor/"
DEFAULT_CADENCE = 100  # steps between two calls that docs/stability.md advises
_DIGITS = 6  # of a value in metrics.jsonl, which holds hundreds of them a line


@dataclasses.dataclass(frozen=True)
class Layer:
    """One weight that has a matrix form.

    Attributes:
      path: of its module in the parameter tree.
      module: which says the matrix form, and what a forward divides by.
    """

    path: tuple[str, ...]
    module: layers_lib.SpectralModule

    @property
    def name(self) -> str:
        """The path with slashes."""
        return "/".join(self.path)

    def weight(self, params: Any) -> jax.Array:
        """The raw weight in the parameters of its player."""
        return at(params, self.path)[self.module.weight_name]

    def matrix(self, params: Any) -> jax.Array:
        """The raw weight as the matrix [out, rest] of the spectral norm, at least float32."""
        return at_least_float32(self.module.matrix(self.weight(params)))

    def divisor(self, params: Any, spectral: Any) -> jax.Array | None:
        """What the next training forward divides the weight by; None without spectral norm."""
        if not self.module.spectral_norm:
            return None
        return self.module.divisor(self.matrix(params), at(spectral, self.path)["u"])


@dataclasses.dataclass(frozen=True)
class Images:
    """Real images on the devices, of which D was trained on some.

    Attributes:
      images: in [-1, 1], [N, H, W, C]; N a multiple of the devices.
      labels: their classes, int32 [N].
      trained_on: 1 for an image of the training stream, 0 for others, float32 [N].
      held_out: the same for those that are kept out of it; 0 in both for a filling image.
    """

    images: jax.Array
    labels: jax.Array
    trained_on: jax.Array
    held_out: jax.Array


jax.tree_util.register_dataclass(Images)


class Monitors:
    """Measures a state in one compiled call; nothing is carried from one call to the next.

    Args:
      train_step: the bound step of the run.
      images: real images for D to judge, where some are held out.
    """

    def __init__(self, train_step: TrainStep, images: Images | None = None):
        self._step, self._images = train_step, images
        g, d = train_step.generator, train_step.discriminator
        self._walks = {
            "g": walk.of_generator(g),
            "d": walk.of_discriminator(d, g.channels),
        }
        self._layers = {player: layers_of(found) for player, found in self._walks.items()}
        jitted = jax.jit(self._measure, out_shardings=sharding.replicated(train_step.mesh))
        self.compiled = processes.compile_together(jitted)
        self._names: list[str] = []

    def __call__(self, state: GANState) -> dict[str, float]:
        """Measures a state; all processes of a run call it.

        Args:
          state: on the mesh; none of its buffers is kept.

        Returns:
          {name: value}, layers in their order from z to the image in G and from the image to the
          logit in D. 'monitor/g/sigma0/block_0/conv1' is the largest singular value as the layer
          uses it, 'raw_sigma0' that of the weight itself; `docs/stability.md` lists all names.
        """
        g, d = state.generator, state.discriminator
        weights = {"g": (g.params, g.spectral), "d": (d.params, d.spectral)}
        values = np.asarray(jax.device_get(self.compiled(weights, self._images)), np.float64)
        return _with_ratios(dict(zip(self._names, values, strict=True)))

    def _measure(self, weights: dict, images: Images | None) -> jax.Array:
        """All values in one array: hundreds of single ones take longer to read than to compute."""
        found: dict[str, jax.Array] = {}
        gathered = sharding.gather_weights(weights, self._step.mesh)
        for player, (params, spectral) in gathered.items():
            of_player = {"weight_norm": optax.global_norm(params)}
            for layer in self._layers[player]:
                of_player |= _of_layer(layer, params, spectral)
            of_player |= _gammas(params)
            found |= {f"{PREFIX}{player}/{name}": value for name, value in of_player.items()}
        gains = _gains(self._walks["g"], self._step.generator, *gathered["g"])
        found |= {f"{PREFIX}g/{name}": value for name, value in gains.items()}
        if images is not None:
            logits = self._judge(*gathered["d"], images)
            found |= {f"{PREFIX}d/{name}": value for name, value in logits.items()}
        self._names = list(found)  # when it is traced, which comes before it is run
        return jnp.stack(list(found.values()))

    def _judge(self, params: Any, spectral: Any, images: Images) -> dict:
        """Accuracy (a positive logit) and mean logit of D on real images of either kind."""
        images = sharding.constrain_batch(images, self._step.mesh)
        logits = self._step.discriminator.apply(
            {"params": params, "spectral": spectral}, images.images, images.labels, train=False
        )
        found = {}
        for side, chosen in (("train", images.trained_on), ("held_out", images.held_out)):
            share = chosen.astype(logits.dtype) / chosen.sum().astype(logits.dtype)
            found[f"accuracy_{side}"] = jnp.where(logits > 0, share, 0).sum()
            found[f"logit_{side}"] = (share * logits).sum()
        return found


def layers_of(found: walk.Walk) -> list[Layer]:
    """Every weight of a player that has a matrix form, in the order of the forward pass."""
    seen: dict[tuple[str, ...], Layer] = {}
    for call in found.calls:
        if isinstance(call.module, layers_lib.SpectralModule):
            seen.setdefault(call.path, Layer(call.path, call.module))
    return list(seen.values())


def at(tree: Any, path: tuple[str, ...]) -> Any:
    """The part of a nested dict that lies under some names."""
    for name in path:
        tree = tree[name]
    return tree


def _of_layer(layer: Layer, params: Any, spectral: Any) -> dict[str, jax.Array]:
    """Singular values as the layer uses them and of the weight itself, and its norm."""
    matrix = layer.matrix(params)
    raw = singular_values.largest(matrix)
    divisor = layer.divisor(params, spectral)
    found = {}
    for i in range(len(raw)):
        found[f"sigma{i}/{layer.name}"] = raw[i] if divisor is None else raw[i] / divisor
    for i in range(len(raw)):
        found[f"raw_sigma{i}/{layer.name}"] = raw[i]
    return found | {f"weight_norm/{layer.name}": jnp.linalg.norm(matrix)}


def _gammas(params: Any) -> dict[str, jax.Array]:
    """gamma of every attention."""
    flat = traverse_util.flatten_dict(params)
    return {
        f"gamma/{'/'.join(path[:-1])}": at_least_float32(value)
        for path, value in flat.items()
        if path[-1] == "gamma"
    }


def _gains(
    found: walk.Walk, generator: nn.Module, params: Any, spectral: Any
) -> dict[str, jax.Array]:
    """Range of the gains of every batch norm of G, over classes and channels, at z = 0."""
    gains: dict[str, jax.Array] = {}
    kernels = {layer.path: layer for layer in layers_of(found)}
    for call in found.calls:
        own, name = call.module, "/".join(call.path)
        if isinstance(own, layers_lib.AffineBatchNorm):
            gains[name] = at_least_float32(at(params, call.path)["gain"])
        elif isinstance(own, layers_lib.ClassBatchNorm):
            gains[name] = 1 + kernels[(*call.path, "gain")].matrix(params)
        elif isinstance(own, layers_lib.ConditionalBatchNorm) and "shared" in params:
            embedding = at_least_float32(params["shared"]["embedding"])
            layer = kernels[(*call.path, "gain")]
            width, kernel = embedding.shape[1], layer.matrix(params).T
            kernel = kernel[:width] if generator.cond_order == "embedding_z" else kernel[-width:]
            divisor = layer.divisor(params, spectral)
            gains[name] = 1 + embedding @ (kernel if divisor is None else kernel / divisor)
    kinds = {"min": jnp.min, "max": jnp.max, "mean": jnp.mean}
    return {
        f"gain_{kind}/{name}": reduce(gain)
        for name, gain in gains.items()
        for kind, reduce in kinds.items()
    }


def _with_ratios(found: dict[str, float]) -> dict[str, float]:
    """Adds sigma0 / sigma1 of every layer that has both, and shortens the numbers."""
    out = {}
    for name, value in found.items():
        if "/raw_sigma0/" in name:
            second = found.get(name.replace("/raw_sigma0/", "/raw_sigma1/"), 0.0)
            if second > 0:
                out[name.replace("/raw_sigma0/", "/ratio/")] = value / second
        out[name] = value
    return {name: _short(value) for name, value in out.items()}


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else float(value)
