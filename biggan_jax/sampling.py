"""Trained networks as plain functions of numpy arrays: no dataset, no optimizer, no training
loop."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import checkpoint, latents, models
from biggan_jax.directory import open_directory
from biggan_jax.errors import UserError

BN_MODES = ("running", "batch", "standing")
STANDING_BATCHES = 16  # forwards that standing statistics are averaged over
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
        for index, *batch in self._batches(z, labels):
            train = self._bn_mode == "batch"
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
        latents.check_truncation(truncation)
        if not -(2**31) <= seed < 2**32:
            raise UserError(f"seed is {seed}; it must be an integer of 32 bits")
        if kind not in ("resample", "scale"):
            raise UserError(f"truncation kind is {kind!r}; it must be resample or scale")
        if n == 0:
            return np.zeros((0, self.dim_z), np.float32)

        def one(i):
            draw, redraw = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
            z = latents.sample(draw, (self.dim_z,))
            if truncation is None:
                return z
            if kind == "scale":
                return truncation * latents.truncate(redraw, z, 2.0)
            return latents.truncate(redraw, z, truncation)

        return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(n)))

    def set_bn_mode(self, mode: str, truncation: float | None = None, seed: int = 0) -> None:
        """Chooses the batch-norm statistics.

        Args:
          mode: 'running' (averages of training), 'batch' (of each forward) or 'standing' (plain
            mean over 16 training forwards of 64 samples; Brock et al. 2019, section 3.1).
          truncation: of the latents that standing statistics are taken from.
          seed: of these latents.
        """
        if mode not in BN_MODES:
            raise UserError(f"bn mode is {mode!r}; it must be one of {', '.join(BN_MODES)}")
        self._bn_mode, self._variables = mode, self._trained
        if mode != "standing":
            return
        z = self.sample_z(seed, STANDING_BATCHES * BATCH_SIZE, truncation)
        labels = np.random.default_rng(seed).integers(0, self.num_classes, len(z), np.int32)
        variables, total = dict(self._variables), None
        collections = ("spectral", "moments")
        for i in range(STANDING_BATCHES):
            part = slice(i * BATCH_SIZE, (i + 1) * BATCH_SIZE)
            _, new = self._forward(
                variables, z[part], labels[part], train=True, collections=collections
            )
            variables["spectral"] = new["spectral"]
            moments = new["moments"]
            total = moments if total is None else jax.tree.map(jnp.add, total, moments)
        # `sow` stores tuples of one: unwrap them into the layout of batch_stats.
        mean = jax.tree.map(
            lambda x: x[0] / STANDING_BATCHES, total, is_leaf=lambda x: isinstance(x, tuple)
        )
        self._variables = variables | {"batch_stats": mean}

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

    def _batches(self, z: np.ndarray, labels: np.ndarray):
        """Yields (indices, z, labels), the last two always of one size."""
        rng = np.random.default_rng(0)
        shuffled = self._bn_mode == "batch"  # a batch of one class has the statistics of that class
        order = rng.permutation(len(z)) if shuffled else np.arange(len(z))
        for start in range(0, len(z), BATCH_SIZE):
            index = order[start : start + BATCH_SIZE]
            missing = BATCH_SIZE - len(index)
            fill_z = rng.standard_normal((missing, self.dim_z), np.float32)
            fill_labels = rng.integers(0, self.num_classes, missing, np.int32)
            yield (
                index,
                np.concatenate([z[index], fill_z]),
                np.concatenate([labels[index], fill_labels]),
            )


class LoadedDiscriminator:
    """A trained discriminator: `logits = d(images, labels)`."""

    def __init__(self, config: ConfigDict, variables: dict):
        self.config = config
        _, self._discriminator = models.build(config.model, dtype=config.compute_dtype)
        self._variables = variables
        m = config.model
        self.num_classes, self.resolution, self.channels = m.num_classes, m.resolution, m.channels
        self._forward = jax.jit(lambda v, x, y: self._discriminator.apply(v, x, y, train=False))

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Judges images.

        Args:
          images: [N, resolution, resolution, channels], float in [-1, 1].
          labels: class ids [N] in [0, num_classes).

        Returns:
          Logits [N], float32; higher is more real.
        """
        images, labels = np.asarray(images, np.float32), np.asarray(labels)
        expected = (self.resolution, self.resolution, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise UserError(f"images have shape {images.shape}; this model takes [N, *{expected}]")
        if labels.shape != (len(images),):
            raise UserError(f"labels have shape {labels.shape}; images ask for [{len(images)}]")
        labels = check_labels(labels, self.num_classes)
        parts = [np.zeros(0, np.float32)]
        for i in range(0, len(images), BATCH_SIZE):
            part = images[i : i + BATCH_SIZE], labels[i : i + BATCH_SIZE]
            parts.append(np.asarray(self._forward(self._variables, *part)))
        return np.concatenate(parts)


def check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns labels as int32; UserError when one is no class id of the model."""
    labels = np.asarray(labels)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels are {labels.dtype}; class ids are integers")
    bad = labels[(labels < 0) | (labels >= num_classes)]
    if bad.size:
        raise UserError(
            f"class {bad[0]} does not exist: this model has classes 0 to {num_classes - 1}"
        )
    return labels.astype(np.int32)


def load_generator(
    directory: str | Path,
    *,
    ema: bool = True,
    bn_mode: str = "running",
    standing_truncation: float | None = None,
) -> LoadedGenerator:
    """Loads a generator from a workdir or a model directory.

    Args:
      directory: a workdir (its newest intact checkpoint is taken) or a model directory.
      ema: take the averaged weights; False takes the raw ones.
      bn_mode: 'running', 'batch' or 'standing'.
      standing_truncation: truncation of the latents behind standing statistics.

    Returns:
      The generator.

    Raises:
      UserError: for a directory without a usable model.
    """
    directory, config = open_directory(directory)
    name = "ema" if ema else "generator"
    if (directory / "checkpoints").is_dir():
        variables, step = _from_checkpoint(directory, config, name)
    else:
        weights = "g_ema" if ema else "g"
        found = lambda name: (directory / "weights" / name).exists()
        if ema and not found("g_ema") and found("g"):
            weights = "g"
            print(f"{directory} holds no averaged weights: using g", file=sys.stderr)
        variables, step = checkpoint.load_weights(directory, weights), None
    generator = LoadedGenerator(config, variables, step)
    generator.set_bn_mode(bn_mode, standing_truncation)
    return generator


def load_discriminator(directory: str | Path) -> LoadedDiscriminator:
    """Loads a discriminator from a workdir or a model directory; see `load_generator`."""
    directory, config = open_directory(directory)
    if (directory / "checkpoints").is_dir():
        return LoadedDiscriminator(config, _from_checkpoint(directory, config, "discriminator")[0])
    return LoadedDiscriminator(config, checkpoint.load_weights(directory, "d"))


def _from_checkpoint(directory: Path, config: ConfigDict, name: str) -> tuple[dict, int]:
    """(variables, step) of 'ema', 'generator' or 'discriminator', newest intact checkpoint."""
    generator, discriminator = models.build(config.model)
    size = config.model.resolution
    labels = jnp.zeros((1,), jnp.int32)
    if name == "discriminator":
        inputs = jnp.zeros((1, size, size, config.model.channels))
        init = lambda key: discriminator.init(key, inputs, labels)
    else:
        init = lambda key: generator.init(key, jnp.zeros((1, config.model.dim_z)), labels)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place: Any = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
    shapes = jax.eval_shape(init, jax.random.key(0))
    # Not what `sow` leaves behind, such as attention maps.
    stored = {c: shapes[c] for c in ("params", "spectral", "batch_stats") if c in shapes}
    target = {name: jax.tree.map(place, stored)}
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints")
    part, _, step = checkpoints.restore_partial(target)
    return part[name], step
