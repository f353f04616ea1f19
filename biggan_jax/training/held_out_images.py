"""Which held-out images D judges for the control of augmentation; they stay on the devices."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.config import augmentation
from biggan_jax.data import Source, holdout
from biggan_jax.parallel import processes, sharding
from biggan_jax.storage import label_counts, paths
from biggan_jax.training.held_out import AdjustedSteps, HeldOut
from biggan_jax.training.step import TrainStep

ENOUGH = 256  # of which Karras et al. 2020 take the mean (four minibatches of 64)


def adjusting(
    step: Callable,
    train_step: TrainStep,
    config: ConfigDict,
    workdir: Path,
    source: Source,
    start: int,
) -> Callable:
    """A run's step with the adjustment of augmentation behind it, where held-out images say it.

    Args:
      step: the jitted step.
      train_step: the same, bound.
      config: of the run.
      workdir: of the run.
      source: its data, some of them held out.
      start: finished steps of the state that the run goes on from.

    Returns:
      A function like the step, or the step itself where the config has no need of more.

    Raises:
      UserError: a record is unreadable and may not be replaced.
    """
    if not augmentation.uses_held_out(config.augment):
        return step
    held_out = read(source, config, workdir, train_step.mesh)
    return AdjustedSteps(step, train_step, config.augment, held_out, start)


def read(source: Source, config: ConfigDict, workdir: Path, mesh: Mesh) -> HeldOut:
    """Reads the images and puts them on the devices; all processes of a run call it.

    They are the same in every run of the same data. Those that do not fill the last forward of D
    are judged twice, under other draws, and together weigh what one weighs.

    Args:
      source: the data, some of them held out.
      config: of the run. No more images are taken than D has seen since the last adjustment, nor,
        beyond one update's, than `ENOUGH`.
      workdir: of the run, where labels are kept that take long to read.
      mesh: over which the images are split.

    Returns:
      The images, weighed as often as the training stream has their classes (`data.balance`).

    Raises:
      UserError: a record is unreadable and may not be replaced.
    """
    batch, width = config.batch_size, config.batch_size // config.accumulation_steps
    most = min(config.augment.every_steps * batch, max(batch, ENOUGH))
    chosen = holdout.drawn(source, most)
    rows = -(-len(chosen) // width) * width
    times = np.bincount(np.arange(rows) % len(chosen))
    weights = np.resize(_weights(chosen, source, config, workdir) / times, rows)
    place = holdout.by_columns(np.arange(rows), width, source)
    own = np.array_split(place, jax.process_count(), axis=1)[jax.process_index()]
    indices = np.resize(chosen, rows)[own]
    images, labels = processes.together(lambda: source.read(indices.ravel()))
    if config.model.num_classes == 1:
        labels = np.zeros_like(labels)
    arrays = HeldOut(
        images.reshape(*own.shape, *images.shape[1:]),
        labels.reshape(own.shape).astype(np.int32),
        weights[own].astype(np.float32),
    )
    return sharding.global_batch(arrays, mesh, axis=1)


def _weights(chosen: np.ndarray, source: Source, config: ConfigDict, workdir: Path) -> np.ndarray:
    """Of the images, in proportion to how often the stream has one of their class, [n]."""
    if not config.data.balance:
        return np.ones(len(chosen))
    with processes.main_first():  # where the labels must be read, it keeps them
        labels = label_counts.labels(source, paths.cache_folder(workdir))
    counts = np.bincount(labels[~source.held_out], minlength=source.num_classes)
    counts = counts[labels[chosen]].astype(np.float64)
    # A class of which no image is left to train on is none that the stream has.
    found = np.where(counts > 0, np.maximum(counts, 1) ** -config.data.balance, 0.0)
    return found if found.any() else np.ones(len(chosen))
