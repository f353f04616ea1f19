"""Terms of D's objective that look at the logits of its forward, with scalars that they keep.

What a term keeps from one D update to the next (a running average, a probability) are scalars by
name in `GANState.objective`: they are saved, restored, forked and rolled back with the weights. A
term that is turned on in the middle of a run starts from its `initial`.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax

State = dict[str, jax.Array]  # scalars, at least float32, by name


def _as_it_is(state: State, update: jax.Array) -> State:
    return state


@dataclasses.dataclass(frozen=True)
class LogitTerm:
    """One term.

    Attributes:
      of_logits: `of_logits(real_logits, fake_logits, state, update) -> (loss, metrics, state)` for
        the logits [B] of a microbatch, the state of all terms, and the D updates done before this
        one: what is added to D's loss, or None; scalars by name; the state after it, through which
        no gradient flows.
      initial: what the term keeps, at the start of a run; names that no other term has.
      settle: `settle(state, update) -> state` after the last microbatch of a D update.
    """

    of_logits: Callable[..., tuple[jax.Array | None, dict[str, jax.Array], State]]
    initial: Mapping[str, float] = dataclasses.field(default_factory=dict)
    settle: Callable[[State, jax.Array], State] = _as_it_is


class Seen:
    """D as an objective calls it, and the logits of the first `objectives.joint_logits` of it."""

    def __init__(self, D: Callable[[jax.Array, jax.Array], jax.Array]):
        self._D, self._logits = D, None

    def __call__(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        """As D."""
        return self._D(images, labels)

    def see(self, real_logits: jax.Array, fake_logits: jax.Array) -> None:
        """Notes the logits of a forward, where they are the first ones."""
        self._logits = self._logits or (real_logits, fake_logits)

    @property
    def logits(self) -> tuple[jax.Array, jax.Array]:
        """(real logits, fake logits), each [B].

        Raises:
          ValueError: the objective has not judged its images by `joint_logits`.
        """
        if self._logits is None:
            raise ValueError(
                "the objective has terms of D's logits, but its d never calls joint_logits: judge "
                "real and generated images by it"
            )
        return self._logits
