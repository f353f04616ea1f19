"""How far samples of one class lie apart in D's features, for the guard.

A collapse of G onto one image a class, or of D onto one feature, is seen here whatever the losses
are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from biggan_jax.data import Batches
from biggan_jax.models import heads, latents
from biggan_jax.models.settings import at_least_float32
from biggan_jax.parallel import compiler_options, processes, sharding
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

CLASSES, OF_EACH = 8, 4  # samples that are looked at: a small batch, always of the same latents


class Diversity:
    """Measures a state in one compiled call, a pure function of it.

    Args:
      train_step: the bound step of the run.
      config: of the run.
      batches: whose first batch gives the real images.
    """

    def __init__(self, train_step: TrainStep, config: ConfigDict, batches: Batches):
        self._step, self._config, self._batches = train_step, config, batches
        mesh, count = train_step.mesh, CLASSES * OF_EACH
        # More of them where the mesh has more devices; the first ones are looked at.
        self._rows = -(-count // mesh.size) * mesh.size
        self._real: jax.Array | None = None  # a short run never looks
        self._compiled = processes.compile_together(
            jax.jit(
                self._measure,
                out_shardings=sharding.replicated(mesh),
                compiler_options=compiler_options.of_step(mesh),
            )
        )

    def __call__(self, state: GANState) -> dict[str, float]:
        """Measures a state; all processes of a run call it.

        Args:
          state: on the mesh; none of its buffers is kept.

        Returns:
          `diversity`: root mean square distance of two samples of one class in D's features, the
          median over classes, divided by `d_features`; `d_features`: the same distance of two real
          images of whatever class.
        """
        if self._real is None:
            self._real, (self._z, self._labels) = self._read(), self._latents()
        g, d = state.generator, state.discriminator
        weights = (g.params, g.spectral, g.batch_stats), (d.params, d.spectral)
        fake, real = jax.device_get(self._compiled(weights, self._real, self._z, self._labels))
        diversity = float(fake) / float(real) if real > 0 else 0.0
        return {"diversity": diversity, "d_features": float(real)}

    def _latents(self) -> tuple[np.ndarray, np.ndarray]:
        """(z [rows, dim_z], labels [rows]): the same in every run of a seed."""
        model = self._config.model
        classes = np.linspace(0, model.num_classes - 1, CLASSES).round().astype(np.int32)
        key = jax.random.fold_in(jax.random.key(self._config.seed), 2**31 - 2)
        shape = (self._rows, model.dim_z)
        z = np.asarray(latents.sample(key, shape, distribution=model.z_distribution))
        return z, np.resize(np.repeat(classes, OF_EACH), self._rows)

    def _read(self) -> jax.Array:
        """Real images [rows, H, W, C], which the run has read before."""
        own = self._batches.batch_at(0)["image"]
        own = own.reshape(-1, *own.shape[2:])
        own = np.resize(own, (self._rows // jax.process_count(), *own.shape[1:]))
        return sharding.global_batch(own.astype(np.float32) / 127.5 - 1, self._step.mesh)

    def _measure(self, weights: Any, real, z, labels) -> tuple[jax.Array, jax.Array]:
        mesh = self._step.mesh
        (g_params, g_spectral, g_stats), (d_params, d_spectral) = weights
        g_params, d_params = sharding.gather_weights((g_params, d_params), mesh)
        real, z, labels = sharding.constrain_batch((real, z, labels), mesh)
        variables = {"params": g_params, "spectral": g_spectral, "batch_stats": g_stats}
        fake = self._step.generator.apply(variables, z, labels, train=False)

        def features(images: jax.Array) -> jax.Array:
            variables = {"params": d_params, "spectral": d_spectral}
            found = heads.features(self._step.discriminator, variables, images, labels)
            found = sharding.constrain_batch(at_least_float32(found), mesh)
            whole = jax.lax.with_sharding_constraint(found, sharding.replicated(mesh))
            return whole[: CLASSES * OF_EACH]

        of_class = features(fake).reshape(CLASSES, OF_EACH, -1)
        return jnp.median(jax.vmap(_distance)(of_class)), _distance(features(real))


def _distance(x: jax.Array) -> jax.Array:
    """Root mean square distance of two different ones of some vectors [N, F]."""
    # About the mean, not from products of the vectors, which cancel where they are nearly equal.
    return jnp.sqrt(2 * jnp.square(x - x.mean(0, keepdims=True)).sum() / (len(x) - 1))
