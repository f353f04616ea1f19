"""A trained generator as a plain function of numpy arrays: no dataset, optimizer or training."""

import copy
from collections.abc import Iterable, Iterator

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.sampling import batches, classes, forward, latents, standing

BN_MODES = ("running", "batch", "standing")


class LoadedGenerator:
    """A trained generator: `images = g(z, labels)`.

    The weights lie on the devices, and every forward is split over all local ones; a forward always
    has the same size, so one program serves any number of samples.

    Attributes:
      dim_z, num_classes, resolution, channels: of the model.
      class_names: one name per class; empty where they are not known.
      config: the config it was trained with (at least its `model` section).
      bn_mode: which batch-norm statistics it takes; `set_bn_mode` chooses them.
      step: generator updates it has had, None when the directory does not say.
    """

    def __init__(self, config: ConfigDict, variables: dict, step: int | None = None):
        self.config, self.step = config, step
        self._generator, _ = models.build(config.model, dtype=config.compute_dtype)
        self._variables = self._trained = forward.place(variables)
        self.bn_mode = "running"
        m = config.model
        self.dim_z, self.num_classes = m.dim_z, m.num_classes
        self.class_names = classes.names_of(config)
        self.resolution, self.channels = m.resolution, m.channels

    def __call__(self, z: ArrayLike, labels: ArrayLike) -> np.ndarray:
        """Makes images; never changes z.

        A sample does not depend on its companions but for the rounding of the arithmetic, which may
        depend on a sample's place in its batch and on the devices: images made alone or among
        others differ by less than 1e-5 in float32, and by less than 0.1 with a `compute_dtype` of
        bfloat16. The same call on the same machine gives the same bits. In the 'batch' mode
        alone statistics come from the forward that a sample is made in (64 samples in a shuffled
        order, filled up with fresh ones).

        Args:
          z: latents [N, dim_z].
          labels: class ids [N] in [0, num_classes).

        Returns:
          Images [N, resolution, resolution, channels], float32 in [-1, 1].

        Raises:
          UserError: for shapes that do not fit, or labels outside their range.
        """
        z, labels = self.check_inputs(z, labels)
        images = np.empty((len(z), self.resolution, self.resolution, self.channels), np.float32)
        made = self._batches(z, labels, forward.BATCH_SIZE)
        for index, out in forward.ahead(made, lambda *batch: self._forward(*batch)[0]):
            images[index] = out
        return images

    def labels(self, text: str, option: str = "labels") -> np.ndarray:
        """Class ids of a list of names or ids.

        Args:
          text: such as 'cat,dog', '0,3' or '0-9'; see `classes.parse_classes`.
          option: where a user wrote it, for messages.

        Returns:
          int32 [K], for `g(z, labels)`.

        Raises:
          UserError: a class does not exist, or an item could mean several.
        """
        return classes.labels(self, text, option)

    @property
    def gammas(self) -> dict[str, float]:
        """{layer: gamma} of every self-attention block; at 0, as it starts, it does nothing."""
        return forward.gammas(self._variables)

    def replace(self, variables: dict, step: int | None = None) -> "LoadedGenerator":
        """The same network with other weights, in the 'running' mode; shares compiled programs.

        Args:
          variables: {params, spectral, batch_stats} of the same shapes.
          step: generator updates that they have had.

        Returns:
          A generator; this one stays as it is.
        """
        other = copy.copy(self)
        other._variables = other._trained = forward.place(variables)
        other.bn_mode, other.step = "running", step
        return other

    def attention(self, z: ArrayLike, labels: ArrayLike) -> dict[str, np.ndarray]:
        """Attention maps of every self-attention block.

        Args:
          z: latents [N, dim_z].
          labels: class ids [N].

        Returns:
          {layer: [N, Q, K]}: for each of the Q = H * W query pixels a distribution over the keys,
          both in row-major order; K = Q / 4, or Q with `model.attention_form='paper'`. Empty when
          the model has no attention.

        Raises:
          UserError: see `__call__`.
        """
        z, labels = self.check_inputs(z, labels)
        size = forward.BATCH_SIZE if self._batch_statistics else forward.ATTENTION_BATCH_SIZE
        order, parts = [], []

        def compute(*batch):
            return forward.attention_maps(self._forward(*batch, collections=("attention",))[1])

        for index, maps in forward.ahead(self._batches(z, labels, size), compute):
            order.append(index)
            parts.append(maps)
        inverse = np.argsort(np.concatenate(order)) if order else []
        layers = parts[0] if parts else {}
        return {name: np.concatenate([p[name] for p in parts])[inverse] for name in layers}

    def between(
        self,
        z: np.ndarray,
        labels: np.ndarray,
        others: np.ndarray,
        weights: np.ndarray,
        *,
        attention: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Makes images between two classes: all of them in one forward, compiled for their number.

        Args:
          z: latents [N, dim_z].
          labels, others: class ids [N].
          weights: of `others` [N], in [0, 1]. Of what depends on a class (embedding, gains and
            biases) the weighted mean of the two is taken.
          attention: whether the maps are returned.

        Returns:
          (images as of `__call__`, maps as of `attention`; {} where not asked for).

        Raises:
          UserError: see `__call__`; or a weight lies outside [0, 1].

        References:
          Brock et al. 2019, figure 8: interpolations between pairs (z, c).
        """
        z, labels = self.check_inputs(z, labels)
        others, weights = self.check_inputs(z, others)[1], forward.as_float32(weights, "weights")
        if weights.shape != labels.shape or ((weights < 0) | (weights > 1)).any():
            raise UserError(f"weights must be {len(z)} numbers from 0 to 1, one a sample")
        inputs = self._generator, self._variables, z, labels, others, weights
        wanted = ("attention",) if attention else ()
        images, sown = forward.between(*inputs, train=self._batch_statistics, collections=wanted)
        return jax.tree.map(np.asarray, (images, forward.attention_maps(sown)))

    def sample_z(
        self,
        seed: int,
        n: int,
        truncation: float | None = None,
        kind: str = "resample",
        *,
        first: int = 0,
    ) -> np.ndarray:
        """Draws latents; the bits of sample i of a seed depend on nothing but i and the seed.

        Args:
          seed: any integer of 32 bits, with or without a sign.
          n: number of latents, 0 or more.
          truncation: threshold T > 0, or None for none.
          kind: 'resample' redraws every |z_i| > T (Brock et al. 2019); 'scale' is T times a normal
            truncated to [-2, 2] (the TF-Hub models).
          first: number of the first sample.

        Returns:
          z [n, dim_z], float32.

        Raises:
          UserError: for another seed, number, truncation or kind, or latents that cannot be
            truncated.
        """
        for name, value in (("n", n), ("first", first)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise UserError(f"{name} is {value!r}; it must be an integer, at least 0")
        distribution = self.config.model.z_distribution
        how = {"truncation": truncation, "kind": kind, "distribution": distribution}
        return latents.draw(seed, range(first, first + n), self.dim_z, **how)

    def check_latents(
        self, seed: int, truncation: float | None = None, kind: str = "resample"
    ) -> None:
        """Raises UserError unless `sample_z` takes these arguments."""
        latents.check(seed, truncation, kind, self.config.model.z_distribution)

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

        Raises:
          UserError: for another mode, latents that `sample_z` refuses, or too few forwards.
        """
        check_bn_mode(mode)
        standing.check(batches, batch_size)
        self.check_latents(seed, truncation, kind)
        if mode != "standing":
            self.bn_mode, self._variables = mode, self._trained
            return
        z = self.sample_z(seed, batches * batch_size, truncation, kind)
        labels = latents.labels(seed, len(z), self.num_classes)
        parts = np.split(z, batches), np.split(labels, batches)
        self.set_standing(zip(*parts, strict=True))

    def set_standing(self, batches: Iterable[tuple[ArrayLike, ArrayLike]]) -> None:
        """Takes standing statistics from given batches.

        Args:
          batches: pairs of z [B, dim_z] and labels [B], one pair a training forward.
        """

        def moments(variables, *batch):
            wanted = {"train": True, "collections": ("spectral", "moments")}
            return forward.call(self._generator, variables, *batch, **wanted)[1]

        checked = (self.check_inputs(z, labels) for z, labels in batches)
        self._variables = forward.place(standing.accumulate(moments, self._trained, checked))
        self.bn_mode = "standing"

    @property
    def applied(self) -> tuple[nn.Module, dict]:
        """(the module, its variables on the devices with the statistics of `bn_mode`)."""
        return self._generator, self._variables

    @property
    def _batch_statistics(self) -> bool:
        return self.bn_mode == "batch"

    def _forward(self, z, labels, collections: tuple[str, ...] = ()):
        train = self._batch_statistics
        inputs = self._generator, self._variables, z, labels
        return forward.call(*inputs, train=train, collections=collections)

    def check_inputs(self, z: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """(z float32, labels int32) as the module takes them; UserError as `__call__`."""
        z, labels = forward.as_float32(z, "z"), np.asarray(labels)
        if z.ndim != 2 or z.shape[1] != self.dim_z:
            raise UserError(f"z has shape {z.shape}; this model takes [N, {self.dim_z}]")
        if labels.shape != (len(z),):
            raise UserError(f"labels have shape {labels.shape}; z asks for [{len(z)}]")
        return z, classes.check_labels(labels, self.num_classes)

    def _batches(self, z: np.ndarray, labels: np.ndarray, size: int) -> Iterator[tuple]:
        draw = self.sample_z if self._batch_statistics else None
        return batches.filled(z, labels, size, num_classes=self.num_classes, draw=draw)


def check_bn_mode(mode: str) -> None:
    """Raises UserError unless a mode is one of `BN_MODES`."""
    if mode not in BN_MODES:
        raise UserError(f"bn mode is {mode!r}; it must be one of {', '.join(BN_MODES)}")
