"""A compiled program, read from its HLO text: its instructions and how often each one runs.

References:
  The HLO text format: https://openxla.org/xla/operation_semantics.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?"
                     r"([\w.\-]+)")  # fmt: skip
# Instructions that run other computations one instruction after the other.
CONTROL = frozenset({"while", "call", "conditional", "async-start"})

# XLA keeps what fits in a memory beside the cores (`S(1)` in a layout); the rest is HBM.
_ON_CHIP = re.compile(r"S\([1-9]")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      shape: of its result, as written, layout included; a tuple in parentheses.
      opcode: such as 'fusion'.
      operands: names of its inputs.
      attributes: what follows the operands, as written.
    """

    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def called(self) -> Iterator[tuple[str, str]]:
        """(role, name) of the computations that it runs."""
        yield from _CALLED.findall(self.attributes)
        for group in re.findall(r"\b(?:branch|called)_computations=\{([^}]*)\}", self.attributes):
            yield from (("branch", name.strip(" %")) for name in group.split(","))


Computation = dict[str, Instruction]


class Module:
    """A compiled program.

    Args:
      text: the HLO.
      taken: share of the runs of a conditional that take its true branch; None counts both
        branches as run.

    Attributes:
      computations: {name: {instruction name: Instruction}}.
      entry: name of the computation that runs first.
      runs: {name: how often it runs in one call of the program}.
      scheduled: names of the computations whose instructions run one by one; those of the others
        are fused into one instruction.
      unknown_loops: loops whose length is not written in the text; they count once.
    """

    def __init__(self, text: str, taken: float | None = None):
        self._taken = taken
        self.computations, self.entry = _parse(text)
        self.runs: dict[str, float] = dict.fromkeys(self.computations, 0)
        self.scheduled: set[str] = set()
        self.unknown_loops: set[str] = set()
        self._visit(self.entry, 1, True)

    def _visit(self, name: str, times: int, scheduled: bool) -> None:
        self.runs[name] += times
        if scheduled:
            self.scheduled.add(name)
        for label, instruction in self.computations[name].items():
            inner = times
            if instruction.opcode == "while":
                trips = self._trip_count(instruction)
                if trips is None:
                    self.unknown_loops.add(label)
                inner *= 1 if trips is None else trips
            runs = list(instruction.called())
            for i, (role, called) in enumerate(runs):
                if called in self.computations:
                    often = inner
                    if instruction.opcode == "conditional" and self._taken is not None:
                        # By an index or by a truth: the true branch is the second of two.
                        true = role == "true_computation" or (role == "branch" and i == 1)
                        often *= self._taken if true else 1 - self._taken
                    self._visit(called, often, scheduled and instruction.opcode in CONTROL)

    def _trip_count(self, loop: Instruction) -> int | None:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        # jax.lax.scan counts from 0 in ones: the only integer its condition knows is the length.
        condition = dict(loop.called()).get("condition", "")
        body = list(self.computations.get(condition, {}).values())
        for instruction in list(body):
            for _, called in instruction.called():
                body += self.computations.get(called, {}).values()
        limits = {i.operands[0] for i in body if i.opcode == "constant" and i.shape[:2] in "s3u3"}
        compares = [i for i in body if i.opcode == "compare" and "direction=LT" in i.attributes]
        if len(limits) == 1 and len(compares) == 1:
            return int(limits.pop())
        return None

    def containers(self) -> Iterator[str]:
        """Names of the instructions that only run others."""
        for name in self.scheduled:
            for label, instruction in self.computations[name].items():
                if instruction.opcode in CONTROL:
                    yield label

    def instructions(self) -> Iterator[tuple[Computation, Instruction, float]]:
        """(computation, instruction, how often it runs) of all that run."""
        for name, computation in self.computations.items():
            if self.runs[name]:
                for instruction in computation.values():
                    yield computation, instruction, self.runs[name]


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation = {}
    for line in text.splitlines():
        if line[:1] not in (" ", "}", ""):
            header = _COMPUTATION.match(line)
            if header:
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif start := _INSTRUCTION.match(line):
            current[start[1]] = _instruction(line, start.end())
    return computations, entry


def _instruction(line: str, start: int) -> Instruction:
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    shape = line[start:end]
    opening = line.index("(", end)
    closing = _closing(line, opening)
    inside = line[opening + 1 : closing - 1]
    if line[end:opening].strip() == "constant":
        operands = (inside,)
    else:
        operands = tuple(re.findall(r"%([\w.\-]+)", inside)) or tuple(inside.split(", "))
    return Instruction(shape, line[end:opening].strip(), operands, line[closing:])


def _closing(line: str, start: int) -> int:
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(line)):
        depth += (line[i] == "(") - (line[i] == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"unbalanced HLO line: {line[:80]}")


def dimensions(shape: str) -> tuple[int, ...]:
    """(2, 3) of 'f32[2,3]{1,0}'; of a tuple the first array's."""
    found = _ARRAY.search(shape)
    return tuple(int(n.lstrip("<=")) for n in found[2].split(",") if n) if found else ()


def nbytes(shape: str, hbm_only: bool = False) -> int:
    """Bytes of an array or a tuple of arrays, without the padding of tiles.

    With `hbm_only` what the compiler keeps in on-chip memory counts nothing.
    """
    total = 0
    for dtype, sizes, layout in _ARRAY.findall(shape):
        bits = _BITS.get(dtype)
        if bits is None:
            width = re.search(r"\d+", dtype)  # f32, s8, f8e4m3fn, c64
            bits = int(width[0]) if width else 0
        if not (hbm_only and _ON_CHIP.search(layout)):
            total += bits * math.prod(int(n.lstrip("<=")) for n in sizes.split(",") if n) // 8
    return total
