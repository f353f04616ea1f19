"""Trained networks as plain functions of numpy arrays: no dataset, no optimizer, no training
loop."""

import copy
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import latents
from biggan_jax.sampling import standing
from biggan_jax.sampling.classes import check_labels
from biggan_jax.sampling.discriminator import (
    ATTENTION_BATCH_SIZE,
    attention_gammas,
)

BN_MODES = ("running", "batch", "standing")
BATCH_SIZE = 64  # samples of one forward; every forward has this size, so one program serves all


class LoadedGenerator:
    """A trained generator: `images = g(z, labels)`.

    Attributes:
      dim_z, num_classes, resolution, channels: of the model.
      config: the config it was trained with (at least its `model` section).
      step: generator updates it has had, None when the directory does not say.
    """

    def __init__(self, config: ConfigDict, variables: dict, step: int | None = None):
        self.config, self.step = config, step
        self._generator, _ = models.build(config.model, dtype=config.compute_dtype)
        self._variables = self._trained = variables
        self._bn_mode = "running"
        m = config.model
        self.dim_z, self.num_classes = m.dim_z, m.num_classes
        self.resolution, self.channels = m.resolution, m.channels
        self._forward = jax.jit(self._apply, static_argnames=("train", "collections"))

    def __call__(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Makes images; never changes z.

        In the 'batch' mode statistics come from the forward that a sample is made in (64 samples in
        a shuffled order, filled up with fresh ones), so there alone a sample depends on its
        companions.

        Args:
          z: latents [N, dim_z].
          labels: class ids [N] in [0, num_classes).

        Returns:
          Images [N, resolution, resolution, channels], float32 in [-1, 1].

        Raises:
          UserError: for shapes that do not fit, or labels outside their range.
        """
        z, labels = self._check(z, labels)
        images = np.empty((len(z), self.resolution, self.resolution, self.channels), np.float32)
        for index, *batch in self._batches(z, labels):
            out, _ = self._forward(self._variables, *batch, train=self._bn_mode == "batch")
            images[index] = np.asarray(out)[: len(index)]
        return images

    @property
    def gammas(self) -> dict[str, float]:
        """{layer: gamma} of every self-attention block; at 0, as it starts, it does nothing."""
        return attention_gammas(self._variables)

    def replace(self, variables: dict, step: int | None = None) -> "LoadedGenerator":
        """The same network with other weights, in the 'running' mode; shares compiled programs.

        Args:
          variables: {params, spectral, batch_stats} of the same shapes.
          step: generator updates that they have had.

        Returns:
          A generator; this one stays as it is.
        """
        other = copy.copy(self)
        other._variables = other._trained = variables
        other._bn_mode, other.step = "running", step
        return other

    def attention(self, z: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Attention maps of every self-attention block.

        Args:
          z: latents [N, dim_z].
          labels: class ids [N].

        Returns:
          {layer: [N, Q, K]}: for each of the Q = H * W query pixels a distribution over the
          K = H * W / 4 keys, both in row-major order. Empty when the model has no attention.
        """
        z, labels = self._check(z, labels)
        maps: dict[str, list] = {}
        order = []
        train = self._bn_mode == "batch"
        size = BATCH_SIZE if train else ATTENTION_BATCH_SIZE
        for index, *batch in self._batches(z, labels, size):
            _, sown = self._forward(
                self._variables, *batch, train=train, collections=("attention",)
            )
            order.append(index)
            for layer, beta in sown.get("attention", {}).items():
                maps.setdefault(layer, []).append(np.asarray(beta["map"][0])[: len(index)])
        inverse = np.argsort(np.concatenate(order)) if order else []
        return {layer: np.concatenate(parts)[inverse] for layer, parts in maps.items()}

    def sample_z(
        self, seed: int, n: int, truncation: float | None = None, kind: str = "resample"
    ) -> np.ndarray:
        """Draws latents; sample i of a seed does not depend on n.

        Args:
          seed: any integer of 32 bits.
          n: number of latents.
          truncation: threshold T > 0, or None for none.
          kind: 'resample' redraws every |z_i| > T (Brock et al. 2019); 'scale' is T times a normal
            truncated to [-2, 2] (the TF-Hub models).

        Returns:
          z [n, dim_z], float32.
        """
        distribution = self.config.model.z_distribution
        latents.check_truncation(truncation, distribution)
        if not -(2**31) <= seed < 2**32:
            raise UserError(f"seed is {seed}; it must be an integer of 32 bits")
        if kind not in ("resample", "scale"):
            raise UserError(f"truncation kind is {kind!r}; it must be resample or scale")
        if n == 0:
            return np.zeros((0, self.dim_z), np.float32)

        def one(i):
            draw, redraw = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
            z = latents.sample(draw, (self.dim_z,), distribution=distribution)
            if truncation is None:
                return z
            return latents.truncate(redraw, z, truncation, distribution, kind)

        return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(n)))

    def set_bn_mode(
        self,
        mode: str,
        truncation: float | None = None,
        seed: int = 0,
        *,
        kind: str = "resample",
        batches: int = standing.BATCHES,
        batch_size: int = standing.BATCH_SIZE,
    ) -> None:
        """Chooses the batch-norm statistics.

        Args:
          mode: 'running' (averages of training), 'batch' (of each forward) or 'standing' (plain
            mean over training forwards; Brock et al. 2019, section 3.1).
          truncation, seed, kind: of the latents behind standing statistics; see `sample_z`.
          batches: training forwards that standing statistics are averaged over.
          batch_size: samples of one of them, their classes drawn at random.
        """
        if mode not in BN_MODES:
            raise UserError(f"bn mode is {mode!r}; it must be one of {', '.join(BN_MODES)}")
        standing.check(batches, batch_size)
        if mode != "standing":
            self._bn_mode, self._variables = mode, self._trained
            return
        z = self.sample_z(seed, batches * batch_size, truncation, kind)
        labels = np.random.default_rng(seed).integers(0, self.num_classes, len(z), np.int32)
        parts = np.split(z, batches), np.split(labels, batches)
        self.set_standing(zip(*parts, strict=True))

    def set_standing(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Takes standing statistics from given batches.

        Args:
          batches: pairs of z [B, dim_z] and labels [B], one pair a training forward.
        """
        wanted = ("spectral", "moments")
        forward = lambda *args: self._forward(*args, train=True, collections=wanted)[1]
        checked = (self._check(z, labels) for z, labels in batches)
        self._variables = standing.accumulate(forward, self._trained, checked)
        self._bn_mode = "standing"

    def _apply(self, variables, z, labels, train: bool, collections: tuple[str, ...] = ()):
        mutable = list({*collections, *(("spectral", "batch_stats") if train else ())})
        return self._generator.apply(variables, z, labels, train=train, mutable=mutable)

    def _check(self, z, labels) -> tuple[np.ndarray, np.ndarray]:
        z, labels = np.asarray(z, np.float32), np.asarray(labels)
        if z.ndim != 2 or z.shape[1] != self.dim_z:
            raise UserError(f"z has shape {z.shape}; this model takes [N, {self.dim_z}]")
        if labels.shape != (len(z),):
            raise UserError(f"labels have shape {labels.shape}; z asks for [{len(z)}]")
        return z, check_labels(labels, self.num_classes)

    def _batches(self, z: np.ndarray, labels: np.ndarray, size: int = BATCH_SIZE):
        """Yields (indices, z, labels), the last two always of one size."""
        rng = np.random.default_rng(0)
        shuffled = self._bn_mode == "batch"  # a batch of one class has the statistics of that class
        order = rng.permutation(len(z)) if shuffled else np.arange(len(z))
        for start in range(0, len(z), size):
            index = order[start : start + size]
            missing = size - len(index)
            fill_z = np.zeros((missing, self.dim_z), np.float32)
            if shuffled:  # only batch statistics see what a batch is filled up with
                fill_z = self.sample_z(start, missing)
            fill_labels = rng.integers(0, self.num_classes, missing, np.int32)
            yield (
                index,
                np.concatenate([z[index], fill_z]),
                np.concatenate([labels[index], fill_labels]),
            )
