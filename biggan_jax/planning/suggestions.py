"""What to change when a step does not fit: settings that the config can really take."""

from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.planning.chips import GIB
from biggan_jax.training import build as build_lib

_KEPT_FREE = 0.05  # of the HBM, as `memory.largest_batch` keeps it
_FSDP = (8, 4, 2)  # devices that share one copy of the weights, as many as there are


def suggestions(config: ConfigDict, result: dict[str, Any]) -> list[str]:
    """What to change when a step does not fit, most exact first; [] when it does.

    Every override can be pasted behind the command that was run: the config takes it.

    Args:
      config: the config that was compiled.
      result: of `plan.plan`.

    Returns:
      Lines for a person.
    """
    if result["fits"]:
        return []
    needed, have = result["peak_bytes"] / GIB, result["hbm_bytes"] / GIB
    lines = [f"it needs {needed:.2f} GiB a chip, {have:.2f} GiB are there"]
    for reason, key, value in _candidates(config, result):
        if _takes(config, result["devices"], key, value):
            text = str(value).replace(" ", "")
            override = f"--config.{key}={text}"
            # A shell would take parentheses for its own.
            lines.append(f"{reason}: " + (f"'{override}'" if "(" in text else override))
    room = _room(result)
    if result["temporary_bytes"] > room > 0:
        times = -(-result["temporary_bytes"] // int(room))
        lines.append(f"or {times} times the chips for this batch")
    return lines


def _room(result: dict[str, Any]) -> float:
    """Bytes of a chip that temporaries may take beside the state."""
    return (1 - _KEPT_FREE) * result["hbm_bytes"] - result["argument_bytes"]


def _candidates(config: ConfigDict, result: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(reason, key, value) of what may help."""
    if result["largest_batch_size"]:
        yield "a smaller batch", "batch_size", result["largest_batch_size"]
    now, moving, room = config.accumulation_steps, result["temporary_bytes"], _room(result)
    local = config.batch_size // result["devices"]
    for n in range(now + 1, local + 1):
        if moving * now / n <= room and _takes(config, result["devices"], "accumulation_steps", n):
            reason = f"accumulation, the same batch in {n} parts with their own batch statistics"
            yield reason, "accumulation_steps", n
            break
    if config.compute_dtype == "float32":
        yield "half the activations", "compute_dtype", "bfloat16"
    size = config.model.resolution
    if not config.remat:
        reason = "recompute the largest blocks in the backward pass"
        yield reason, "remat", (size // 2, size)
    # Several slices keep a copy of the weights inside each.
    inside = result["devices"] // result["slices"]
    shared = next((n for n in _FSDP if inside % n == 0), 1)
    data, *fsdp = tuple(config.mesh)
    split = fsdp and fsdp[0] != 1
    if shared > 1 and not split and result["argument_bytes"] > 0.3 * result["hbm_bytes"]:
        reason = f"parameters and optimizer sharded over {shared} devices"
        yield reason, "mesh", (data if data == -1 else data // shared, shared)


def _takes(config: ConfigDict, num_devices: int, key: str, value: Any) -> bool:
    """Whether a config under one more override is valid and can be built."""
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed[key] = value
    try:
        config_lib.validate(changed, num_devices)
        build_lib.train_step(changed, sharding.make_mesh((1, 1), jax.devices("cpu")))
    except UserError:
        return False
    return True
