"""The training loop of the `classifier` features."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from biggan_jax.metrics.residual import Network


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
      epochs: passes over the training images, unless `max_images` ends them before.
      max_images: images in all.
      batch_size: images of a step.
      learning_rate: peak of a warm-up and cosine schedule of AdamW.
      weight_decay: AdamW's.
      holdout: share of each class that is held out to measure the accuracy.
    """

    epochs: int = 40
    max_images: int = 240_000
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    holdout: float = 0.1


def train(
    images: np.ndarray,
    labels: np.ndarray,
    train_at: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    recipe: Recipe,
    device: jax.Device,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], int]:
    """Trains a `Network` with AdamW on one device.

    Args:
      images: uint8 [N, R, R, C].
      labels: integers [N] in [0, num_classes).
      train_at: indices of the images to train on, at least one.
      num_classes: number of classes.
      seed: of the initialisation, the order and the shifts.
      recipe: how to train.
      device: where.
      progress: called with (steps done, steps in all).

    Returns:
      (params and batch_stats on the host, number of steps).
    """
    batch_size = min(recipe.batch_size, len(train_at))
    steps = max(1, min(recipe.epochs * len(train_at), recipe.max_images) // batch_size)
    first = jax.device_put(images[:1], device)
    state = _init(jax.random.key(seed), first, num_classes, recipe, steps)
    rng = np.random.default_rng(seed)
    # A Python loop: XLA's CPU backend runs convolutions inside a scan ten times slower.
    for k, at in enumerate(_batches(train_at, batch_size, steps, rng)):
        batch = (_shifted(images[at], rng), labels[at].astype(np.int32))
        state = _step(state, *jax.device_put(batch, device), num_classes, recipe, steps)
        if progress is not None:
            progress(k + 1, steps)
    return jax.device_get({"params": state[0], "batch_stats": state[1]}), steps


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    warmup = min(steps // 10, 200)
    rate = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, warmup, steps)
    return optax.adamw(rate, weight_decay=recipe.weight_decay)


@functools.partial(jax.jit, static_argnames=("num_classes", "recipe", "steps"))
def _init(key, images, num_classes: int, recipe: Recipe, steps: int):
    variables = Network(num_classes).init(key, images)
    params = variables["params"]
    return params, variables["batch_stats"], _optimizer(recipe, steps).init(params)


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("num_classes", "recipe", "steps"))
def _step(state, x, y, num_classes: int, recipe: Recipe, steps: int):
    params, batch_stats, opt_state = state

    def loss(params):
        variables = {"params": params, "batch_stats": batch_stats}
        out, new = Network(num_classes).apply(variables, x, train=True, mutable=["batch_stats"])
        each = optax.softmax_cross_entropy_with_integer_labels(out["logits"], y)
        return each.mean(), new["batch_stats"]

    grads, batch_stats = jax.grad(loss, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer count
        updates, opt_state = _optimizer(recipe, steps).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), batch_stats, opt_state


def _batches(
    train_at: np.ndarray, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Indices of one batch for each step, from a fresh permutation for every epoch."""
    queue = np.zeros(0, np.int64)
    for _ in range(steps):
        if len(queue) < batch_size:
            queue = rng.permutation(train_at)
        yield queue[:batch_size]
        queue = queue[batch_size:]


def _shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to a sixteenth of its side, edges repeated."""
    n, side = images.shape[:2]
    reach = side // 16
    if not reach:
        return images
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    top, left = rng.integers(0, 2 * reach + 1, (2, n))
    pixel = np.arange(side)
    rows, columns = top[:, None] + pixel, left[:, None] + pixel
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
