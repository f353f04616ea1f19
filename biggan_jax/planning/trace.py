"""Where the time of a compiled program goes, instruction by instruction, read from a trace.

XLA's CPU backend names the instruction of every event itself, its GPU backend that of every kernel.
`jax.profiler.ProfileData` reads the trace without TensorFlow.

References:
  JAX's profiler: https://docs.jax.dev/en/latest/profiling.html.
"""

import collections
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

_HOST = "/host:CPU"
_DEVICE = re.compile(r"/device:GPU:\d+")


UNNAMED = ""  # in place of an instruction's name


class Span(NamedTuple):
    """One run of one instruction.

    Attributes:
      start, end: nanoseconds of one clock.
      name: of the instruction.
    """

    start: float
    end: float
    name: str


def record(run: Callable[[], None]) -> ProfileData:
    """Profiles a function.

    Args:
      run: called once; returns when the device has finished.

    Returns:
      The trace.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's calls would only slow the host down
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, profiler_options=options)
        try:
            run()
        finally:
            jax.profiler.stop_trace()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return ProfileData.from_serialized_xspace(path.read_bytes())


def spans(trace: ProfileData, program: str) -> list[Span]:
    """The instructions that ran.

    Args:
      trace: from `record`.
      program: name of the HLO module, such as 'jit_train_step'; others count nothing.

    Returns:
      Every run of an instruction on the first accelerator, or on the host where there is none.
      Empty where the backend does not say what its events belong to.
    """
    planes = {plane.name: plane for plane in trace.planes}
    devices = sorted(name for name in planes if _DEVICE.fullmatch(name))
    if devices:
        return _of_device(planes[devices[0]], program)
    return _of_host(planes[_HOST], program) if _HOST in planes else []


def _of_host(plane, program: str) -> list[Span]:
    found, ends = [], {}
    for line in plane.lines:
        for event in line.events:
            stats = dict(event.stats)
            if stats.get("hlo_module") == program and "hlo_op" in stats:
                found.append((stats.get("_p"), _span(event, stats["hlo_op"])))
            elif event.name.startswith("end: ") and "_c" in stats:
                ends[stats["_c"]] = event.start_ns
    # A large product hands its tiles to the threads and returns at once; a second event, joined by
    # a number, tells when the last tile was done.
    return [s._replace(end=max(s.end, ends.get(flow, s.end))) for flow, s in found]


def _of_device(plane, program: str) -> list[Span]:
    found = []
    for line in plane.lines:
        if line.name.startswith("Stream"):
            for event in line.events:
                stats = dict(event.stats)
                if stats.get("hlo_module", program) == program:
                    # Kernels of a CUDA graph do not say what they belong to.
                    found.append(_span(event, stats.get("hlo_op", UNNAMED)))
    return found if any(span.name != UNNAMED for span in found) else []


def _span(event, name: str) -> Span:
    return Span(event.start_ns, event.start_ns + event.duration_ns, name)


def seconds(found: Iterable[Span], containers: frozenset[str] = frozenset()) -> dict[str, float]:
    """Shares the time in which something ran among the instructions that ran.

    Where several run at the same time, each has an equal part of it, so that the sum is the time
    that passed and not that of all cores together.

    Args:
      found: from `spans`.
      containers: instructions that run others, such as loops: they count where these do not run.

    Returns:
      {name of the instruction: seconds}.
    """
    moments = []
    for span in found:
        moments += [(span.start, 1, span.name), (span.end, -1, span.name)]
    moments.sort()
    running: dict[bool, collections.Counter] = {
        True: collections.Counter(), False: collections.Counter(),
    }  # fmt: skip
    total: collections.Counter = collections.Counter()
    last = 0.0
    for now, change, name in moments:
        active = running[False] or running[True]
        if now > last and active:
            part = (now - last) / 1e9 / active.total()
            for other, count in active.items():
                total[other] += count * part
        last = now
        counter = running[name in containers]
        counter[name] += change
        if not counter[name]:
            del counter[name]
    return dict(total)
