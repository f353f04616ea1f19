"""Batches of one size out of any number of samples."""

from collections.abc import Callable, Iterator

import numpy as np

from biggan_jax.sampling import forward


def filled(
    z: np.ndarray,
    labels: np.ndarray,
    size: int,
    *,
    num_classes: int,
    draw: Callable[[int, int], np.ndarray] | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fills batches up so that one program serves any number of samples.

    Args:
      z: latents [N, dim_z].
      labels: class ids [N].
      size: of a batch.
      num_classes: of the model.
      draw: (seed, n) -> fresh latents, where statistics are those of a batch: it is then shuffled
        and filled up with these. None: nothing sees what it is filled up with.

    Yields:
      (indices, z, labels), the last two always of one size.
    """
    rng = np.random.default_rng(0)
    shuffled = draw is not None  # a batch of one class has the statistics of that class
    order = rng.permutation(len(z)) if shuffled else np.arange(len(z))
    # Batch statistics are always those of 64, whatever the number of devices.
    rows = size if shuffled else forward.rounded(size)
    for start in range(0, len(z), rows):
        index = order[start : start + rows]
        missing = rows - len(index)
        fill_z = np.zeros((missing, z.shape[1]), np.float32)
        if draw is not None:
            fill_z = draw(start, missing)
        fill_labels = rng.integers(0, num_classes, missing, np.int32)
        yield (
            index,
            np.concatenate([z[index], fill_z]),
            np.concatenate([labels[index], fill_labels]),
        )
