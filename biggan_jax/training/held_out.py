"""Held-out images in the game: D judges them as in an update, and augmentation follows.

This is done between two steps, by a program of its own: XLA's CPU backend would run what stands in
a branch of the step without its fast kernels. It reads the state alone, and a run that was killed
does it again.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from biggan_jax.parallel import processes, sharding
from biggan_jax.training import heuristics, judge, microbatches
from biggan_jax.training.judge import Judge
from biggan_jax.training.state import GANState
from biggan_jax.training.step import TrainStep

DRAWS = 4  # what is folded into the key of a step for these draws, beside the roles of `train_step`


@flax.struct.dataclass
class HeldOut:
    """Held-out images on the devices.

    Attributes:
      images: uint8 [n, B, H, W, C]: n forwards of D of as many as a microbatch has real ones.
      labels: their classes, int32 [n, B].
      weights: of each in the mean, at least 0, float32 [n, B].
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array


class AdjustedSteps:
    """Training steps after which, every few D updates, held-out images adjust the augmentation.

    Args:
      step: `(state, batch) -> (state, metrics)`, from `step.jit_train_step`.
      train_step: the same, bound and not jitted.
      section: the `augment` section of the config.
      held_out: the images.
      start: finished steps of the first state.
    """

    def __init__(
        self,
        step: Callable,
        train_step: TrainStep,
        section: ConfigDict,
        held_out: HeldOut,
        start: int,
    ):
        self._step, self._held_out, self._done = step, held_out, start
        self._updates, self._every = train_step.num_d_steps, section.every_steps
        adjust = functools.partial(adjusted, train_step, section)
        place = sharding.replicated(train_step.mesh)
        self._adjust = processes.compile_together(jax.jit(adjust, out_shardings=place))

    def __call__(self, state: GANState, batch: dict[str, jax.Array]) -> tuple[GANState, Any]:
        """One step; all processes of a run call it."""
        state, metrics = self._step(state, batch)
        before, self._done = self._done, self._done + 1
        windows = [done * self._updates // self._every for done in (before, self._done)]
        if windows[0] != windows[1]:
            d = state.discriminator
            new = self._adjust(
                state.objective, d.params, d.spectral, state.key, state.step, self._held_out
            )
            state = state.replace(objective=new)
        return state, metrics


def adjusted(
    train_step: TrainStep,
    section: ConfigDict,
    kept: dict[str, jax.Array],
    params: Any,
    spectral: Any,
    key: jax.Array,
    step: jax.Array,
    held_out: HeldOut,
) -> dict[str, jax.Array]:
    """What the terms of the objective keep, once D has judged the held-out images.

    Args:
      train_step: the bound step.
      section: the `augment` section of its config.
      kept: what the terms keep so far.
      params, spectral: of D.
      key: of the run.
      step: generator updates done.
      held_out: the images.
    """
    key = jax.random.fold_in(jax.random.fold_in(key, step), DRAWS)
    D, mesh = train_step.discriminator, train_step.mesh
    params = sharding.gather_weights(params, mesh)
    dtype = np.promote_types(D.settings.param_dtype, np.float32)

    def weighed(total: jax.Array, part: tuple[jax.Array, HeldOut]) -> tuple[jax.Array, None]:
        number, part = part
        part = sharding.constrain_batch(part, mesh)
        own_key = jax.random.fold_in(key, number)
        # As training images are judged; the vectors that this forward advances are not kept.
        judged = Judge(D, params, spectral, mesh, judge.dropout_key(D, own_key))
        augmented = train_step.objective.augment(judged, own_key, kept)
        logits = augmented(part.images.astype(dtype) / 127.5 - 1.0, part.labels)
        return total + (part.weights.astype(logits.dtype) * logits).sum(), None

    zero = jnp.zeros((), kept[heuristics.P].dtype)
    parts = (jnp.arange(len(held_out.images)), held_out)
    total, _ = jax.lax.scan(weighed, zero, parts, unroll=microbatches.unroll(mesh))
    return heuristics.adjusted(kept, total / held_out.weights.sum(), section)
