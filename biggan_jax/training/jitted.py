"""The training step under jit: one program, or one for each pattern of updates with penalties."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.parallel import ahead, compiler_options, sharding
from biggan_jax.training import microbatches
from biggan_jax.training import state as state_lib


def jit_train_step(train_step: Any) -> Callable:
    """The one jitted step: state donated and sharded as the state is, metrics replicated.

    Args:
      train_step: a `step.TrainStep`.

    Returns:
      `(state, batch) -> (state, metrics)` with a method `lower`: `jax.jit` of the step, or
      `LazySteps` where a branch of the program would be slow.
    """
    mesh = train_step.mesh
    state = state_lib.shardings(train_step.init, mesh)

    def jit(step: Callable) -> Callable:
        return jax.jit(
            step,
            in_shardings=(state, sharding.over_batch(mesh, axis=1)),
            out_shardings=(state, sharding.replicated(mesh)),
            donate_argnums=0,
            compiler_options=compiler_options.of_step(mesh),
        )

    if train_step.objective.is_lazy and microbatches.unroll(mesh):
        return LazySteps(train_step, jit)
    return jit(train_step.train_step)


def compiled_ahead(program: Callable, train_step: Any, config: ConfigDict) -> Callable:
    """A step whose compilation begins now, while a run prepares its fresh state and its data.

    Args:
      program: of `jit_train_step`. One of `LazySteps` is returned as it is: which of its programs
        comes first it learns from the state.
      train_step: the `step.TrainStep` that it runs.
      config: of which that is built, for the shape of a batch.

    Returns:
      A function of the same arguments; its first call waits for the compiler.
    """
    mesh = train_step.mesh
    if not isinstance(program, jax.stages.Wrapped) or not ahead.is_possible(mesh):
        return program
    state = state_lib.abstract(train_step.init, mesh)
    return ahead.compiled(program, state, abstract_batch(config, mesh))


def abstract_batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of one global batch."""
    m, shape = config.model, (config.num_d_steps, config.batch_size)
    place = sharding.over_batch(mesh, axis=1)
    image = shape + (m.resolution, m.resolution, m.channels)
    return {
        "image": jax.ShapeDtypeStruct(image, jnp.uint8, sharding=place),
        "label": jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place),
    }


@dataclasses.dataclass(frozen=True)
class Kind:
    """Steps of a run in which the same updates have penalties.

    Attributes:
      due: whether penalties are due in each of the D updates; None where no step differs.
      step: the first of these steps.
      share: of all steps.
    """

    due: tuple[bool, ...] | None
    step: int = 0
    share: float = 1.0


def kinds(train_step: Any) -> list[Kind]:
    """The kinds of steps of a run, in the order in which they come.

    Args:
      train_step: a `step.TrainStep`.
    """
    if not train_step.objective.is_lazy:
        return [Kind(None)]
    n, every = train_step.num_d_steps, train_step.objective.penalty_every_steps
    period = every // math.gcd(n, every)  # as many updates are a whole number of either
    all_due = [_due(step, n, every) for step in range(period)]
    return [
        Kind(due, all_due.index(due), all_due.count(due) / period) for due in dict.fromkeys(all_due)
    ]


def _due(step: int, n: int, every: int) -> tuple[bool, ...]:
    """Whether penalties are due in each of the n D updates of a step, counted from 0."""
    return tuple((step * n + i) % every == 0 for i in range(n))


def one_by_one(due: tuple[bool, ...]) -> Callable:
    """`jax.lax.scan` of updates of which each is told whether its penalties are due."""

    def run(update: Callable, state: Any, inputs: Any) -> tuple[Any, Any]:
        found = []
        for i, flag in enumerate(due):
            state, metrics = update(state, jax.tree.map(operator.itemgetter(i), inputs), flag)
            found.append(metrics)
        return state, jax.tree.map(lambda *x: jnp.stack(x), *found)

    return run


class LazySteps:
    """Training steps of lazy penalties, of which every program knows whether they are due.

    XLA's CPU backend runs what stands in a branch without its fast kernels (a penalty takes 20
    times as long there), so that `regularizer.every_steps` would make a run slower. The price is
    another program to compile. The number of a step is read from a state that it did not make
    itself alone: reading it waits for the step before.

    Args:
      train_step: a `step.TrainStep`.
      jit: of a function like its `train_step`.
    """

    def __init__(self, train_step: Any, jit: Callable[[Callable], Callable]):
        self._step, self._jit = train_step, jit
        self._programs: dict[tuple[bool, ...], Callable] = {}
        self._made: tuple[jax.Array | None, int] = None, 0  # the newest `state.step`, its value

    def __call__(self, state: state_lib.GANState, batch: dict[str, jax.Array]) -> tuple:
        """As `TrainStep.train_step`."""
        made, number = self._made
        number = number if state.step is made else int(state.step)
        state, metrics = self._program(number)(state, batch)
        self._made = state.step, number + 1
        return state, metrics

    def lower(self, state: Any, batch: Any) -> jax.stages.Lowered:
        """The program of all steps, penalties being a branch of it, for those who read it."""
        return self._jit(self._step.train_step).lower(state, batch)

    def of_kind(self, kind: Kind) -> Callable:
        """The jitted program that runs the steps of a kind."""
        return self._program(kind.step)

    def _program(self, step: int) -> Callable:
        due = _due(step, self._step.num_d_steps, self._step.objective.penalty_every_steps)
        if due not in self._programs:
            own = functools.partial(self._step.train_step, due=due)
            self._programs[due] = self._jit(own)
        return self._programs[due]
