"""A small residual classifier of the training data, whose features need no download.

Its features suit data that Inception never saw (digits, grey images, few pixels), and its logits
say whether a class-conditional sample shows the class that was asked for: the classification
accuracy score turned round (Ravuri & Vinyals 2019, "Classification Accuracy Score for Conditional
Generative Models").
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import checks, fitting, network_files
from biggan_jax.metrics.features import BatchRunner, check_images
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.metrics.residual import FEATURES, LAST_SIZE, Network

# Part of the identity of a cached classifier: raise it when training or the network change.
VERSION = 1
FILE = "classifier.npz"
BATCH_SIZE = 256  # images of one run, over all devices of a process


@functools.partial(jax.jit, static_argnames="num_classes")
def _forward(variables: Any, images: jax.Array, num_classes: int) -> dict[str, jax.Array]:
    return Network(num_classes).apply(variables, images)


class Classifier:
    """A trained classifier; an `Extractor`.

    Args:
      variables: params and batch_stats of `Network`.
      meta: what `fit` recorded: `num_classes`, `resolution`, `channels`, `holdout_accuracy`, ...
      batch_size: images per device batch, over all devices.
      devices: all local devices when absent.
    """

    name = "classifier"
    resize = "none"
    feature_dim = FEATURES
    has_logits = True

    def __init__(
        self,
        variables: Any,
        meta: dict[str, Any],
        *,
        batch_size: int = BATCH_SIZE,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.variables = variables
        self.meta = meta
        self.digest = network_files.weights_digest(variables)
        forward = functools.partial(_forward, num_classes=self.num_classes)
        self._run = BatchRunner(forward, variables, batch_size, devices)

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        return self.meta["resolution"]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.meta["num_classes"]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        images = check_images(images)
        expected = (self.resolution, self.resolution, self.meta["channels"])
        if images.shape[1:] != expected:
            raise UserError(
                f"the classifier was fitted on images {list(expected)}, these are "
                f"{list(images.shape[1:])}: fit one on images of that shape"
            )
        return self._run(images)

    def to_bytes(self) -> bytes:
        """Gives the contents of the file `FILE` of a directory that `load` reads."""
        return network_files.to_bytes(self.variables, self.meta)

    @classmethod
    def load(cls, directory: str | Path, **settings: Any) -> "Classifier":
        """Reads a classifier.

        Args:
          directory: the directory.
          **settings: `batch_size` and `devices`.

        Returns:
          The classifier.

        Raises:
          UserError: there is no classifier, or it is damaged.
        """
        path = Path(directory) / FILE
        try:
            loaded = network_files.load(path, "delete it, and it is fitted again")
        except FileNotFoundError:
            raise UserError(f"no classifier in {directory}: fit one and save it there") from None
        return cls(*loaded, **settings)

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two outputs of a call: features float32 [N, 64] and logits float32 [N, K]."""
        out = self(images)
        return out["features"], out["logits"]


def fit(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Trains a classifier on a data set; the same arguments give the same weights.

    Args:
      images: uint8 [N, R, R, C], R at least 4.
      labels: integers [N] in [0, num_classes).
      num_classes: number of classes.
      seed: of the initialisation, the held-out images, the order and the shifts.
      recipe: how to train; the default suits small images on a CPU (digits at 16 pixels in less
        than a minute, Fashion-MNIST at 32 pixels in a few minutes on two cores).
      devices: where the classifier runs, all local devices when absent; it is trained on the first.
      progress: called with (steps done, steps in all).

    Returns:
      The classifier; its `meta` records the recipe, the counts and the accuracy on held-out images.

    Raises:
      UserError: images or labels are of another dtype or shape, or outside their range.
    """
    recipe = recipe or Recipe()
    seed = checks.seed(seed)
    images, labels = _check_data(images, labels, num_classes)
    held = _hold_out(labels, recipe.holdout, seed)
    train_at, held_at = np.flatnonzero(~held), np.flatnonzero(held)
    variables, steps = fitting.train(
        images,
        labels,
        train_at,
        num_classes,
        seed=seed,
        recipe=recipe,
        device=(devices or jax.local_devices())[0],
        progress=progress,
    )
    meta = {
        "version": VERSION,
        **dataclasses.asdict(recipe),
        "seed": seed,
        "steps": steps,
        "resolution": images.shape[1],
        "channels": images.shape[3],
        "num_classes": num_classes,
        "train_count": len(train_at),
        "holdout_count": len(held_at),
        "holdout_accuracy": None,
    }
    classifier = Classifier(variables, meta, devices=devices)
    if len(held_at):
        guess = classifier(images[held_at])["logits"].argmax(-1)
        meta["holdout_accuracy"] = float((guess == labels[held_at]).mean())
    return classifier


def _check_data(images, labels, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = check_images(images), np.asarray(labels)
    if images.shape[1] != images.shape[2] or images.shape[1] < LAST_SIZE:
        raise UserError(
            f"the classifier needs square images of at least {LAST_SIZE} pixels, these are "
            f"{list(images.shape[1:3])}: give larger ones"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"labels must be integers [{len(images)}], one for each image, these are "
            f"{labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"labels range from {labels.min()} to {labels.max()}, but {num_classes} classes allow "
            f"0 to {num_classes - 1}: give the number of classes that the data has"
        )
    return images, labels


def _hold_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool [N]: about `share` of each class, and never the last image of one."""
    rng = np.random.default_rng([seed, 1])
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == label))
        held[at[: int(round(share * len(at)))]] = len(at) > 1
    return held


def cached(
    folder: str | Path,
    data_digest: str,
    read: Callable[[], tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    *,
    write: Callable[[Path, bytes], None],
    resolution: int,
    channels: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    refit: bool = False,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Loads the classifier of a data set from a cache, or fits and caches it.

    Args:
      folder: of the cache.
      data_digest: identifies the training images and labels, whatever their resolution.
      read: gives the images and labels, as `fit` takes them; not called when the cache has it.
      num_classes: number of classes.
      write: writes a file so that it appears whole, such as `storage.paths.write_bytes`.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      seed: as for `fit`, like the following ones.
      recipe: how to train.
      refit: fit even when the cache has it; a damaged file in the cache is refused without it.
      devices: all local devices when absent.
      progress: called with (steps done, steps in all) of a fit.

    Returns:
      The classifier; its `meta` also holds `data_digest`.

    Raises:
      UserError: the cached file is damaged, or `read` gives what `fit` refuses.
    """
    path = place(folder, data_digest, num_classes, resolution, channels, seed, recipe)
    if (path / FILE).exists() and not refit:
        return Classifier.load(path, devices=devices)
    images, labels = read()
    classifier = fit(
        images, labels, num_classes, seed=seed, recipe=recipe, devices=devices, progress=progress
    )
    classifier.meta["data_digest"] = data_digest
    if jax.process_index() == 0:
        write(path / FILE, classifier.to_bytes())
    return classifier


def place(
    folder: str | Path,
    data_digest: str,
    num_classes: int,
    resolution: int,
    channels: int,
    seed: int = 0,
    recipe: Recipe | None = None,
) -> Path:
    """Where `cached`, which takes the same arguments, keeps a classifier."""
    identity = {
        "version": VERSION,
        **dataclasses.asdict(recipe or Recipe()),
        "data_digest": data_digest,
        "num_classes": num_classes,
        "resolution": resolution,
        "channels": channels,
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Path(folder) / f"classifier-{key}"
