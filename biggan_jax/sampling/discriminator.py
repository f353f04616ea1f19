"""A trained discriminator as a plain function of numpy arrays."""

from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.sampling.classes import check_labels

BATCH_SIZE = 64  # images of one forward
ATTENTION_BATCH_SIZE = 8  # the maps of one 256-pixel sample (128 x 128 queries) take 268 MB


class LoadedDiscriminator:
    """A trained discriminator: `logits = d(images, labels)`.

    Attributes:
      num_classes, resolution, channels: of the model.
      config: the config it was trained with (at least its `model` section).
    """

    def __init__(self, config: ConfigDict, variables: dict):
        self.config = config
        _, self._discriminator = models.build(config.model, dtype=config.compute_dtype)
        self._variables = variables
        m = config.model
        self.num_classes, self.resolution, self.channels = m.num_classes, m.resolution, m.channels
        apply = self._discriminator.apply
        self._forward = jax.jit(lambda v, x, y: apply(v, x, y, train=False))
        # Apart: a logit should not cost the memory of the maps.
        self._attend = jax.jit(
            lambda v, x, y: apply(v, x, y, train=False, mutable=["attention"])[1]
        )

    @property
    def gammas(self) -> dict[str, float]:
        """{layer: gamma} of every self-attention block; at 0, as it starts, it does nothing."""
        return attention_gammas(self._variables)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Judges images.

        Args:
          images: [N, resolution, resolution, channels], float in [-1, 1].
          labels: class ids [N] in [0, num_classes).

        Returns:
          Logits [N], float32; higher is more real.
        """
        parts = [np.zeros(0, np.float32)]
        for batch in self._batches(images, labels, BATCH_SIZE):
            parts.append(np.asarray(self._forward(self._variables, *batch)))
        return np.concatenate(parts)

    def attention(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Attention maps of every self-attention block.

        Args:
          images: [N, resolution, resolution, channels], float in [-1, 1].
          labels: class ids [N]; a projection discriminator uses them after its last block, so they
            do not change the maps.

        Returns:
          {layer: [N, Q, K]} as `LoadedGenerator.attention`.
        """
        maps: dict[str, list] = {}
        for batch in self._batches(images, labels, ATTENTION_BATCH_SIZE):
            sown = self._attend(self._variables, *batch)
            for layer, beta in sown.get("attention", {}).items():
                maps.setdefault(layer, []).append(np.asarray(beta["map"][0]))
        return {layer: np.concatenate(parts) for layer, parts in maps.items()}

    def _batches(self, images, labels, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Checks the arguments and yields (images, labels) of each batch."""
        images, labels = np.asarray(images, np.float32), np.asarray(labels)
        expected = (self.resolution, self.resolution, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise UserError(f"images have shape {images.shape}; this model takes [N, *{expected}]")
        if labels.shape != (len(images),):
            raise UserError(f"labels have shape {labels.shape}; images ask for [{len(images)}]")
        labels = check_labels(labels, self.num_classes)
        for i in range(0, len(images), size):
            yield images[i : i + size], labels[i : i + size]


def attention_gammas(variables: dict) -> dict[str, float]:
    """{layer: gamma} of the self-attention blocks of a player's variables."""
    layers = variables["params"].items()
    return {name: float(p["gamma"]) for name, p in layers if isinstance(p, dict) and "theta" in p}
