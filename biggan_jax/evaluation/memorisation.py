"""Whether a generator copies its training images, and in one sentence what that can prove."""

import dataclasses
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from biggan_jax import data
from biggan_jax.data import holdout
from biggan_jax.errors import UserError, counts
from biggan_jax.evaluation.reference import Reference
from biggan_jax.metrics import memorisation as metrics

LARGEST = 10_000  # training images up to which it is scored without being asked for
LEAST_HELD_OUT = 20  # images behind the normal approximation of a rank test
SAME = 1e-3  # of the usual distance of two training images: below it lie two of the same picture
HELD_OUT_SCORES = ("authenticity_held_out", "nearer_than_held_out", "data_copying")
# What a verdict takes: chance is ruled out, and what is seen matters.
CHANCE = -3.0  # C_T, about standard normal where nothing is copied
NEARER = 0.6  # of the pairs
FEW = 0.25  # of the authentic share that held-out images have
ALONE = 0.1, 0.3  # authentic shares of copies, and of a doubt, where no image was held out
NO_HELD_OUT = (
    "images that were never trained on: train with data.holdout, or give a test split with --data"
)


@dataclasses.dataclass(frozen=True)
class Sets:
    """Features of what a generator was trained on, and of what it was not.

    Attributes:
      train: [N, d], of the training images.
      held_out: [M, d]; None where there are none.
      why: there are none, for a person.
      described: both, for the protocol.
      features: name of the features network.
    """

    train: np.ndarray
    held_out: np.ndarray | None
    why: str
    described: str
    features: str


def sets(
    training: data.Source,
    share: float,
    of_training: np.ndarray,
    other: tuple[str, np.ndarray] | None,
    features: str,
) -> Sets:
    """Tells training images from held-out ones.

    Args:
      training: the data of the run.
      share: its `data.holdout`.
      of_training: features of all images of the data, in their order, [N, d].
      other: spec and features of other images that the run is compared with; None where it is
        compared with its own data.
      features: name of the features network.

    Returns:
      The two sets; held-out ones are those of the run, otherwise the other images.
    """
    mask = holdout.of_indices(len(training), share) if share else np.zeros(len(training), bool)
    train, held_out, whose = of_training[~mask], of_training[mask], "of the run"
    if not share and other is not None:
        whose, held_out = f"of {other[0]}", other[1]
    described = counts(len(train), "training image", "training images")
    if not len(held_out):
        return Sets(train, None, NO_HELD_OUT, described, features)
    kept = held_out[_unseen(train, held_out)]
    described += f", {counts(len(kept), 'held-out image', 'held-out images')} {whose}"
    if len(kept) < len(held_out):
        described += f" without {len(held_out) - len(kept):,} that are training images too"
    if len(kept) >= LEAST_HELD_OUT:
        return Sets(train, kept, "", described, features)
    why = f"{LEAST_HELD_OUT} held-out images that are no training images, and there are {len(kept)}"
    return Sets(train, None, why, described, features)


def _unseen(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Which held-out images are none of the training images, bool [M]."""
    usual = np.median(metrics.nearest_others(train))
    near = metrics.nearest_neighbours(held_out, train).distances[:, 0]
    return near > (SAME * usual if np.isfinite(usual) else 0.0)


def score(found: Sets, fake: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    """Scores samples.

    Args:
      found: the two sets.
      fake: [L, d], features of samples.

    Returns:
      ({`authenticity`, and with held-out images `authenticity_held_out`, `nearer_than_held_out` and
      `data_copying`}, {score: why it is absent}).
    """
    if len(np.unique(found.train, axis=0)) < 2:
        why = "two different training images"
        return {}, dict.fromkeys(("authenticity", *HELD_OUT_SCORES), why)
    near = metrics.nearest_neighbours(fake, found.train)
    values = {"authenticity": metrics.authenticity(found.train, fake, near)}
    if found.held_out is None:
        return values, dict.fromkeys(HELD_OUT_SCORES, found.why)
    values["authenticity_held_out"] = metrics.authenticity(found.train, found.held_out)
    return values | metrics.data_copying(found.train, found.held_out, fake, near), {}


def judge(values: dict[str, float], described: str, features: str) -> dict[str, str] | None:
    """What the scores say to a person.

    Args:
      values: of `score`.
      described: of the sets.
      features: name of the features network.

    Returns:
      {verdict: copies | nearer | none, sentence, limits: what it cannot prove}; None without
      scores.
    """
    share = values.get("authenticity")
    if share is None:
        return None
    said = f"{share:.0%} of the samples are farther from their nearest training image than that"
    said += " image is from the next one"
    nearer, z = values.get("nearer_than_held_out"), values.get("data_copying")
    if nearer is None or z is None:
        verdict = next((v for v, most in zip(("copies", "nearer"), ALONE, strict=True)
                        if share < most), "none")  # fmt: skip
    else:
        usual = values.get("authenticity_held_out", 0.5)
        said += f" (held-out images: {usual:.0%}), and a sample is nearer to the training images"
        said += f" than a held-out image in {nearer:.0%} of the pairs (C_T {z:.3g})"
        verdict = "nearer" if z < CHANCE and nearer > NEARER else "none"
        if verdict == "nearer" and share < FEW * usual:
            verdict = "copies"
    verdicts = {
        "copies": "The samples are copies of training images",
        "nearer": "The samples are nearer to the training images than fresh images would be",
        "none": "No sign of copied training images",
    }
    limits = (
        f"Seen in {features} features ({described}), which may be blind to small changes and to "
        "mirrored copies; a few copies among many samples, and held-out images that resemble "
        "training images, hide what is copied: nothing here proves that there is none."
    )
    return {"verdict": verdict, "sentence": f"{verdicts[verdict]}: {said}.", "limits": limits}


def opened(
    config: ConfigDict,
    asked: bool | None,
    side: tuple[data.Source, str] | None,
    real: Reference,
    *,
    at_hand: tuple[data.Source, str] | None,
    open_training: Callable[[], tuple[data.Source, str]],
    measure: Callable[[tuple[data.Source, str]], Reference],
    features: str,
) -> Sets | None:
    """Finds the two sets of a run.

    Args:
      config: of the run.
      asked: whether copies are sought; None where they are few enough.
      side: the real images of the evaluation and their digest; None where there are statistics.
      real: what was measured of them.
      at_hand: other data that are open, which may be those of the run.
      open_training: opens the data of the run.
      measure: measures all images of some data.
      features: name of the features network.

    Returns:
      The two sets; None where copies are not sought.

    Raises:
      UserError: it was asked for, and the data cannot be had.
    """
    if asked is False:
        return None
    source = config.data.source
    training = next((x for x in (side, at_hand) if x and x[0].spec == source), None)
    if training is None and asked is None and (source or "tfds").startswith("tfds"):
        return None  # opening them may download them
    try:
        training = training or open_training()
    except UserError:
        if asked:
            raise
        return None
    count = len(training[0])
    if asked is None and count > LARGEST:
        return None
    same = training is side
    whole = same and len(real.features) == count
    of_training = real.features if whole else measure(training).features
    other = None if same or real.features is None else (side[0].spec, real.features)
    return sets(training[0], config.data.holdout, of_training, other, features)
