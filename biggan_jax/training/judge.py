"""The two players' forwards inside an update."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from biggan_jax.models.san import Split
from biggan_jax.parallel import sharding

DROPOUT = 2**31  # what is folded into the key of an update for D's dropout


def dropout_key(discriminator: nn.Module, key: jax.Array) -> jax.Array | None:
    """The key of D's dropout in the update of this key; None where D has none."""
    # A role of its own: objectives fold small numbers into the key.
    return jax.random.fold_in(key, DROPOUT) if discriminator.settings.d_dropout else None


def generate(generator, params, spectral, batch_stats, z, gen_labels) -> tuple[jax.Array, dict]:
    """(images, new collections) of a training forward of G."""
    variables = {"params": params, "spectral": spectral, "batch_stats": batch_stats}
    return generator.apply(
        variables, z, gen_labels, train=True, mutable=["spectral", "batch_stats"]
    )


def near(
    generator, params, spectral, batch_stats, z, gen_labels, mesh: Mesh
) -> Callable[[jax.Array, float], jax.Array]:
    """How an objective asks G for the images of latents near those of the fakes.

    Args:
      generator, params, spectral, batch_stats, z, gen_labels: of the forward that made the fakes.
      mesh: over which z is split.

    Returns:
      `(key, sigma) -> images` of z + sigma n, n ~ N(0, I). A training forward of its own, with the
      batch statistics of these images; it starts from the same spectral vectors as that of the
      fakes, and stores nothing.
    """

    def images(key: jax.Array, sigma: float) -> jax.Array:
        noise = sharding.constrain_batch(jax.random.normal(key, z.shape, z.dtype), mesh)
        moved = z + sigma * noise
        return generate(generator, params, spectral, batch_stats, moved, gen_labels)[0]

    return images


class Judge:
    """D at its parameters, as an objective calls it: `logits = D(images, labels)`.

    The first call is the training forward of an update, which advances the spectral vectors; later
    ones start from what it left and store nothing. Each call draws its own dropout.

    Attributes:
      spectral: the vectors after the calls so far.
      direction: of D with SAN's head, the halves of the first call's logits that train its
        direction, [N]; None before it and of other heads.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        params: Any,
        spectral: Any,
        mesh: Mesh,
        dropout_key: jax.Array | None = None,
    ):
        self._discriminator, self._params, self._mesh = discriminator, params, mesh
        self.spectral, self._calls, self._dropout_key = spectral, 0, dropout_key
        self.direction: jax.Array | None = None

    def __call__(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [N] of images [N, H, W, C] and class ids [N]; N a multiple of the devices."""
        if len(images) % self._mesh.size:
            raise ValueError(
                f"D is called with {len(images)} images on a mesh of {self._mesh.size} devices: "
                "call it with a multiple of them, such as all images of the update"
            )
        images, labels = sharding.constrain_batch((images, labels), self._mesh)
        variables = {"params": self._params, "spectral": self.spectral}
        options = {}
        if self._dropout_key is not None:
            options["rngs"] = {"dropout": jax.random.fold_in(self._dropout_key, self._calls)}
        self._calls += 1
        if self._calls > 1:
            return self._discriminator.apply(variables, images, labels, train=False, **options)
        logits, new = self._discriminator.apply(
            variables, images, labels, train=True, mutable=["spectral"], **options
        )
        self.spectral = new["spectral"]
        if isinstance(logits, Split):
            logits, self.direction = logits
        return logits
