"""One training step of several states: one after another, or all at once by `jax.vmap`."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.parallel import compiler_options, sharding
from biggan_jax.training import state as state_lib
from biggan_jax.training.setup import Run
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

VMAP, TURNS = "vmap", "turns"
FORMS = (VMAP, TURNS)
SHARE = 0.9  # of the free memory; the rest is for what comes and goes

Metrics = dict[str, Any]


def form_of(mesh: Mesh) -> str:
    """The faster form on the devices of a mesh.

    On CPUs the convolutions of several networks, which `vmap` makes one grouped convolution, take
    longer than one after another (docs/sweeps.md has the figures), and `jax.lax.map` is a loop, in
    which XLA's CPU backend runs convolutions without its fast kernels.
    """
    return TURNS if mesh.size > 1 or mesh.devices.flat[0].platform == "cpu" else VMAP


class Turns:
    """One compiled step that takes the states one after another; the bits of single runs."""

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs

    def stack(self, states: Sequence[GANState]) -> list[GANState]:
        """The states as `__call__` takes them."""
        return list(states)

    def __call__(
        self, states: list[GANState], batches: Sequence[Metrics], live: Sequence[bool]
    ) -> tuple[list[GANState], list[Metrics]]:
        """One step of every run that lives: (states, metrics)."""
        found: list[Metrics] = [{} for _ in states]
        for i, run in enumerate(self._runs):
            if live[i]:
                batch = sharding.global_batch(batches[i], run.train_step.mesh, axis=1)
                states[i], found[i] = run.step(states[i], batch)
        return states, found

    def metrics(self, metrics: list[Metrics]) -> list[Metrics]:
        """The metrics of every run, on the host."""
        return jax.device_get(metrics)

    def state(self, states: list[GANState], i: int) -> GANState:
        """The state of one run; the next step takes its buffers."""
        return states[i]


class Vmap:
    """One step of all states at once, by `jax.vmap`; the results of single runs to rounding."""

    def __init__(self, train_step: TrainStep):
        self._mesh = train_step.mesh
        self._step = jit_vmap(train_step)
        self._take = jax.jit(lambda states, i: jax.tree.map(lambda x: x[i], states))
        self._stack = jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states))

    def stack(self, states: Sequence[GANState]) -> GANState:
        """One state whose arrays have the runs as their first dimension."""
        return self._stack(*states)

    def __call__(
        self, states: GANState, batches: Sequence[Metrics], live: Sequence[bool]
    ) -> tuple[GANState, Metrics]:
        """One step of every run; that of one that has ended goes on without being looked at."""
        batch = jax.tree.map(lambda *x: np.stack(x), *batches)
        return self._step(states, sharding.global_batch(batch, self._mesh, axis=2))

    def metrics(self, metrics: Metrics) -> list[Metrics]:
        """The metrics of every run, on the host."""
        found = jax.device_get(metrics)
        count = len(next(iter(found.values())))
        return [{name: value[i] for name, value in found.items()} for i in range(count)]

    def state(self, states: GANState, i: int) -> GANState:
        """The state of one run, in buffers of its own."""
        return self._take(states, i)


def of(form: str, runs: Sequence[Run]) -> Turns | Vmap:
    """The step of some runs in one of `FORMS`; of runs whose rules differ they take turns."""
    train_step = runs[0].train_step  # another one in a run that was once rolled back
    alike = all(run.train_step is train_step for run in runs)
    return Vmap(train_step) if form == VMAP and alike else Turns(runs)


def jit_vmap(train_step: TrainStep) -> Any:
    """`jax.jit` of a step of several states, `(states, batches) -> (states, metrics)`.

    Args:
      train_step: on a mesh of one device.

    Returns:
      The jitted step; every array has the runs as its first dimension, the states are donated.
    """
    mesh = train_step.mesh
    whole = sharding.replicated(mesh)
    return jax.jit(
        jax.vmap(train_step.train_step),
        in_shardings=(whole, sharding.over_batch(mesh, axis=2)),
        out_shardings=(whole, whole),
        donate_argnums=0,
        compiler_options=compiler_options.of_step(mesh),
    )


def bytes_of_state(train_step: TrainStep) -> int:
    """Bytes of the arrays of one state."""
    arrays = jax.tree.leaves(state_lib.abstract(train_step.init))
    typed = (x for x in arrays if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in typed)


def fitting(train_step: TrainStep, config: ConfigDict, form: str, count: int, free: int) -> int:
    """How many states can be trained together.

    Args:
      train_step: of all of them.
      config: of one of them.
      form: one of `FORMS`.
      count: that are wanted.
      free: bytes of memory.

    Returns:
      The number, `count` at most.
    """
    # A save holds a copy of a state, and so does stacking, where all are there twice.
    state = 2 * bytes_of_state(train_step)
    most = min(int(SHARE * free / state), count)
    if form == TURNS or most < 1:
        return most
    used = _bytes_of_vmap(train_step, config, most) / most + state // 2
    return min(int(SHARE * free / used), most)


def _bytes_of_vmap(train_step: TrainStep, config: ConfigDict, count: int) -> int:
    """Bytes of the compiled step of several states, theirs included."""
    one = state_lib.abstract(train_step.init)
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    rows = (count, config.num_d_steps, config.batch_size)
    model = config.model
    image = (model.resolution, model.resolution, model.channels)
    batch = {
        "image": jax.ShapeDtypeStruct((*rows, *image), jnp.uint8),
        "label": jax.ShapeDtypeStruct(rows, jnp.int32),
    }
    used = jit_vmap(train_step).lower(states, batch).compile().memory_analysis()
    return used.argument_size_in_bytes + used.temp_size_in_bytes
