"""HBM of a compiled or refused step, and the largest batch that should fit."""

import dataclasses
import re

import jax
from ml_collections import ConfigDict

from biggan_jax.planning.chips import Chip

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """HBM of one device, in bytes.

    Attributes:
      arguments: state and batch.
      temporaries: what the program allocates while it runs.
      peak: of both.
      fits: whether the compiler accepts it.
    """

    arguments: int
    temporaries: int
    peak: int
    fits: bool


def of_compiled(compiled: jax.stages.Compiled) -> Memory:
    """What the compiler laid out for one device."""
    m = compiled.memory_analysis()
    arguments, temporaries = m.argument_size_in_bytes, m.temp_size_in_bytes
    total = arguments + m.output_size_in_bytes - m.alias_size_in_bytes + temporaries
    return Memory(arguments, temporaries, max(total, m.peak_memory_in_bytes), True)


def out_of_memory(message: str, arguments: int) -> Memory:
    """What a compiler that ran out of HBM says about the step.

    Args:
      message: its error.
      arguments: bytes of state and batch on one device.

    Returns:
      What the step would need; it does not fit.

    Raises:
      RuntimeError: when the error is another one.
    """
    sizes = re.findall(r"\b([\d.]+)([KMGT]?)(?:iB?)?\b", message.partition("Ran out of memory")[2])
    if "RESOURCE_EXHAUSTED" not in message or not sizes:
        raise RuntimeError(message)
    # The first size is what the program needs, arguments included; the second what there is.
    needed = int(float(sizes[0][0]) * _UNITS[sizes[0][1]])
    return Memory(arguments, max(needed - arguments, 0), max(needed, arguments), False)


def largest_batch(
    config: ConfigDict, num_devices: int, memory: Memory, inputs: int, chip: Chip
) -> int:
    """The largest batch that should fit, by a linear model of one compile.

    Temporaries and inputs are taken as proportional to the batch, the state as constant, and 5% of
    the HBM stays free. Temporaries that do not grow with the batch make this an underestimate.

    Args:
      config: the config that was compiled.
      num_devices: devices of its mesh.
      memory: of one device, from that compile.
      inputs: bytes of the batch on one device, part of its arguments.
      chip: the generation.

    Returns:
      A multiple of devices x accumulation steps; 0 when the state alone is too large.
    """
    unit = num_devices * config.accumulation_steps
    free = 0.95 * chip.hbm_bytes / chip.devices - (memory.arguments - inputs)
    per_image = (memory.temporaries + inputs) / config.batch_size
    return max(int(free / per_image) // unit * unit, 0)
