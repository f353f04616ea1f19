"""Augmentation inside the game: D judges T(x) in place of x, real and generated, in every update.

T is drawn for every image by itself in every forward of D. R1, R2 and other penalties are of
D(T(x)) with respect to x, as in the authors' codes. The probability of each transform is fixed, or
held where D is as sure of real images as `augment.target` says, by scalars of `GANState.objective`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.parallel import sharding
from biggan_jax.training import ada, diffaugment, leaks
from biggan_jax.training.logit_terms import LogitTerm, State
from biggan_jax.training.objective import Network, Objective

TARGET = 0.6  # of r_t, in ADA's paper
P, SIGNS, IMAGES = "augment_probability", "augment_signs", "augment_images"
# The logit in the middle between what a loss wants of real and of generated images. Other losses
# compare the two: there an image is judged real where its logit is above that of a generated one.
_MIDDLE = {"hinge": 0.0, "non_saturating": 0.0, "least_squares": 0.5}

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
      `augment/probability` and `augment/r_t`, the heuristic of overfitting E[sign(D(T(real)))], and
      those of `leaks`.

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

    term = _control(section, loss) if fixed is None else LogitTerm(_watch(loss, fixed))
    return dataclasses.replace(objective, d=d, augment=augmented, terms=(*objective.terms, term))


def fixed_probability(section: ConfigDict) -> float | None:
    """The probability of every transform, where it is fixed; None where it is controlled."""
    if section.target is not None:
        return None
    if section.policy == "diffaugment" and section.probability is None:
        return 1.0
    return section.probability


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


def _signs(loss: str, real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """[B], 1 where D takes a real image for a real one, -1 where it does not."""
    middle = _MIDDLE.get(loss, fake_logits)
    return jax.lax.stop_gradient(jnp.sign(real_logits - middle))


def _watch(loss: str, p: float) -> Callable:
    """`LogitTerm.of_logits` of a fixed probability: metrics alone."""

    def of_logits(real_logits, fake_logits, state, update):
        r_t = _signs(loss, real_logits, fake_logits).mean()
        return None, {"augment/probability": jnp.asarray(p, r_t.dtype), "augment/r_t": r_t}, state

    return of_logits


def _control(section: ConfigDict, loss: str) -> LogitTerm:
    """The probability as a state, adjusted every few D updates.

    References:
      Karras et al. 2020, section 3.1: r_t of equation 1, and the adjustment after it.
    """
    target = TARGET if section.target is None else section.target

    def of_logits(real_logits, fake_logits, state, update):
        signs = _signs(loss, real_logits, fake_logits)
        seen = {SIGNS: state[SIGNS] + signs.sum(), IMAGES: state[IMAGES] + len(signs)}
        metrics = {"augment/probability": state[P], "augment/r_t": seen[SIGNS] / seen[IMAGES]}
        return None, metrics, state | seen

    def settle(state: State, update: jax.Array) -> State:
        due = (update + 1) % section.every_steps == 0
        # Compared without a quotient: as many images as their signs sum up to, if r_t were 1.
        direction = jnp.sign(state[SIGNS] - target * state[IMAGES])
        p = jnp.clip(state[P] + direction * state[IMAGES] / section.ramp_images, 0, 1)
        zero = jnp.zeros_like(p)
        new = {P: p, SIGNS: zero, IMAGES: zero}
        return state | {name: jnp.where(due, value, state[name]) for name, value in new.items()}

    return LogitTerm(of_logits, {P: section.probability or 0.0, SIGNS: 0.0, IMAGES: 0.0}, settle)
