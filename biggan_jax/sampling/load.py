"""From a directory to a trained network as a function."""

import sys
from pathlib import Path

from biggan_jax.sampling import standing
from biggan_jax.sampling.discriminator import LoadedDiscriminator
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import networks
from biggan_jax.storage import truncation_statistics as statistics
from biggan_jax.storage.directory import open_directory
from biggan_jax.storage.weights import load_weights, saved_names


def load_generator(
    directory: str | Path,
    *,
    ema: bool = True,
    bn_mode: str = "running",
    standing_truncation: float | None = None,
    standing_kind: str = "resample",
    standing_batches: int = standing.BATCHES,
    standing_batch_size: int = standing.BATCH_SIZE,
    truncation_statistics: float | None = None,
    hf_interpolation: bool = False,
) -> LoadedGenerator:
    """Loads a generator from a workdir or a model directory.

    Args:
      directory: a workdir (its newest intact checkpoint is taken) or a model directory.
      ema: take the averaged weights; False takes the raw ones.
      bn_mode: 'running', 'batch' or 'standing'.
      standing_truncation, standing_kind: of the latents behind standing statistics; see
        `LoadedGenerator.sample_z`.
      standing_batches, standing_batch_size: forwards behind standing statistics, and samples of
        one of them.
      truncation_statistics: for which truncation, in [0, 1], the running statistics are taken, in
        a directory that holds them for several (imports of pretrained-biggan); unset: 1.
      hf_interpolation: interpolate between these as pytorch-pretrained-BigGAN does: reversed.

    Returns:
      The generator.

    Raises:
      UserError: for a directory without a usable model.
    """
    directory, config = open_directory(directory)
    name = "ema" if ema else "generator"
    if (directory / "checkpoints").is_dir():
        variables, step = networks.from_checkpoint(directory, config, name)
    else:
        weights, saved = "g_ema" if ema else "g", saved_names(directory)
        if ema and "g_ema" not in saved and "g" in saved:
            weights = "g"
            print(f"{directory} holds no averaged weights: using g", file=sys.stderr)
        variables, step = load_weights(directory, weights), None
    if truncation_statistics is not None or hf_interpolation:
        t = 1.0 if truncation_statistics is None else truncation_statistics
        variables = statistics.select(variables, directory, t, hf_interpolation)
    generator = LoadedGenerator(config, variables, step)
    generator.set_bn_mode(
        bn_mode,
        standing_truncation,
        kind=standing_kind,
        batches=standing_batches,
        batch_size=standing_batch_size,
    )
    return generator


def load_discriminator(directory: str | Path) -> LoadedDiscriminator:
    """Loads a discriminator from a workdir or a model directory; see `load_generator`."""
    directory, config = open_directory(directory)
    if (directory / "checkpoints").is_dir():
        return LoadedDiscriminator(
            config, networks.from_checkpoint(directory, config, "discriminator")[0]
        )
    return LoadedDiscriminator(config, load_weights(directory, "d"))
