"""Sources that fit into memory."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from biggan_jax.data.source import Source, count_labels

# Beyond this the images stay at their own size and are resized when they are read.
PRELOAD_BYTES = 1 << 29


class ArraySource(Source):
    """Square images held in memory, resized bilinearly by Pillow.

    Args:
      spec: the text that opened this source.
      images: uint8 [n, side, side], or of RGB images [n, side, side, 3].
      labels: integers [n] in [0, len(class_names)).
      class_names: one name per class.
      resolution: side of the images that `read` returns, in pixels.
      channels: 1, or 3; grey values stand in each of R, G and B, and RGB becomes grey by the
        luminance of ITU-R 601, as Pillow has it.

    Attributes:
      side: of the images before they are resized, in pixels.
      depth: 1 or 3, of the images before they get `channels`.

    Raises:
      UserError: a label lies outside [0, len(class_names)).
    """

    labels_are_cheap = True

    def __init__(
        self,
        spec: str,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        resolution: int,
        channels: int,
    ):
        super().__init__(spec, resolution, channels, class_names)
        self.side = images.shape[1]
        self.depth = 3 if images.ndim == 4 else 1
        self._histogram = count_labels(labels, len(class_names), spec)
        self._labels = labels.astype(np.int32)
        self._stored = images

    def __len__(self) -> int:
        return len(self._labels)

    @functools.cached_property
    def _images(self) -> np.ndarray:
        """Resized once and for all where they are few, at the first reading."""
        preload = len(self) * self.resolution**2 * self.depth <= PRELOAD_BYTES
        return _resize(self._stored, self.resolution) if preload else self._stored

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        index_n = self._check_indices(indices)
        images = _resize(self._images[index_n], self.resolution)
        if self.depth == 1:
            images = np.repeat(images[..., None], self.channels, axis=-1)
        elif self.channels == 1:
            images = _grey(images)
        return images, self._labels[index_n]

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        return self._labels[self._check_indices(indices)]

    def histogram(self) -> np.ndarray:
        return self._histogram.copy()

    def digest(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return _digest(self._stored, self._labels)


def _resize(images: np.ndarray, resolution: int) -> np.ndarray:
    if images.shape[1:3] == (resolution, resolution):
        return images
    size, kernel = (resolution, resolution), Image.Resampling.BILINEAR
    resized = np.empty((len(images), *size, *images.shape[3:]), np.uint8)
    for i, image in enumerate(images):
        resized[i] = np.asarray(Image.fromarray(image).resize(size, kernel))
    return resized


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, R, R, 3] -> uint8 [N, R, R, 1]."""
    grey = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    return np.stack(grey)[..., None] if grey else np.empty((*images.shape[:3], 1), np.uint8)


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Hash of the images as they are stored, before resizing."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(labels.astype("<i4"))
    return digest.hexdigest()
