"""`biggan bench --suite`: the shapes that matter, beside what they took on this machine before.

Every round runs every shape once, and a program that never changes with them, so that all see the
same hours of a shared machine. The shortest time of a shape counts; what looks slower is measured
again before it is called so.
"""

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import biggan_jax
from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.planning import baseline, machine, shares, suite_shapes
from biggan_jax.planning.suite_shapes import Prepared, Shape

ROUNDS = 7
ROUNDS_AGAIN = 10  # for what looks slower
ROUND_SECONDS = 0.25  # of one shape in one round, at least one run
REFERENCE = "reference"

Progress = Callable[[str], None]


def run(
    *,
    table: Path | None = None,
    update: bool = False,
    bound: float = baseline.STEP_BOUND,
    only: str | None = None,
    progress: Progress = print,
) -> tuple[dict[str, Any], str, bool]:
    """Times the suite and holds it against the stored table of this machine.

    Args:
      table: file of the table; one for this machine in the user's cache by default. It is written
        where it is missing.
      update: write what was measured into the table.
      bound: times the stored figure from which a shape is slower, more than 1.
      only: names of shapes, joined by commas; all by default.
      progress: told what is going on.

    Returns:
      (JSON keys and values, text for a person, whether anything is slower).

    Raises:
      UserError: for a bound of 1 or less, an unknown shape, or a file that is no table.
    """
    if bound <= 1:
        raise UserError(f"--bound is {bound}; set it to more than 1, such as 1.1")
    shapes = choose(only)
    identity = machine.identity()
    path = baseline.default_path(identity) if table is None else table
    stored = baseline.load(path)
    if stored and (other := baseline.differences(stored, identity)):
        progress(f"{path} was measured with another {', '.join(other)}: ratios compare the two")
    with _cold_compilation():
        timings = _measure(shapes, stored, bound, progress)
    result = _result(timings, stored, bound)
    result |= {"table": str(path), "machine": identity, "bound": bound}
    result["written"] = update or stored is None
    if result["written"]:
        baseline.save(path, _merged(stored, result, keep=set(result["shapes"]) != _names()))
    slower = bool(result["slower"] or result["compiles_slower"]) and not update
    return result, text(result, stored), slower


def choose(only: str | None) -> list[Shape]:
    """Shapes by name, in the order of the suite."""
    if only is None:
        return list(suite_shapes.SHAPES)
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in _names():
            hint = did_you_mean(name, _names())
            raise UserError(f"--only: no shape {name!r}{hint}; there are {', '.join(_names())}")
    if not names:
        raise UserError("--only names no shape; leave it out for all of them")
    return [shape for shape in suite_shapes.SHAPES if shape.name in names]


def _names() -> dict[str, Shape]:
    return {shape.name: shape for shape in suite_shapes.SHAPES}


@dataclasses.dataclass
class Timing:
    """Durations of one shape so far.

    Attributes:
      prepared: what runs.
      seconds: of one run, one entry a round.
      compile_seconds: the shortest so far; None where there is no program.
    """

    prepared: Prepared
    seconds: list[float] = dataclasses.field(default_factory=list)
    compile_seconds: float | None = None

    def again(self) -> None:
        """Adds one round: the shortest of its runs."""
        runs, first = [], time.perf_counter()
        while not runs or time.perf_counter() - first < ROUND_SECONDS:
            start = time.perf_counter()
            self.prepared.run()
            runs.append(time.perf_counter() - start)
        self.seconds.append(min(runs))

    def row(self) -> dict[str, float | None]:
        """The figures of the table."""
        best = min(self.seconds)
        return {
            "seconds": best,
            "images_per_second": self.prepared.images / best,
            "compile_seconds": self.compile_seconds,
        }


def _measure(
    shapes: list[Shape], stored: dict | None, bound: float, progress: Progress
) -> dict[str, Timing]:
    timings = {REFERENCE: Timing(_reference())}
    for i, shape in enumerate(shapes):
        progress(f"preparing {shape.name} ({i + 1} of {len(shapes)})")
        try:
            prepared = suite_shapes.prepare(shape)
        except ImportError as e:
            progress(f"{shape.name} is left out: {e}")
            continue
        prepared.run()  # caches and allocations of the first run
        timings[shape.name] = Timing(prepared, compile_seconds=prepared.compile_seconds)
    progress(f"timing {len(timings) - 1} shapes, {ROUNDS} rounds")
    _rounds(timings.values(), ROUNDS)
    doubtful = _result(timings, stored, bound)["slower"]
    if doubtful:
        progress(f"measuring again: {', '.join(doubtful)}")
        _rounds([timings[name] for name in (REFERENCE, *doubtful)], ROUNDS_AGAIN)
    for shape in shapes:
        if shape.name in _result(timings, stored, bound)["compiles_slower"]:
            progress(f"compiling {shape.name} again")
            seconds = suite_shapes.prepare(shape).compile_seconds
            timing = timings[shape.name]
            timing.compile_seconds = min(timing.compile_seconds, seconds)
    return timings


