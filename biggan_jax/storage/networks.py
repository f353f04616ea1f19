"""What a workdir or a model directory holds of the two networks."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.storage import checkpoint
from biggan_jax.storage.directory import open_directory
from biggan_jax.storage.weights import saved_names


def generator_weights(directory: str | Path) -> dict[str, bool]:
    """{name: the `ema` of `load_generator`} of the weights that a directory holds."""
    directory, _ = open_directory(directory)
    both = {"EMA": True, "raw": False}
    if (directory / "checkpoints").is_dir():
        return both
    files, saved = {"EMA": "g_ema", "raw": "g"}, saved_names(directory)
    found = {k: v for k, v in both.items() if files[k] in saved}
    return found or both  # with neither, loading says what is missing


def from_checkpoint(
    directory: Path, config: ConfigDict, name: str, step: int | None = None
) -> tuple[dict, int]:
    """(variables, step) of 'ema', 'generator' or 'discriminator'.

    They are of the newest intact checkpoint, unless a `step` is given.
    """
    generator, discriminator = models.build(config.model)
    size = config.model.resolution
    labels = jnp.zeros((1,), jnp.int32)
    if name == "discriminator":
        inputs = jnp.zeros((1, size, size, config.model.channels))
        init = lambda key: discriminator.init(key, inputs, labels)
    else:
        init = lambda key: generator.init(key, jnp.zeros((1, config.model.dim_z)), labels)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place: Any = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
    shapes = jax.eval_shape(init, jax.random.key(0))
    # Not what `sow` leaves behind, such as attention maps.
    stored = {c: shapes[c] for c in ("params", "spectral", "batch_stats") if c in shapes}
    target = {name: jax.tree.map(place, stored)}
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints")
    part, _, found = checkpoints.restore_partial(target, step=step)
    return part[name], found
