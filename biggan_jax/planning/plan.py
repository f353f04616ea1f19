"""`biggan plan`: the very train_step that `train` runs, compiled for TPUs that are not there.

libtpu holds the whole compiler of every generation and needs no chip. What it says about memory is
what the chip would allocate; times come from published peaks and are lower bounds.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.config import combinations
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.planning import (
    breakdown,
    chips,
    compiler,
    hlo,
    input_needs,
    roofline,
    suggestions,
    summary,
)
from biggan_jax.planning import memory as memory_lib
from biggan_jax.planning import report as report_lib
from biggan_jax.planning import traffic as traffic_lib
from biggan_jax.planning.chips import Topology
from biggan_jax.training import build as build_lib
from biggan_jax.training import jitted, step
from biggan_jax.training import state as state_lib

# What only a compiled step tells.
_UNKNOWN = ("flops_per_chip", "bytes_per_chip", "step_seconds_lower_bound", "images_per_second",
            "hours", "chip_hours", "cost_usd")  # fmt: skip


def plan(
    config: ConfigDict,
    topology: str,
    *,
    slices: int = 1,
    usd_per_chip_hour: float | None = None,
    fast: bool = False,
    traffic: bool = False,
    images: int | None = None,
    encode: str | None = None,
) -> dict[str, Any]:
    """Compiles one training step ahead of time and says what it needs.

    Args:
      config: a full config with `model.num_classes` set.
      topology: of one slice, such as v4:4x4x4.
      slices: slices joined by the data-center network.
      usd_per_chip_hour: price of one chip, for `cost_usd`.
      fast: compile with little effort, see `compiler.compile_step`.
      traffic: say where the HBM traffic comes from, `traffic` as in `breakdown.rows`.
      images: of the data set, for `input`; see `input_needs.needs`.
      encode: of its records.

    Returns:
      The JSON keys of `biggan plan`, per chip: fits, hbm_bytes (what a program may use),
      peak_bytes, argument_bytes, temporary_bytes, flops_per_chip (convolutions and matrix
      products), bytes_per_chip (HBM traffic), collectives {kind: {count, bytes}},
      step_seconds_lower_bound and what bounds it, hours, compile_seconds, input (`input_needs`) and
      more. A step that does not fit has fits = False, its memory, and no times.

    Raises:
      UserError: for an unknown topology, a batch that the devices do not divide, or no libtpu.
    """
    shape = chips.parse(topology)
    check(config, shape, slices)
    data = {"images": images, "encode": encode}
    input_needs.needs(config, shape, slices, None, **data)  # refuses before minutes are spent
    mesh = sharding.make_mesh(config.mesh, devices=compiler.devices(shape, slices))
    train_step = build_lib.train_step(config, mesh)
    start = time.perf_counter()
    lowered = lower(config, train_step)
    trace_seconds = time.perf_counter() - start
    inputs = _shard_bytes(jitted.abstract_batch(config, mesh))
    arguments = _shard_bytes(state_lib.abstract(train_step.init, mesh)) + inputs
    start = time.perf_counter()
    try:
        compiled = compiler.compile_step(lowered, fast=fast)
    except jax.errors.JaxRuntimeError as e:
        compiled, memory = None, memory_lib.out_of_memory(str(e), arguments)
    else:
        memory = memory_lib.of_compiled(compiled)
    compile_seconds = time.perf_counter() - start

    n = shape.chip.devices
    result = {
        "topology": shape.name,
        "slices": slices,
        "chips": shape.chips * slices,
        "devices": mesh.size,
        "batch_size": config.batch_size,
        "fits": memory.fits,
        "hbm_bytes": shape.chip.hbm_bytes,
        "peak_bytes": n * memory.peak,
        "argument_bytes": n * memory.arguments,
        "temporary_bytes": n * memory.temporaries,
        "flops_per_chip_expected": n * expected_flops(config, mesh.size),
    }
    if compiled is None:
        result |= dict.fromkeys(_UNKNOWN)
        result |= {"collectives": {}, "unexpected_collectives": []}
    else:
        # Penalties that are not in every update of D are the only branch of a step.
        game = train_step.objective
        taken = 1 / game.penalty_every_steps if game.is_lazy else None
        module = hlo.Module(compiled.as_text(), taken)
        result |= _of_program(compiled, module, train_step, shape, slices)
        result |= {"traffic": breakdown.rows(module, n)} if traffic else {}
        result |= _duration(config, result, usd_per_chip_hour)
    per_second = result["images_per_second"]
    result["input"] = input_needs.needs(config, shape, slices, per_second, **data)
    largest = memory_lib.largest_batch(config, mesh.size, memory, inputs, shape.chip)
    result["largest_batch_size"] = largest
    result["suggestions"] = suggestions.suggestions(config, result)
    result |= {"trace_seconds": trace_seconds, "compile_seconds": compile_seconds, "fast": fast}
    return result


def _of_program(
    compiled: jax.stages.Compiled,
    module: hlo.Module,
    train_step: step.TrainStep,
    topology: Topology,
    slices: int,
) -> dict[str, Any]:
    """What the compiled step costs, beside XLA's own counts and the predicted all-reduces."""
    predicted = topology.chip.devices * traffic_lib.all_reduce_bytes(train_step)
    analysis = compiled.cost_analysis()
    return roofline.costs(module, train_step.mesh, topology, slices, predicted) | {
        "all_reduce_bytes_predicted": predicted,
        "xla_flops_loops_once": float(analysis["flops"]),
        "xla_bytes_loops_once": float(analysis["bytes accessed"]),
    }


