"""The weights of single networks: which a directory holds, and one of them from a checkpoint.

What a workdir keeps is a whole training state; a generator or a discriminator is a part of it.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.directory import open_directory
from biggan_jax.storage.weights import saved_names

COLLECTIONS = ("params", "spectral", "batch_stats")  # not what `sow` leaves, such as attention maps


def generator_weights(directory: str | Path) -> dict[str, bool]:
    """Lists the weights of the generator that a directory holds.

    Args:
      directory: a workdir or model directory.

    Returns:
      The `ema` of `load_generator` by name: 'EMA' is True, 'raw' is False. Both where there is
      neither: loading says what is missing.

    Raises:
      UserError: it is neither kind of directory.
    """
    directory, _ = open_directory(directory)
    both = {"EMA": True, "raw": False}
    if (directory / "checkpoints").is_dir():
        return both
    files, saved = {"EMA": "g_ema", "raw": "g"}, saved_names(directory)
    return {name: ema for name, ema in both.items() if files[name] in saved} or both


def shapes(model: ConfigDict, player: str) -> dict[str, Any]:
    """Gives the variables of one network without computing anything.

    Args:
      model: the `model` section of a config.
      player: 'g' or 'd'.

    Returns:
      A nested dict of `jax.ShapeDtypeStruct`: those of `COLLECTIONS` that the network has.

    Raises:
      UserError: no model can be built from the section.
    """
    generator, discriminator = models.build(model)
    labels = jnp.zeros((1,), jnp.int32)
    images = jnp.zeros((1, model.resolution, model.resolution, model.channels))

    def init(key: jax.Array) -> dict[str, Any]:
        if player == "d":
            return discriminator.init(key, images, labels)
        return generator.init(key, jnp.zeros((1, model.dim_z)), labels)

    variables = jax.eval_shape(init, jax.random.key(0))
    return {name: variables[name] for name in COLLECTIONS if name in variables}


def from_checkpoint(
    directory: Path, config: ConfigDict, name: str, step: int | None = None
) -> tuple[dict, int]:
    """Reads the variables of one network out of a checkpoint, onto one device.

    Args:
      directory: a workdir.
      config: of the run.
      name: 'ema', 'generator' or 'discriminator'.
      step: of the checkpoint; None takes the newest intact one.

    Returns:
      (variables, step).

    Raises:
      UserError: there is no intact checkpoint, or it does not fit the config.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)

    player = "d" if name == "discriminator" else "g"
    target = {name: jax.tree.map(placed, shapes(config.model, player))}
    part, _, found = Checkpoints(directory / "checkpoints").restore_partial(target, step=step)
    return part[name], found
