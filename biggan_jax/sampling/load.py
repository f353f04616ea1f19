"""From a directory to a trained network as a function."""

import sys
from pathlib import Path

from biggan_jax.sampling import standing
from biggan_jax.sampling.discriminator import LoadedDiscriminator
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import networks, orbax_noise, steps
from biggan_jax.storage import truncation_statistics as statistics
from biggan_jax.storage.weights import saved_names


@orbax_noise.logging_untouched()
def load_generator(
    directory: str | Path,
    *,
    step: int | str | None = None,
    ema: bool | str = True,
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
      directory: a workdir or a model directory; hf://USER/REPO or hf://USER/REPO@REVISION for one
        of the Hugging Face Hub; or digits-demo, the one that comes with the package.
      step: the number of a finished step of a workdir that still has it, or 'best' for the state
        with the best score; None takes the newest intact checkpoint.
      ema: take the averaged weights; False takes the raw ones, a name such as 'decay_0.999' or
        'profile_0.05' another of the averages that `ema.decays` and `ema.profiles` keep.
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
      UserError: for a directory without a usable model, or without this step.
    """
    held = steps.find(directory, step)
    weights = networks.of_generator(held, ema)
    saved = () if held.in_checkpoints else saved_names(held.directory)
    if weights == "g_ema" and saved and weights not in saved:
        # The best state of a follower holds what it scored, and nothing else.
        others = [name for name in ("g", *networks.averages(held)) if name in saved]
        if others:
            weights = others[0]
            what = "averaged weights" if weights == "g" else "weights g_ema"
            print(f"{held.directory} holds no {what}: using {weights}", file=sys.stderr)
    variables, found = networks.read(held, weights)
    if truncation_statistics is not None or hf_interpolation:
        t = 1.0 if truncation_statistics is None else truncation_statistics
        variables = statistics.select(variables, held.directory, t, hf_interpolation)
    generator = LoadedGenerator(held.config, variables, found)
    generator.set_bn_mode(
        bn_mode,
        standing_truncation,
        kind=standing_kind,
        batches=standing_batches,
        batch_size=standing_batch_size,
    )
    return generator


@orbax_noise.logging_untouched()
def load_discriminator(
    directory: str | Path, *, step: int | str | None = None
) -> LoadedDiscriminator:
    """Loads a discriminator from a workdir or a model directory.

    Args:
      directory, step: see `load_generator`.

    Returns:
      The discriminator.

    Raises:
      UserError: as `load_generator`.
    """
    held = steps.find(directory, step)
    return LoadedDiscriminator(held.config, *networks.read(held, "d"))
