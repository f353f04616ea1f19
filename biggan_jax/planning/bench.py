"""Speed of the very step that `train` runs: synthetic batches on the device, never a dataset."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.models import layout
from biggan_jax.parallel import devices, sharding
from biggan_jax.planning import forms, layer_times, summary
from biggan_jax.storage import compiled as compiled_lib
from biggan_jax.training import build as build_lib
from biggan_jax.training import jitted as jitted_lib
from biggan_jax.training import monitors, step
from biggan_jax.training import state as state_lib
from biggan_jax.training.jitted import Kind

WARM_UP_STEPS = 2
TIMED_STEPS = 5
INPUT_SECONDS = 3.0  # of reading that `--data` times, after as long a warm-up


def bench(
    config: ConfigDict,
    *,
    profile: Path | None = None,
    layers: bool = False,
    with_monitors: bool = False,
) -> dict[str, Any]:
    """Times the training step.

    Args:
      config: a full config with `model.num_classes` set.
      profile: directory for a trace of the timed steps (TensorBoard's profile plugin reads it).
      layers: profile a few more steps, and say where their time goes.
      with_monitors: time the monitors of a state too, without held-out images.

    Returns:
      images_per_second (real images consumed: d_steps * batch per update), step_seconds (median of
      5 after 2 warm-ups, `Stepper.in_a_row`; with penalties in one update of several the mean of a
      step over a period, and beside it penalty_step_seconds and plain_step_seconds, of steps with
      and without any),
      compile_seconds, compiled_before (whether the program came from the
      cache of compiled programs), peak_bytes (of device memory, as the backend reports it, or as
      the compiler laid it out), flops_per_second; with `with_monitors` also monitor_seconds (median
      of 5) and monitor_share (of the time of the steps between two calls, `monitor_every_steps` of
      them or `monitors.DEFAULT_CADENCE`); with `layers` also what
      `layer_times.measure` returns and, on a CPU, the forms of its convolutions (`forms.of_step`).
    """
    if profile is not None:
        profile.mkdir(parents=True, exist_ok=True)  # before minutes are spent on the rest
    summary.cpu_device()
    stepper = Stepper(config)
    found = {}
    for kind in stepper.kinds:
        for _ in range(WARM_UP_STEPS - 1):  # the first of those in a row does not count either
            stepper(kind)
        traced = profile is not None and kind == stepper.kinds[0]  # it has penalties, if any has
        with jax.profiler.trace(str(profile)) if traced else contextlib.nullcontext():
            found[kind] = statistics.median(stepper.in_a_row(kind, TIMED_STEPS))
    step_seconds = mean_seconds(found)
    flops = summary.step_flops(stepper.train_step, config.batch_size) * config.batch_size
    result = {
        "images_per_second": config.batch_size * config.num_d_steps / step_seconds,
        "step_seconds": step_seconds,
        **_apart(found),
        "compile_seconds": stepper.compile_seconds,
        "compiled_before": stepper.from_cache,
        "peak_bytes": max(map(peak_bytes, stepper.programs.values())),
        "flops_per_second": flops / step_seconds,
    }
    if with_monitors:
        result["monitor_seconds"] = stepper.monitor_seconds()
        cadence = config.monitor_every_steps or monitors.DEFAULT_CADENCE
        result["monitor_share"] = result["monitor_seconds"] / (cadence * step_seconds)
    if layers:
        result |= layer_times.measure(stepper.compiled, stepper)
        if layout.platform(stepper.train_step.mesh) == "cpu":
            result["forms"] = forms.of_step(stepper.train_step, config.batch_size)
    return result


def mean_seconds(seconds: Mapping[Kind, float]) -> float:
    """The mean step of a run whose kinds of steps take so long."""
    return sum(kind.share * value for kind, value in seconds.items()) / sum(
        kind.share for kind in seconds
    )


def _apart(seconds: Mapping[Kind, float]) -> dict[str, float]:
    """The mean steps with and without penalties, where they are in one update of several."""
    sides = {
        "penalty_step_seconds": {k: v for k, v in seconds.items() if k.due and any(k.due)},
        "plain_step_seconds": {k: v for k, v in seconds.items() if k.due and not any(k.due)},
    }
    return {name: mean_seconds(side) for name, side in sides.items() if side}


class Stepper:
    """The compiled step of a config with a state and a batch on the device; a call runs it once.

    Args:
      config: a full config with `model.num_classes` set.
      create: the first state of (step, mesh); that of a training run by default.

    Attributes:
      train_step: the bound step.
      kinds: of steps, where they differ in the penalties that are due; the first has some.
      programs: the program of each kind.
      compiled: the program, that of the most frequent kind where they differ.
      compile_seconds: of lowering and compiling all, or of finding them in the cache.
      from_cache: whether all were found there.
    """

    def __init__(self, config: ConfigDict, create: Callable | None = None):
        mesh = sharding.make_mesh(config.mesh)
        config_lib.validate(config, mesh.size)
        self.train_step = build_lib.train_step(config, mesh)
        devices.tell(list(mesh.devices.flat))
        if create is None:
            self._state = state_lib.create(self.train_step.init, config.seed, mesh)
        else:
            self._state = create(self.train_step, mesh)
        self._batch = sharding.global_batch(synthetic_batch(config), mesh, axis=1)
        start = time.perf_counter()
        jitted = step.jit_train_step(self.train_step)
        self.kinds = jitted_lib.kinds(self.train_step)
        self.programs, hits = {}, []
        lazy = isinstance(jitted, jitted_lib.LazySteps)
        for kind in self.kinds:
            if lazy or not self.programs:  # elsewhere one program has a branch for all
                program = jitted.of_kind(kind) if lazy else jitted
                with compiled_lib.answers() as answers:
                    compiled = program.lower(self._state, self._batch).compile()
                hits.append(answers.hits > 0)
            self.programs[kind] = compiled
        self.from_cache = all(hits)
        self.compile_seconds = time.perf_counter() - start
        self._usual = max(self.kinds, key=lambda kind: kind.share)
        self.compiled = self.programs[self._usual]

    def __call__(self, kind: Kind | None = None) -> float:
        """Runs one step to its end, of the most frequent kind by default; seconds that it took."""
        kind = kind or self._usual
        self._set_step(kind)
        start = time.perf_counter()
        jax.block_until_ready((self._dispatch(kind), self._state))
        return time.perf_counter() - start

    def in_a_row(self, kind: Kind, steps: int) -> list[float]:
        """Seconds from the end of each step to that of the next one.

        As in `train` a step is dispatched before the metrics of the one before it are waited for:
        what the host does for a step (4% of BigGAN-128's on a GPU) passes while the device
        computes.
        """
        ends, pending = [], None
        for _ in range(steps + 1):
            self._set_step(kind)
            following = self._dispatch(kind)
            if pending is not None:
                jax.block_until_ready(pending)
                ends.append(time.perf_counter())
            pending = following
        jax.block_until_ready(pending)
        ends.append(time.perf_counter())
        return [end - start for start, end in itertools.pairwise(ends)]

    def _set_step(self, kind: Kind) -> None:
        if len(self.kinds) > 1:  # the number of a step says what is due in it
            number = jax.device_put(np.int32(kind.step), self._state.step.sharding)
            self._state = self._state.replace(step=number)

    def _dispatch(self, kind: Kind) -> Any:
        self._state, metrics = self.programs[kind](self._state, self._batch)
        return metrics

    def monitor_seconds(self) -> float:
        """Seconds in which the monitors measure the state, the median of some calls."""
        measure = monitors.Monitors(self.train_step)
        measure(self._state)
        seconds = []
        for _ in range(TIMED_STEPS):
            start = time.perf_counter()
            measure(self._state)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


def synthetic_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """This process's slice of a random batch of the config's shape."""
    m, rng = config.model, np.random.default_rng(config.seed)
    local = config.batch_size // jax.process_count()
    shape = (config.num_d_steps, local)
    image = shape + (m.resolution, m.resolution, m.channels)
    return {
        "image": rng.integers(0, 256, image, np.uint8),
        "label": rng.integers(0, m.num_classes, shape, np.int32),
    }


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Peak memory of one device, in bytes."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    # The CPU backend keeps no such count: what the compiler laid out for one step.
    m = compiled.memory_analysis()
    live = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    return int(live + m.temp_size_in_bytes)


def input_images_per_second(config: ConfigDict) -> float:
    """Images that the input pipeline delivers in a second, read by this process alone."""
    # Grain and PIL are not there on every machine that benches a step.
    from biggan_jax import data
    from biggan_jax.training import run_data

    source = run_data.opened(config)
    batches = data.Batches(
        source,
        seed=config.seed,
        batch_size=config.batch_size,
        num_d_steps=config.num_d_steps,
        flip=config.data.flip,
        balance=config.data.balance,
    )
    count = 0
    for deadline in (time.perf_counter() + INPUT_SECONDS, None):
        start = time.perf_counter()
        deadline = deadline or start + INPUT_SECONDS
        count = 0
        while time.perf_counter() < deadline:
            count += next(batches)["label"].size
        rate = count / (time.perf_counter() - start)
    batches.close()
    return rate
