"""A trained discriminator as a plain function of numpy arrays."""

from collections.abc import Iterator

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.sampling import classes, forward


class LoadedDiscriminator:
    """A trained discriminator: `logits = d(images, labels)`.

    Attributes:
      num_classes, resolution, channels: of the model.
      class_names: one name per class; empty where they are not known.
      config: the config it was trained with (at least its `model` section).
      step: generator updates that it was trained beside, None when the directory does not say.
    """

    def __init__(self, config: ConfigDict, variables: dict, step: int | None = None):
        self.config, self.step = config, step
        _, self._discriminator = models.build(config.model, dtype=config.compute_dtype)
        self._variables = forward.place(variables)
        m = config.model
        self.num_classes, self.resolution, self.channels = m.num_classes, m.resolution, m.channels
        self.class_names = classes.names_of(config)

    def labels(self, text: str, option: str = "labels") -> np.ndarray:
        """Class ids of a list of names or ids; see `LoadedGenerator.labels`."""
        return classes.labels(self, text, option)

    @property
    def gammas(self) -> dict[str, float]:
        """{layer: gamma} of every self-attention block; at 0, as it starts, it does nothing."""
        return forward.gammas(self._variables)

    def __call__(self, images: ArrayLike, labels: ArrayLike) -> np.ndarray:
        """Judges images; a logit depends on its companions in the rounding alone.

        Args:
          images: [N, resolution, resolution, channels], float in [-1, 1].
          labels: class ids [N] in [0, num_classes).

        Returns:
          Logits [N], float32; higher is more real.

        Raises:
          UserError: for shapes that do not fit, or labels outside their range.
        """
        images, labels = self.check_inputs(images, labels)
        logits = np.empty(len(images), np.float32)
        batches = self._batches(images, labels, forward.BATCH_SIZE)
        for index, out in forward.ahead(batches, lambda *batch: self._forward(*batch)[0]):
            logits[index] = out
        return logits

    def attention(self, images: ArrayLike, labels: ArrayLike) -> dict[str, np.ndarray]:
        """Attention maps of every self-attention block.

        Args:
          images: [N, resolution, resolution, channels], float in [-1, 1].
          labels: class ids [N]; a projection discriminator uses them after its last block, so they
            do not change the maps.

        Returns:
          {layer: [N, Q, K]} as `LoadedGenerator.attention`.

        Raises:
          UserError: see `__call__`.
        """

        def compute(*batch):
            # Apart from the logits, which should not cost the memory of the maps.
            return forward.attention_maps(self._forward(*batch, collections=("attention",))[1])

        batches = self._batches(*self.check_inputs(images, labels), forward.ATTENTION_BATCH_SIZE)
        parts = [maps for _, maps in forward.ahead(batches, compute)]
        layers = parts[0] if parts else {}
        return {name: np.concatenate([p[name] for p in parts]) for name in layers}

    def _forward(self, images, labels, collections: tuple[str, ...] = ()):
        inputs = self._discriminator, self._variables, images, labels
        return forward.call(*inputs, collections=collections)

    @property
    def applied(self) -> tuple[nn.Module, dict]:
        """(the module, its variables on the devices)."""
        return self._discriminator, self._variables

    def check_inputs(self, images: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """(images float32, labels int32) as the module takes them; UserError as `__call__`."""
        if getattr(images, "dtype", None) == np.uint8:
            raise UserError("images are uint8; give floats in [-1, 1]: images / 127.5 - 1")
        images, labels = forward.as_float32(images, "images"), np.asarray(labels)
        expected = (self.resolution, self.resolution, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            takes = ", ".join(map(str, expected))
            raise UserError(f"images have shape {images.shape}; this model takes [N, {takes}]")
        if labels.shape != (len(images),):
            raise UserError(f"labels have shape {labels.shape}; images ask for [{len(images)}]")
        return images, classes.check_labels(labels, self.num_classes)

    def _batches(
        self, images: np.ndarray, labels: np.ndarray, size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields (indices, images, labels), the last two of one size."""
        size = forward.rounded(size)
        for start in range(0, len(images), size):
            index = np.arange(start, min(start + size, len(images)))
            room = (0, size - len(index))
            rows = np.pad(images[index], (room, *[(0, 0)] * 3))
            yield index, rows, np.pad(labels[index], room)
