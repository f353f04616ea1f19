"""Time of the training step by layer and direction: a trace joined with the compiled program."""

import collections
import time
from collections.abc import Callable
from typing import Any

import jax

from biggan_jax.errors import UserError
from biggan_jax.planning import attribution, breakdown, hlo, shares, trace
from biggan_jax.planning.hlo import Instruction, Module

STEPS = 3
# Names of library kernels of accelerators, such as '__cudnn$convForward' and '__cublas$gemm'.
_LIBRARY = {"convolution": ("conv",), "dot": ("gemm", "matmul", "cublas")}


def measure(compiled: jax.stages.Compiled, run: Callable[[], Any]) -> dict[str, Any]:
    """Profiles a few steps.

    Args:
      compiled: the step.
      run: one step of it, to its end.

    Returns:
      layers, see `rows`; profiled_step_seconds, which they add up to; busy_cores (seconds of this
      process's processor time a second).

    Raises:
      UserError: on a backend whose profile does not name instructions.
    """
    passed, busy = [], []

    def steps() -> None:
        for _ in range(STEPS):
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            passed.append(time.perf_counter() - start)
            busy.append(time.process_time() - start_cpu)

    recorded = trace.record(steps)
    text = compiled.as_text()
    program = text.split(None, 2)[1].rstrip(",")  # 'HloModule jit_train_step, ...'
    module = hlo.Module(text)
    spans = trace.spans(recorded, program)
    if not spans:
        raise UserError(
            f"the profiler of {jax.default_backend()!r} does not say which instruction an event "
            "belongs to: leave out --layers, and look at a trace of --profile DIR in TensorBoard"
        )
    seconds = trace.seconds(spans, frozenset(module.containers()))
    seconds = {name: s / STEPS for name, s in seconds.items()}
    whole = sum(passed) / STEPS
    return {
        "layers": rows(module, seconds, whole),
        "profiled_step_seconds": whole,
        "busy_cores": sum(busy) / sum(passed),
    }


def rows(module: Module, seconds: dict[str, float], whole: float) -> list[dict[str, Any]]:
    """Time of one step by layer.

    Args:
      module: the compiled step.
      seconds: of its instructions.
      whole: that one step took.

    Returns:
      [{part, layer, direction, kind, seconds}], the largest first: part 'd_update/generator'
      (update and player), 'd_update', 'step' and so on, layer the path of the module in the player,
      direction as `attribution.Place` has it, kind as in `kind`, or 'idle' for the time in which no
      instruction ran. They add up to the whole.
    """
    places = attribution.places(module)
    instructions = {
        name: (i, places[name])
        for computation in module.scheduled
        for name, i in module.computations[computation].items()
    }
    total: collections.Counter = collections.Counter()
    for name, passed in seconds.items():
        if name in instructions:
            instruction, place = instructions[name]
            of_kind = kind(module, instruction)
        else:
            place, of_kind = attribution.NOWHERE, "unknown"
        player, _, layer = place.layer.partition("/")
        part = "/".join(p for p in (place.update, player) if p) or "step"
        total[part, layer, place.direction, of_kind] += passed
    total["step", "", "other", "idle"] += whole - sum(seconds.values())
    names = ("part", "layer", "direction", "kind", "seconds")
    return [dict(zip(names, (*key, s), strict=True)) for key, s in total.most_common() if s]


def kind(module: Module, instruction: Instruction) -> str:
    """As `breakdown.kind`, with 'convolution' and 'dot' apart and loops as 'control'."""
    if instruction.opcode in hlo.CONTROL:
        return "control"
    of_kind = breakdown.kind(module, instruction)
    if of_kind == "product":
        found = set(breakdown.opcodes(module, instruction))
        return "convolution" if "convolution" in found else "dot"
    if of_kind == "kernel":
        library = instruction.attributes.lower()
        for name, words in _LIBRARY.items():
            if any(word in library for word in words):
                return name
    return of_kind


def text(result: dict[str, Any]) -> str:
    """What `measure` found, for a person: sections one after the other."""
    seconds, found = result["profiled_step_seconds"], result["layers"]
    sections = [
        f"time by layer, {1e3 * seconds:.1f} ms a step while profiled, "
        f"{result['busy_cores']:.2f} cores busy; the largest rows:",
        shares.text(
            found,
            "seconds",
            ("ms", 1e-3),
            ("kind", "direction", "part", "layer"),
            {
                "part of the step": lambda row: row["part"],
                "direction": lambda row: row["direction"],
                "kind of instruction": lambda row: row["kind"],
            },
        ),
    ]
    return "\n".join(sections)
