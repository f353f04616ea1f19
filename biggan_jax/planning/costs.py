"""What a compiled program costs: collectives, FLOPs, memory traffic.

XLA's own counts take the body of a loop once, whatever its length. Here every instruction counts
as often as it runs: the trip counts of the loops around it are multiplied.
"""

import math
import re
from collections.abc import Iterator

from biggan_jax.planning.hlo import Computation, Instruction, Module, dimensions, nbytes

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
# Instructions that move nothing: names of values, and what only holds other computations.
_FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
     "conditional", "after-all", "iota", "partition-id", "replica-id", "opt-barrier",
     "async-start", "async-update", "async-done", "domain")
)  # fmt: skip


def collective_kind(instruction: Instruction) -> str | None:
    """'all-reduce' for `all-reduce` and `all-reduce-start`; None for what is no collective."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def collective_bytes(computation: Computation, instruction: Instruction) -> int:
    """Bytes that one device takes part with: the larger side, so the whole of a gathered array."""
    operands = sum(nbytes(computation[o].shape) for o in instruction.operands if o in computation)
    result = nbytes(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        result -= operands  # its tuple carries the operands too
    return max(operands, result)


def group_size(instruction: Instruction, devices: int) -> int:
    """How many devices exchange with each other in a collective, of `devices` in all."""
    text = instruction.attributes
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    if found := re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", text):
        return int(found[1].split(",")[-1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(found[1].split(","))
    return devices


def collectives(module: Module) -> dict[str, dict[str, int]]:
    """{kind: {'count', 'bytes'}} of one run of the program on one device.

    Kinds are HLO opcodes with `-start` folded in; bytes as in `collective_bytes`. Whole numbers,
    also of what only some runs have; what any has counts once at least.
    """
    found: dict[str, dict[str, float]] = {}
    for computation, instruction, times in module.instructions():
        if kind := collective_kind(instruction):
            row = found.setdefault(kind, {"count": 0, "bytes": 0})
            row["count"] += times
            row["bytes"] += times * collective_bytes(computation, instruction)
    return {
        kind: {"count": max(1, round(row["count"])), "bytes": round(row["bytes"])}
        for kind, row in found.items()
    }


def wire_bytes(module: Module, devices: int) -> float:
    """Bytes that one device must at least send in one run, whatever the algorithm.

    An all-reduce of b bytes over n devices sends 2 b (n - 1) / n, a gather, a scatter or an
    all-to-all half of that, a permutation or a broadcast b.

    References:
      Chan et al. 2007, "Collective communication: theory, practice, and experience", table 1.
    """
    total = 0.0
    for computation, instruction, times in module.instructions():
        if kind := collective_kind(instruction):
            n = max(group_size(instruction, devices), 1)
            share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}
            part = share.get(kind, (n - 1) / n)
            total += times * part * collective_bytes(computation, instruction)
    return total


# Passes of the matrix units, which multiply in bfloat16, by what is asked of float32 factors
# (https://docs.jax.dev/en/latest/jax.lax.html#jax.lax.Precision: bfloat16_3x and 6x).
_PASSES = {"high": 3, "highest": 6}


def flops(module: Module, passes: bool = False) -> float:
    """FLOPs of the convolutions and matrix products of one run, on one device.

    A kernel written by hand counts by its own statement. Multiplications with padding or with the
    zeros of a dilation are not counted. Element-wise work is not either: it runs beside the matrix
    units.

    Args:
      module: the compiled program.
      passes: count a product of float32 factors as often as the matrix units of a TPU make it.
    """
    total = 0.0
    for computation, instruction, times in module.instructions():
        if passes:
            times *= _passes(computation, instruction)
        if instruction.opcode == "convolution":
            total += times * _conv_flops(computation, instruction)
        elif instruction.opcode == "dot":
            left = dimensions(computation[instruction.operands[0]].shape)
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
            contracted = math.prod(left[int(i)] for i in axes[1].split(",") if i) if axes else 1
            total += times * 2 * contracted * math.prod(dimensions(instruction.shape))
        elif instruction.opcode == "custom-call":
            stated = re.search(r'"cost_estimate":\{"flops":"(\d+)"', instruction.attributes)
            total += times * int(stated[1]) if stated else 0
    return total


def _passes(computation: Computation, instruction: Instruction) -> int:
    """How often the matrix units make one product: several times where float32 is kept."""
    asked = re.search(r"operand_precision=\{(\w+)", instruction.attributes)
    if asked is None or not instruction.operands or instruction.operands[0] not in computation:
        return 1
    exact = computation[instruction.operands[0]].shape.startswith("f32")
    return _PASSES.get(asked[1], 1) if exact else 1


def _conv_flops(computation: Computation, conv: Instruction) -> float:
    """2 x (multiplications that meet no padding and no hole of a dilation)."""
    left, right = (dimensions(computation[name].shape) for name in conv.operands[:2])
    out = dimensions(conv.shape)
    text = conv.attributes
    lhs, rhs, result = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", text).groups()
    window = re.search(r"window=\{([^}]*)\}", text)
    options = dict(p.split("=") for p in window[1].split()) if window else {}
    rank = len(lhs) - 2

    def along_axes(key: str) -> list[int]:
        """What is left out is 1 along every axis; a product has no axes."""
        return [int(n) for n in options[key].split("x")] if key in options else [1] * rank

    stride, base, holes = map(along_axes, ("stride", "lhs_dilate", "rhs_dilate"))
    pads = [p.split("_") for p in options.get("pad", "x".join(["0_0"] * rank)).split("x")]
    total = 2 * right[rhs.index("i")] * out[result.index("b")] * out[result.index("f")]
    for i in range(rank):
        size, kernel, outputs = (
            shape[labels.index(str(i))]
            for shape, labels in ((left, lhs), (right, rhs), (out, result))
        )
        reach = (size - 1) * base[i]  # last real input position; holes of `base` between them
        low = int(pads[i][0])
        total *= sum(
            0 <= at <= reach and at % base[i] == 0
            for o in range(outputs)
            for at in (o * stride[i] - low + k * holes[i] for k in range(kernel))
        )
    groups = re.search(r"batch_group_count=(\d+)", text)
    return total / int(groups[1]) if groups else total


def hbm_bytes(module: Module) -> int:
    """Bytes that one run reads from and writes to HBM, on one device.

    Every scheduled instruction reads its operands and writes its result, except what the compiler
    keeps in on-chip memory; of a gathered or sliced operand only the part that is read.
    """
    return sum(count for _, _, count in traffic(module))


def traffic(module: Module) -> Iterator[tuple[str, Instruction, int]]:
    """(name, instruction, its share of `hbm_bytes`) of every instruction that runs by itself."""
    for scheduled in module.scheduled:
        computation = module.computations[scheduled]
        for name, instruction in computation.items():
            count = _traffic(module, computation, instruction)
            yield name, instruction, round(module.runs[scheduled] * count)


def _traffic(module: Module, computation: Computation, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or not instruction.operands:
        return 0
    if opcode == "copy-start":  # (destination, source, context)
        return nbytes(instruction.shape, hbm_only=True)
    shapes = [computation[o].shape for o in instruction.operands if o in computation]
    read = [nbytes(shape, hbm_only=True) for shape in shapes]
    written = nbytes(instruction.shape, hbm_only=True)
    if opcode in ("dynamic-slice", "gather") and read:
        return min(read[0], written) + written
    if opcode == "dynamic-update-slice" and len(read) > 1:
        return 2 * read[1]
    if opcode.endswith("-start") and opcode != "all-reduce-start":
        return max(sum(read), written)  # its tuple carries the operands too
    if opcode == "fusion":
        called = module.computations.get(dict(instruction.called()).get("calls", ""), {})
        parts = _sliced_parameters(called)
        read = [min(size, parts.get(i, size)) for i, size in enumerate(read)]
    return sum(read) + written


def _sliced_parameters(fused: Computation) -> dict[int, int]:
    """{index: bytes read} of a fusion's parameters that are only sliced or gathered from."""
    parts = {}
    for name, parameter in fused.items():
        if parameter.opcode == "parameter":
            users = [i for i in fused.values() if name in i.operands]
            if users and all(
                i.opcode in ("dynamic-slice", "gather") and i.operands[0] == name for i in users
            ):
                parts[int(parameter.operands[0])] = sum(nbytes(i.shape) for i in users)
    return parts
