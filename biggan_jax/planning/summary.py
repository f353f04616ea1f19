"""What a model is made of: layers, shapes, parameters and FLOPs, without compiling anything."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from biggan_jax.errors import UserError
from biggan_jax.models import walk
from biggan_jax.parallel import sharding
from biggan_jax.planning import estimate
from biggan_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Layer:
    """One top-level module of a player.

    Attributes:
      name: as in the parameter tree.
      kind: class name.
      shape: of its output, without the batch.
      parameters: trainable numbers in it.
      flops: of one eval forward of one sample, by XLA's count.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: float


def count_parameters(params: Any) -> int:
    """Trainable numbers in a parameter tree (of arrays or shapes)."""
    return sum(x.size for x in jax.tree.leaves(params))


def layers(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> list[Layer]:
    """Lists the top-level modules of a player in the order of their calls.

    Args:
      module: unbound generator or discriminator.
      *inputs: shapes of one batch of its inputs; FLOPs are divided by their first dimension.

    Returns:
      One `Layer` per module.
    """
    found = walk.walk(module, *inputs)
    return [_layer(call, found, inputs[0].shape[0]) for call in found.top_level()]


def _layer(call: walk.Call, found: walk.Walk, batch: int) -> Layer:
    variables = found.variables_of(call)

    def apply(variables, *arrays):
        return call.module.apply(variables, *arrays, False)

    return Layer(
        name=call.path[0],
        kind=type(call.module).__name__,
        shape=call.output.shape[1:],
        parameters=count_parameters(variables.get("params", {})),
        flops=_flops(apply, variables, *call.inputs) / batch,
    )


def _flops(function: Callable, *args) -> float:
    # Lowered for an accelerator wherever this runs: a CPU multiplies less (`models/winograd.py`).
    with jax.default_device(cpu_device()):
        lowered = jax.jit(function).trace(*args).lower(lowering_platforms=("tpu",))
    return float(lowered.cost_analysis().get("flops", 0.0))  # none where nothing is computed


def cpu_device() -> jax.Device:
    """Where FLOPs are counted; raises UserError where JAX was told to leave the CPU out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise UserError(
            "FLOPs are counted on the CPU, which JAX_PLATFORMS leaves out: add cpu to it, such as "
            "JAX_PLATFORMS=cuda,cpu"
        ) from None


def _on_cpu(train_step: TrainStep) -> TrainStep:
    """The step on one device of the CPU, where XLA counts FLOPs.

    The backends of accelerators count none before they compile, and none of their own kernels of
    attention after. Players that know of no mesh attend in plain JAX: without kernels, and without
    the CPU's loop over blocks, whose body would be counted once.
    """

    def plain(player: nn.Module) -> nn.Module:
        return player.clone(settings=dataclasses.replace(player.settings, mesh=None))

    return dataclasses.replace(
        train_step,
        generator=plain(train_step.generator),
        discriminator=plain(train_step.discriminator),
        mesh=sharding.make_mesh((1,), [cpu_device()]),
    )


def step_flops(train_step: TrainStep, batch_size: int) -> float:
    """FLOPs of one training step for each image of the batch, by XLA's count on the lowered step.

    One D and one G update are lowered without loops, at the size of a microbatch, and multiplied by
    how often they run: XLA counts the body of a loop once, whatever its length.

    Args:
      train_step: the bound step.
      batch_size: the global batch of one update.

    Returns:
      FLOPs of `num_d_steps` D updates and one G update, divided by batch_size; the mean where
      penalties are in one D update of several.
    """
    n = train_step.accumulation_steps
    single = _on_cpu(dataclasses.replace(train_step, accumulation_steps=1))
    state = jax.eval_shape(single.init, jax.random.key(0))
    b = batch_size // n
    g = train_step.generator
    z, labels = walk.generator_inputs(g, b)
    images, _ = walk.discriminator_inputs(single.discriminator, g.channels, b)
    d_arguments = (state, images, labels, z, labels)
    every = single.objective.penalty_every_steps if single.objective.is_lazy else 1
    # Of the mean update: XLA counts a branch whole, however seldom it is taken.
    due = {True: 1} if every == 1 else {True: 1, False: every - 1}
    d_flops = (
        sum(
            times * _flops(functools.partial(single.d_step, due=flag), *d_arguments)
            for flag, times in due.items()
        )
        / every
    )
    real = (images, labels) if single.objective.paired else ()
    g_flops = _flops(single.g_step, state, z, labels, *real)
    return (train_step.num_d_steps * d_flops + g_flops) / b


def summarize(train_step: TrainStep, unfused: TrainStep, batch_size: int) -> tuple[dict, list[str]]:
    """The numbers and the tables of `biggan inspect`.

    Args:
      train_step: the bound step.
      unfused: the same with resampling and convolution in the textbook order.
      batch_size: the global batch of one update.

    Returns:
      (JSON keys and values, lines for a person).
    """
    train_step, unfused = _on_cpu(train_step), _on_cpu(unfused)
    g, d = train_step.generator, train_step.discriminator
    state = jax.eval_shape(train_step.init, jax.random.key(0))
    counts = {
        "generator": count_parameters(state.generator.params),
        "discriminator": count_parameters(state.discriminator.params),
    }
    fused_flops, unfused_flops = step_flops(train_step, batch_size), step_flops(unfused, batch_size)
    lines, tables = [], {}
    for name, module, inputs in (
        ("generator", g, walk.generator_inputs(g, 2)),
        ("discriminator", d, walk.discriminator_inputs(d, g.channels, 2)),
    ):
        rows = layers(module, *inputs)
        tables[name] = [dataclasses.asdict(row) for row in rows]
        lines += [f"{name}: {counts[name]:,} parameters"]
        lines += [f"  {'layer':<14}{'kind':<20}{'output':<18}{'parameters':>12}{'MFLOP':>12}"]
        for row in rows:
            shape = " x ".join(map(str, row.shape))
            lines.append(
                f"  {row.name:<14}{row.kind:<20}{shape:<18}{row.parameters:>12,}"
                f"{row.flops / 1e6:>12,.1f}"
            )
    saved = round(1 - fused_flops / unfused_flops, 2) + 0.0  # never '-0%'
    lines += [
        "layer FLOPs: one eval forward of one sample, its share of the spectral norms included",
        f"training step: {fused_flops / 1e9:,.2f} GFLOP per image of the batch "
        f"({train_step.num_d_steps} D + 1 G updates); {unfused_flops / 1e9:,.2f} with unfused "
        f"resampling ({saved:.0%} saved)",
    ]
    result = {
        name: {"parameters": counts[name], "layers": tables[name]}
        for name in ("generator", "discriminator")
    }
    memory = estimate.footprint(train_step)
    lines.append(
        f"memory of a training step, about: {memory.state / 1e6:,.0f} MB of state, "
        f"{memory.gradients / 1e6:,.0f} MB of gradients, and {memory.per_image / 1e6:,.1f} MB for "
        "each image of a microbatch on one device"
    )
    result |= {
        "memory": {
            "state_bytes": memory.state,
            "gradient_bytes": memory.gradients,
            "bytes_per_image": memory.per_image,
        },
        "flops_per_sample_step": fused_flops,
        "flops_per_sample_step_unfused": unfused_flops,
    }
    return result, lines