def run(
    load: Callable[[list[str]], ConfigDict],
    topology: str,
    *,
    sweep: Sequence[str] = (),
    slices: int = 1,
    usd_per_chip_hour: float | None = None,
    fast: bool = False,
    traffic: bool = False,
    images: int | None = None,
    encode: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, Any], str]:
    """Plans one config, or every config of a sweep.

    Args:
      load: the config under further overrides such as `--config.batch_size=512`.
      topology, slices, usd_per_chip_hour, fast, traffic, images, encode: as in `plan`.
      sweep: `key=a,b,c`, one for each key; every combination is planned.
      progress: told of every plan of a sweep before it is compiled.

    Returns:
      (JSON keys and values, text for a person); of a sweep {'plans': [...]}, each with its
      `overrides`.

    Raises:
      UserError: as `plan`, for any config of the sweep, or for a negative price.
    """
    check_price(usd_per_chip_hour)
    options = {"slices": slices, "usd_per_chip_hour": usd_per_chip_hour, "fast": fast}
    options |= {"traffic": traffic, "images": images, "encode": encode}
    found = each(
        load,
        sweep,
        lambda config: check(config, chips.parse(topology), slices),
        lambda config: plan(config, topology, **options),
        progress,
    )
    if not sweep:
        return found[0], report_lib.text(found[0])
    return {"plans": found}, report_lib.table(found)


def each(
    load: Callable[[list[str]], ConfigDict],
    sweep: Sequence[str],
    check: Callable[[ConfigDict], Any],
    plan: Callable[[ConfigDict], dict[str, Any]],
    progress: Callable[[str], None] | None,
) -> list[dict[str, Any]]:
    """The plan of one config, or of every config of a sweep with its `overrides`.

    Args:
      load, sweep, progress: as in `run`.
      check: raises UserError for a config that cannot be planned, before any is.
      plan: of one config.
    """
    points = combinations.parse(sweep)
    configs = [load([f"--config.{k}={v}" for k, v in point.items()]) for point in points]
    for config in configs:  # before minutes are spent on the first
        check(config)
    if not sweep:
        return [plan(configs[0])]
    plans = []
    for i, (point, config) in enumerate(zip(points, configs, strict=True)):
        name = " ".join(f"{k}={v}" for k, v in point.items())
        if progress is not None:
            progress(f"plan {i + 1} of {len(points)}: {name}")
        plans.append({"overrides": point} | plan(config))
    return plans


def check_price(usd_per_chip_hour: float | None) -> None:
    """Raises UserError for what no chip costs."""
    if usd_per_chip_hour is not None and not 0 <= usd_per_chip_hour < math.inf:
        raise UserError(f"--usd-per-chip-hour is {usd_per_chip_hour}; set it to 0 or more")


def check_slices(slices: int) -> None:
    """Raises UserError for less than one slice."""
    if slices < 1:
        raise UserError(f"--slices is {slices}; set it to 1 or more")


def check(config: ConfigDict, topology: Topology, slices: int) -> None:
    """Raises UserError for what is wrong without the compiler."""
    check_slices(slices)
    size = topology.chips * slices * topology.chip.devices
    asked = tuple(config.mesh)
    config_lib.validate(config, size if -1 in asked else math.prod(asked))


def lower(config: ConfigDict, train_step: step.TrainStep) -> jax.stages.Lowered:
    """Lowers the jitted step for the devices of its mesh, without any array."""
    state = state_lib.abstract(train_step.init, train_step.mesh)
    batch = jitted.abstract_batch(config, train_step.mesh)
    return step.jit_train_step(train_step).lower(state, batch)


def _shard_bytes(tree: Any) -> int:
    """Bytes of one device's part of a tree of sharded shapes."""
    total = 0
    for x in jax.tree.leaves(tree):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        total += math.prod(x.sharding.shard_shape(x.shape)) * (8 if key else x.dtype.itemsize)
    return total


def _duration(config: ConfigDict, result: dict, usd_per_chip_hour: float | None) -> dict[str, Any]:
    seconds = result["step_seconds_lower_bound"]
    hours = config.num_steps * seconds / 3600
    price = usd_per_chip_hour
    return {
        "images_per_second": config.num_d_steps * config.batch_size / seconds,
        "hours": hours,
        "chip_hours": hours * result["chips"],
        "cost_usd": None if price is None else hours * result["chips"] * price,
    }


def expected_flops(config: ConfigDict, num_devices: int) -> float:
    """FLOPs of one device's share of a step by the layer table's count (`biggan inspect`)."""
    alone = build_lib.train_step(config, sharding.make_mesh((1, 1), jax.devices("cpu")))
    local = max(config.batch_size // num_devices, 1)
    return summary.step_flops(alone, local) * local
