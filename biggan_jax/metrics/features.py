"""What every features network offers: uint8 images in, features and logits out.

A network runs on the local devices of this process; with several processes each gives it its own
share of the images.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from biggan_jax.errors import UserError

AXIS = "batch"


class Extractor(Protocol):
    """A features network with its weights.

    Attributes:
      name: `inception`, `dinov2`, `classifier`, or `module:function` of a user's own.
      digest: hexadecimal digest of its weights.
      resize: how images reach `resolution`, as the protocol of a score states it.
      resolution: side of the images that the network itself reads, in pixels.
      feature_dim: D below.
      has_logits: whether its outputs have logits.
    """

    name: str
    digest: str
    resize: str
    resolution: int
    feature_dim: int
    has_logits: bool

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features of images.

        Args:
          images: uint8 [N, H, W, C], N at least 1, C 1 (grey) or 3 (RGB).

        Returns:
          `features` float32 [N, D] and, where `has_logits`, `logits` float32 [N, K], rows in the
          order of the images.

        Raises:
          UserError: the images are of another dtype or shape than the network takes.
        """


def logits_of(outputs: dict[str, np.ndarray]) -> np.ndarray | None:
    """Logits of which the Inception score is made.

    Args:
      outputs: of an `Extractor`.

    Returns:
      [N, K]; of Inception those without the last bias, as TensorFlow's score takes them; None of a
      network that has none.
    """
    return outputs.get("logits_unbiased", outputs.get("logits"))


def check_images(images: np.ndarray) -> np.ndarray:
    """Refuses what is no batch of uint8 images.

    Args:
      images: anything like an array.

    Returns:
      The same as a numpy array uint8 [N, H, W, C] with N at least 1 and C in (1, 3).

    Raises:
      UserError: it is of another dtype or shape; NaNs among floats are counted.
    """
    images = np.asarray(images)
    shape = list(images.shape)
    if images.dtype != np.uint8:
        bad = 0
        if np.issubdtype(images.dtype, np.floating):
            bad = int(images.size - np.isfinite(images).sum())
        which = f" with {bad} values that are NaN or infinite" if bad else ""
        cure = "repair the model or its weights" if bad else "convert them to 0..255"
        raise UserError(f"images must be uint8, these are {images.dtype} {shape}{which}: {cure}")
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"images must be [N, H, W, C] with C 1 or 3 and N at least 1, these are {shape}: "
            "pass grey images as [N, H, W, 1]"
        )
    return images


class BatchRunner:
    """Runs one compiled program over any number of images.

    The last batch is padded, so that one program serves all; every batch is sharded over the
    devices. While a batch is computed the one before it is copied to the host.

    Args:
      forward: a jitted function (variables, uint8 [B, H, W, C]) -> {name: float32 [B, ...]}, in
        which no row depends on another one.
      variables: its first argument; copied to every device.
      batch_size: B, rounded up to a multiple of the devices.
      devices: all local devices when absent.
      threads: batches that are computed at the same time.
    """

    def __init__(
        self,
        forward: Callable[[Any, jax.Array], dict[str, jax.Array]],
        variables: Any,
        batch_size: int,
        devices: Sequence[jax.Device] | None = None,
        threads: int = 1,
    ):
        devices = list(devices or jax.local_devices())
        self.mesh = jax.make_mesh(
            (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self._forward = forward
        self._threads = threads
        self._compiled: set[tuple[int, ...]] = set()  # shapes of images
        self._variables = jax.device_put(variables, NamedSharding(self.mesh, P()))

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs for all images.

        Args:
          images: uint8 [N, H, W, C], N at least 1.

        Returns:
          {name: float32 [N, ...]}.
        """
        starts = range(0, len(images), self.batch_size)
        if self._threads > 1 and len(starts) > 1:
            # The first batch of a shape compiles: alone, so that it is done once.
            known = images.shape[1:] in self._compiled
            done = [] if known else [self._compute(images, 0)]
            self._compiled.add(images.shape[1:])
            with ThreadPoolExecutor(min(self._threads, len(starts))) as pool:
                done += pool.map(functools.partial(self._compute, images), starts[len(done) :])
        else:
            done, running = [], None
            for start in starts:
                ahead = self._start(images, start)
                if running is not None:
                    done.append(jax.device_get(running))
                running = ahead
            done.append(jax.device_get(running))
        return {name: np.concatenate([d[name] for d in done])[: len(images)] for name in done[0]}

    def _start(self, images: np.ndarray, start: int) -> dict[str, jax.Array]:
        batch = images[start : start + self.batch_size]
        padding = [(0, self.batch_size - len(batch))] + [(0, 0)] * (images.ndim - 1)
        put = jax.device_put(np.pad(batch, padding), NamedSharding(self.mesh, P(AXIS)))
        return self._forward(self._variables, put)

    def _compute(self, images: np.ndarray, start: int) -> dict[str, np.ndarray]:
        return jax.device_get(self._start(images, start))
