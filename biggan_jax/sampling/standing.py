"""Standing statistics: batch-norm statistics taken anew from many forwards of a trained
generator."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from biggan_jax.errors import UserError

BATCHES = 16  # forwards that standing statistics are averaged over
BATCH_SIZE = 64  # samples of one forward


def check(batches: int, batch_size: int) -> None:
    """Raises UserError unless there are forwards to average over, of a batch each."""
    if batches < 1:
        raise UserError(f"standing batches are {batches}; set --standing-batches to 1 or more")
    if batch_size < 2:  # the variance of one sample says nothing about other samples
        raise UserError(
            f"standing batch size is {batch_size}; set --standing-batch-size to 2 or more"
        )


def accumulate(
    forward: Callable, variables: dict, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict:
    """Replaces the running statistics by the plain mean over training forwards.

    The variances are the biased ones of each batch, whatever `model.bn_variance` says of the
    running ones, and the power iterations go on from one forward to the next, as in
    BigGAN-PyTorch's `--accumulate_stats` (which asks for `--mybn`).

    Args:
      forward: `forward(variables, z, labels)` is a training forward that returns its new
        collections `spectral` and `moments`.
      variables: {params, spectral, batch_stats}; not changed.
      batches: pairs of z [B, dim_z] and labels [B], at least one.

    Returns:
      Variables with standing `batch_stats`, on the host, and the advanced `spectral`.

    References:
      Brock et al. 2019, section 3.1.
    """
    variables, total, count = dict(variables), None, 0
    for z, labels in batches:
        new = forward(variables, z, labels)
        if "spectral" in new:
            variables["spectral"] = new["spectral"]
        # On the host: one forward after another. CPUs with fewer cores than devices may give up a
        # sum over the devices when many forwards are under way.
        moments, count = jax.device_get(new["moments"]), count + 1
        total = moments if total is None else jax.tree.map(np.add, total, moments)
    assert count, "no batches"
    # `sow` stores tuples of one: unwrap them into the layout of batch_stats.
    mean = jax.tree.map(lambda x: x[0] / count, total, is_leaf=lambda x: isinstance(x, tuple))
    return variables | {"batch_stats": mean}
