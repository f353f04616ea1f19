"""The weights of single networks: which a directory holds, and one of them from a checkpoint.

What a workdir keeps is a whole training state; a generator or a discriminator is a part of it.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.config import averages as averages_lib
from biggan_jax.errors import UserError, did_you_mean, some
from biggan_jax.storage import integrity, steps, tensor_file
from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.digest import named_leaves
from biggan_jax.storage.weights import NETWORKS, load_weights, saved_names

COLLECTIONS = ("params", "spectral", "batch_stats")  # not what `sow` leaves, such as attention maps


def generator_weights(directory: str | Path, step: int | str | None = None) -> dict[str, bool]:
    """Lists the weights of the generator that a directory holds.

    Args:
      directory: a workdir or model directory.
      step: see `steps.find`.

    Returns:
      The `ema` of `load_generator` by name: 'EMA' is True, 'raw' is False. Both where there is
      neither: loading says what is missing.

    Raises:
      UserError: it is neither kind of directory.
    """
    held = steps.find(directory, step)
    both = {"EMA": True, "raw": False}
    if held.in_checkpoints:
        return both
    files, saved = {"EMA": "g_ema", "raw": "g"}, saved_names(held.directory)
    return {name: ema for name, ema in both.items() if files[name] in saved} or both


def averages(held: steps.Held) -> tuple[str, ...]:
    """Lists the averages of G beside the main one that are kept with a state.

    Args:
      held: from `steps.find`.

    Returns:
      Their names, as `config.averages` makes them.
    """
    if not held.in_checkpoints:
        return tuple(name for name in saved_names(held.directory) if averages_lib.is_name(name))
    # A run may have taken them up, or left them, after this checkpoint.
    checkpoints = Checkpoints(held.directory / "checkpoints")
    step = checkpoints.latest_step() if held.step is None else held.step
    try:
        arrays = integrity.read_record(checkpoints.directory / str(step))["arrays"]
    except (integrity.CorruptError, OSError):
        return averages_lib.names(held.config.ema)  # of the intact one that is read in its place
    parts = (name.split("/") for name in arrays)
    return tuple(dict.fromkeys(part[1] for part in parts if part[0] == "averages"))


def of_generator(held: steps.Held, ema: bool | str) -> str:
    """The weights of G that are meant.

    Args:
      held: from `steps.find`.
      ema: True is the main average, False the raw weights; a name is that average.

    Returns:
      A name for `read`.

    Raises:
      UserError: no average has this name.
    """
    if not isinstance(ema, str):
        return "g_ema" if ema else "g"
    if ema == averages_lib.MAIN:
        return "g_ema"
    there = (averages_lib.MAIN, *averages(held))
    if ema in there:
        return ema
    if not held.in_checkpoints and there[1:] == () and "g_ema" not in saved_names(held.directory):
        raise UserError(
            f"--ema {ema}: {held.directory} holds raw weights alone, and no average of them: leave "
            "--ema out"
        )
    more = ""
    if len(there) == 1:
        more = (
            "; a run keeps more of them that is trained with ema.decays or ema.profiles, as by "
            "`biggan train --config.ema.decays=0.99,0.999`"
        )
    hint = did_you_mean(averages_lib.meant(ema, there), there)
    at = "" if held.step is None else f"step {held.step} of "
    raise UserError(
        f"--ema {ema}: {at}{held.directory} has no such average{hint}: it has "
        f"{some(there, 12)}{more}"
    )


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


def inspected(
    directory: str | Path, step: int | str | None = None
) -> tuple[ConfigDict, int | None]:
    """The config of a state, and its step; its weights are read where the step was asked for.

    Args:
      directory, step: see `steps.find`.

    Returns:
      (config, step), step None where nothing says it.

    Raises:
      UserError: there is no such state, or it is corrupt or not finite.
    """
    held = steps.find(directory, step)
    if step is None:
        return held.config, steps.used(directory)
    saved = saved_names(held.directory)
    for name in NETWORKS:
        if held.in_checkpoints or name in saved:
            read(held, name)
    return held.config, held.step


def read(held: steps.Held, name: str) -> tuple[dict, int | None]:
    """Reads the variables of one network onto one device.

    Args:
      held: from `steps.find`.
      name: of its weights: 'g', 'g_ema', 'd' or one of `averages`.

    Returns:
      (variables, step), step None where a model directory does not say.

    Raises:
      UserError: they are missing, corrupt, not finite, or do not fit the config.
    """
    if held.in_checkpoints:
        part = NETWORKS.get(name, name)
        return from_checkpoint(held.directory, held.config, part, held.step)
    variables = load_weights(held.directory, name)
    file = tensor_file.path_in(held.directory)
    if file is not None and not (held.directory / "weights").is_dir():
        # Unlike `weights/`, no config lies beside these arrays.
        player = "d" if name == "d" else "g"
        tensor_file.check_shapes(
            file, named_leaves(variables), named_leaves(shapes(held.config.model, player))
        )
    return variables, held.step


def from_checkpoint(
    directory: Path, config: ConfigDict, name: str, step: int | None = None
) -> tuple[dict, int]:
    """Reads the variables of one network out of a checkpoint, onto one device.

    Args:
      directory: a workdir.
      config: of the run.
      name: 'ema', 'generator', 'discriminator' or one of `averages`.
      step: of the checkpoint; None takes the newest intact one.

    Returns:
      (variables, step).

    Raises:
      UserError: there is no intact checkpoint, or it is not finite, or does not fit the config.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)

    player = "d" if name == "discriminator" else "g"
    target = {name: jax.tree.map(placed, shapes(config.model, player))}
    if averages_lib.is_name(name):
        part, found = read_part(directory, {"averages": target}, step)
        return part["averages"][name], found
    part, found = read_part(directory, target, step)
    return part[name], found


def read_part(directory: Path, target: dict, step: int | None = None) -> tuple[dict, int]:
    """Reads a part of a checkpoint.

    Args:
      directory: a workdir.
      target: see `Checkpoints.restore_partial`.
      step: of the checkpoint; None takes the newest intact one.

    Returns:
      (the part, step).

    Raises:
      UserError: as `from_checkpoint`.
    """
    checkpoints = Checkpoints(directory / "checkpoints")
    if step is None:
        part, _, found = checkpoints.restore_partial(target)
        return part, found
    damage: list[str] = []
    try:
        part, _, found = checkpoints.restore_partial(target, step=step, on_warning=damage.append)
    except UserError as error:
        if not damage:
            raise
        others = [str(other) for other in reversed(checkpoints.all_steps()) if other != step]
        have = f", or take another step ({some(others, 9)})" if others else ""
        raise UserError(f"{damage[0]}; put a copy of it back{have}") from error
    return part, found
