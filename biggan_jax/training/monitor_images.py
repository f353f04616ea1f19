"""The real images that D judges for the monitors: held-out ones and as many of the training set."""

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.data import Source, holdout
from biggan_jax.parallel import processes, sharding
from biggan_jax.training.monitors import Images

MOST = 512  # of either side; an accuracy of so many has an error of 2%


def read(source: Source, config: ConfigDict, mesh: Mesh) -> Images | None:
    """Reads the images and puts them on the devices, where they stay.

    Args:
      source: the training data.
      config: of the run; no more images of either side are taken than one update has, so that
        judging them costs less than an update.
      mesh: over which they are split.

    Returns:
      The images; None where none is held out.

    Raises:
      UserError: a record is unreadable and may not be replaced.
    """
    if source.held_out is None:
        return None
    train, held_out = holdout.both_sides(source, min(MOST, config.batch_size))
    indices = np.concatenate([train, held_out])
    rows = -(-len(indices) // mesh.size) * mesh.size  # filled up with an image of no weight
    side = np.repeat([0, 1, 2], [len(train), len(held_out), rows - len(indices)])
    if source.num_lanes:  # both sides of a lane together, for the process that has it
        order = np.argsort(source.lane_of[indices], kind="stable")
        indices, side[: len(order)] = indices[order], side[order]
    own = np.array_split(np.arange(rows), jax.process_count())[jax.process_index()]
    filled = np.resize(indices, rows)
    images, labels = processes.together(lambda: source.read(filled[own]))
    if config.model.num_classes == 1:
        labels = np.zeros_like(labels)
    arrays = Images(
        images.astype(np.float32) / 127.5 - 1,
        labels.astype(np.int32),
        (side[own] == 0).astype(np.float32),
        (side[own] == 1).astype(np.float32),
    )
    return sharding.global_batch(arrays, mesh)
