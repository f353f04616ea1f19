"""Where the HBM traffic of a compiled step comes from: by layer, direction and instruction."""

import collections
from collections.abc import Iterator
from typing import Any

from biggan_jax.planning import attribution, shares
from biggan_jax.planning import costs as costs_lib
from biggan_jax.planning.hlo import Instruction, Module

# The first set that has an opcode of a fusion names it; a single instruction goes by its own.
_KINDS = {
    "product": {"convolution", "dot"},
    "scatter": {"scatter", "select-and-scatter"},
    "gather": {"gather"},
    "reduce": {"reduce", "reduce-window"},
    "slice": {"dynamic-slice", "dynamic-update-slice"},
    "kernel": {"custom-call"},
}
# Values that only move; what is in none of these sets is element-wise.
_MOVES = frozenset(
    ("copy", "transpose", "reshape", "reverse", "broadcast", "slice", "pad", "concatenate",
     "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "iota", "copy-start",
     "slice-start")
)  # fmt: skip


def rows(module: Module, devices: int) -> list[dict[str, Any]]:
    """HBM bytes of one run of the program on one chip.

    Args:
      module: the compiled step of one device.
      devices: of a chip.

    Returns:
      [{layer, direction, kind, bytes}], the largest first: layer and direction as
      `attribution.Place` has them, kind 'product' (convolutions too), 'reduce', 'elementwise',
      'copy' and more. Their bytes add up to `costs.hbm_bytes` times the devices.
    """
    places = attribution.places(module)
    total: collections.Counter = collections.Counter()
    for name, instruction, traffic in costs_lib.traffic(module):
        place = places[name]
        total[place.name, place.direction, kind(module, instruction)] += devices * traffic
    return [
        {"layer": layer, "direction": direction, "kind": of_kind, "bytes": count}
        for (layer, direction, of_kind), count in total.most_common()
        if count
    ]


def kind(module: Module, instruction: Instruction) -> str:
    """What an instruction does: a collective's kind, or 'product', 'reduce', 'copy' and so on."""
    if collective := costs_lib.collective_kind(instruction):
        return collective
    found = set(opcodes(module, instruction))
    for name, of_kind in _KINDS.items():
        if found & of_kind:
            return name
    return "copy" if found <= _MOVES else "elementwise"


def opcodes(module: Module, instruction: Instruction) -> Iterator[str]:
    """Opcodes of what runs as one instruction: of all that is fused into it, or its own."""
    if instruction.opcode != "fusion":
        yield instruction.opcode
        return
    for inner in module.computations.get(dict(instruction.called()).get("calls", ""), {}).values():
        yield from opcodes(module, inner)


def text(traffic: list[dict[str, Any]]) -> str:
    """The largest rows as a table, and the sums by update, by direction and by kind."""
    whole = sum(row["bytes"] for row in traffic)
    parts = {
        "part of the step": lambda row: "/".join(row["layer"].split("/")[:2]),
        "direction": lambda row: row["direction"],
        "kind of instruction": lambda row: row["kind"],
    }
    columns = ("kind", "direction", "layer")
    return (
        f"HBM traffic by layer, {whole / 1e9:.2f} GB a chip and step; the largest rows:\n"
        + shares.text(traffic, "bytes", ("GB", 1e9), columns, parts)
    )