def _rounds(timings, rounds: int) -> None:
    for _ in range(rounds):
        for timing in timings:
            timing.again()


def _reference() -> Prepared:
    """Products and copies that no change of this package touches: how fast the machine is now."""
    x = jnp.ones((1024, 1024), jnp.float32)
    y = jnp.ones((4 << 20,), jnp.float32)
    program = jax.jit(lambda x, y: (x @ x, y + 1))

    def run() -> None:
        jax.block_until_ready(program(x, y))

    run()
    return Prepared(run, 0, None)


@contextlib.contextmanager
def _cold_compilation() -> Iterator[None]:
    """Compiles everything anew: programs from a cache would have no compile time."""
    usual = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", usual)


def _result(timings: dict[str, Timing], stored: dict | None, bound: float) -> dict[str, Any]:
    reference = min(timings[REFERENCE].seconds)
    slowdown = reference / stored["reference_seconds"] if stored else None
    rows, slower, compiles_slower = {}, [], []
    for name, timing in timings.items():
        if name == REFERENCE:
            continue
        rows[name] = row = timing.row()
        before = stored["shapes"].get(name) if stored else None
        verdict = baseline.judge(row, before, bound, slowdown or 1.0)
        row |= {"ratio": verdict.ratio, "compile_ratio": verdict.compile_ratio}
        slower += [name] * verdict.slower
        compiles_slower += [name] * verdict.compiles_slower
    return {
        "shapes": rows,
        "slower": slower,
        "compiles_slower": compiles_slower,
        "reference_seconds": reference,
        "reference_ratio": slowdown,
    }


def _merged(stored: dict | None, result: dict, keep: bool) -> dict[str, Any]:
    """The table to be written: where only some shapes ran, the others stay as they were."""
    rows, reference = {}, result["reference_seconds"]
    if stored and keep:
        rows, reference = dict(stored["shapes"]), min(reference, stored["reference_seconds"])
    for name, row in result["shapes"].items():
        rows[name] = {key: row[key] for key in ("seconds", "compile_seconds")}
    return {
        "machine": result["machine"],
        "version": biggan_jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "reference_seconds": reference,
        "shapes": rows,
    }


def text(result: dict[str, Any], stored: dict[str, Any] | None) -> str:
    """Figures beside the stored ones, and what is slower."""

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    table = [["images/s", "ms", "ratio", "compile s", "ratio", "shape"]]
    for name, row in result["shapes"].items():
        table.append([
            number(row["images_per_second"], 1), number(1e3 * row["seconds"], 1),
            number(row["ratio"], 2), number(row["compile_seconds"], 1),
            number(row["compile_ratio"], 2), name,
        ])  # fmt: skip
    unchanged = [number(1e3 * result["reference_seconds"], 1), number(result["reference_ratio"], 2)]
    table.append(["-", *unchanged, "-", "-", "the machine itself"])
    lines = [machine.describe(result["machine"]), *shares.aligned(table, numbers=5)]
    if stored is None:
        return "\n".join([*lines, f"no table of this machine was there: wrote {result['table']}"])
    lines.append(f"ratios: time by that of {stored.get('date', '?')} in {result['table']}")
    bounds = {"slower": result["bound"], "compiles_slower": baseline.COMPILE_BOUND}
    words = {"slower": "slower", "compiles_slower": "compiles longer"}
    found = [
        f"{name}: {words[kind]} than {limit:g} times the table"
        for kind, limit in bounds.items()
        for name in result[kind]
    ]
    if found and (result["reference_ratio"] or 0) > result["bound"]:
        found.append(
            f"the machine itself is {result['reference_ratio']:.2f} times slower than for the "
            "table: run it again when nothing else runs"
        )
    lines += found or [f"nothing is slower than {result['bound']:g} times the table"]
    if result["written"]:
        lines.append(f"wrote {result['table']}")
    return "\n".join(lines)
