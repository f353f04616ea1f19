"""Batch-norm statistics for every truncation, as the TF-Hub and pytorch-pretrained models have.

Running statistics depend on how the latents are truncated. These models hold n rows of them (51),
row i for a truncation of i / (n - 1); `weights/truncation_statistics` keeps them all.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp

from biggan_jax.errors import UserError
from biggan_jax.storage.weights import load_weights, saved_names

NAME = "truncation_statistics"


def has_rows(directory: str | Path) -> bool:
    """Whether a model directory holds statistics for several truncations."""
    return NAME in saved_names(directory)


def default(directory: str | Path, truncation: float | None) -> float | None:
    """Which statistics samples of a truncation take: its own, None where there are none."""
    if truncation is None or not has_rows(directory):
        return None
    return min(max(truncation, 0.0), 1.0)


def position(truncation: float, rows: int, hf_interpolation: bool = False) -> tuple[int, float]:
    """Where the statistics of a truncation lie among the rows.

    Args:
      truncation: in [0, 1].
      rows: n.
      hf_interpolation: as pytorch-pretrained-BigGAN, which gives row 21.25 for 21.75 and, where
        the division is inexact (0.14, 0.28, 0.56, 0.58, 0.94), a neighbouring row.

    Returns:
      (i, weight): (1 - weight) * row i + weight * row i + 1.

    Raises:
      UserError: the truncation is outside [0, 1].
    """
    if not 0 <= truncation <= 1:
        raise UserError(
            f"the truncation of the statistics is {truncation}; they were taken for 0 to 1: set "
            "--truncation-statistics within it"
        )
    if hf_interpolation:
        fraction, index = math.modf(truncation / (1 / (rows - 1)))
        return int(index), 1 - fraction if fraction else 0.0
    # Rounded: 0.58 * 50 is 28.999999999999996.
    fraction, index = math.modf(round(truncation * (rows - 1), 9))
    return int(index), fraction


def select(variables: dict, directory: str | Path, truncation: float, hf_interpolation=False):
    """A generator's variables with the statistics of one truncation.

    Args:
      variables: {params, spectral, batch_stats}.
      directory: the model directory they are from.
      truncation: in [0, 1].
      hf_interpolation: see `position`.

    Returns:
      The variables with another batch_stats.

    Raises:
      UserError: the directory has no such statistics, or the truncation is outside [0, 1].
    """
    if not has_rows(directory):
        raise UserError(
            f"{directory} holds no statistics for several truncations (only imports of "
            "pretrained-biggan do): leave out --truncation-statistics and --hf-interpolation"
        )
    table = load_weights(directory, NAME)["batch_stats"]
    rows = len(jax.tree.leaves(table)[0])
    index, weight = position(truncation, rows, hf_interpolation)

    def mix(x: jax.Array) -> jax.Array:
        return x[index] if not weight else (1 - weight) * x[index] + weight * x[index + 1]

    return variables | {"batch_stats": jax.tree.map(lambda x: mix(jnp.asarray(x)), table)}
