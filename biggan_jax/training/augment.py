"""Augmentation inside the game: D judges T(x) in place of x, real and generated, in every update.

T is drawn for every image by itself in every forward of D. R1, R2 and other penalties are of
D(T(x)) with respect to x, as in the authors' codes. The probability of each transform is fixed, or
held where D overfits as far as `augment.target` says (`heuristics`), by scalars of
`GANState.objective`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.config.augmentation import is_controlled
from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.parallel import sharding
from biggan_jax.training import ada, diffaugment, heuristics, leaks
from biggan_jax.training.heuristics import P
from biggan_jax.training.logit_terms import State
from biggan_jax.training.objective import Network, Objective

# (key, images, p) -> augmented images.
Transform = Callable[[jax.Array, jax.Array, float | jax.Array], jax.Array]


def of_objective(
    objective: Objective, loss: str, section: ConfigDict, mesh: Mesh | None
) -> Objective:
    """The same game, played with augmented images.

    Args:
      objective: without augmentation.
      loss: the name of its loss.
      section: the `augment` section of a config.
      mesh: over which the images are split; None where nothing is to be computed.

    Returns:
      The objective itself where the policy is none. Among the metrics of the new one's D are
      `augment/probability` and `augment/r_t`, the heuristic of overfitting E[sign(D(T(real)))],
      with held-out images also `augment/r_v`, and those of `leaks`.

    Raises:
      UserError: a word of `ops` or `groups` that is none of them.
    """
    if section.policy == "none":
        return objective
    fixed = fixed_probability(section)
    transform = _transform(section, mesh)

    def augmented(D: Network, key: jax.Array, state: State) -> Network:
        return Augmented(D, key, transform, state[P] if fixed is None else fixed)

    def d(D, real, real_labels, fake, fake_labels, key):
        loss, metrics = objective.d(D, real, real_labels, fake, fake_labels, key)
        return loss, metrics | leaks.metrics(real, fake)

    if fixed is None:
        term = heuristics.HEURISTICS[section.heuristic](section, loss)
    else:
        term = heuristics.watched(loss, fixed)
    return dataclasses.replace(objective, d=d, augment=augmented, terms=(*objective.terms, term))


def fixed_probability(section: ConfigDict) -> float | None:
    """The probability of every transform, where it is fixed; None where it is controlled."""
    if is_controlled(section.policy, section.probability, section.target):
        return None
    return 1.0 if section.probability is None else section.probability


class Augmented:
    """D of augmented images, as an objective calls it: each call draws its own."""

    def __init__(self, D: Network, key: jax.Array, transform: Transform, p: float | jax.Array):
        self._D, self._key, self._transform, self._p = D, key, transform, p
        self._calls = 0

    def __call__(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        """As D."""
        key = jax.random.fold_in(self._key, self._calls)
        self._calls += 1
        return self._D(self._transform(key, images, self._p), labels)


def _transform(section: ConfigDict, mesh: Mesh | None) -> Transform:
    policy = section.policy
    known, words = {
        "diffaugment": (diffaugment.OPS, section.ops),
        "ada": (ada.GROUPS, section.groups),
    }[policy]
    key = "ops" if policy == "diffaugment" else "groups"
    _check_words(f"augment.{key}", words, known)
    on_tpu = mesh is not None and mesh.devices.flat[0].platform == "tpu"

    @jax.named_scope("augment")
    def transform(key: jax.Array, images: jax.Array, p: float | jax.Array) -> jax.Array:
        n, *shape = images.shape
        if policy == "diffaugment":
            draws = diffaugment.draw(key, words, n, shape[0], p, images.dtype)
            apply = diffaugment.transform
        else:
            draws = ada.draw(key, words, n, p, images.dtype, tuple(shape))
            apply = functools.partial(ada.transform, on_tpu=on_tpu)
        if mesh is not None:
            # What is drawn inside a loop has no sharding (`sharding.constrain_batch`).
            images, draws = sharding.constrain_batch((images, draws), mesh)
        return apply(images, draws)

    return transform


def _check_words(key: str, words: tuple[str, ...], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise UserError(
                f"{key} has {word!r}{did_you_mean(str(word), known)}: set --config.{key} to some "
                f"of {','.join(known)}"
            )
    if not words:
        raise UserError(
            f"{key} is empty: set --config.{key}={','.join(known[:2])}, or leave images as they "
            "are by --config.augment.policy=none"
        )
