"""All scores of one pass over generated samples, as numbers."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from biggan_jax.evaluation.reference import Reference
from biggan_jax.evaluation.streaming import Fakes
from biggan_jax.metrics import scores as score_lib
from biggan_jax.metrics.features import Extractor

KID_SUBSETS = 100
PRECISION_K, DENSITY_K = 3, 5  # Kynkaanniemi et al. 2019; Naeem et al. 2020


def score(
    real: Reference,
    fakes: Fakes,
    by_class: bool = False,
    intra_fid: bool = True,
    absent: Collection[str] = (),
) -> Iterator[tuple[str, Any]]:
    """All scores of one pass.

    Args:
      real: the real side.
      fakes: the generated side.
      by_class: whether the network's classes are those asked for.
      intra_fid: whether the distances of single classes are scored.
      absent: scores for which there are too few images.

    Yields:
      (name, value): `fid`, `is_mean`, `is_std`; with the real features `kid`,
      `kid_standard_error`, `precision`, `recall`, `density`, `coverage`; by class `class_accuracy`,
      `intra_fid` (mean over the classes) and `per_class`, a list of one dict a class.
    """
    fake = fakes.moments.statistics()
    yield (
        "fid",
        score_lib.frechet_distance(
            real.statistics.mean, real.statistics.covariance, fake.mean, fake.covariance
        ),
    )
    if "is_mean" not in absent:
        yield from zip(("is_mean", "is_std"), fakes.inception_score.result(), strict=True)
    if real.features is not None:
        kid = score_lib.kernel_distance(real.features, fakes.features, subsets=KID_SUBSETS)
        yield "kid", kid["mean"]
        yield "kid_standard_error", kid["standard_error"]
        yield from _neighbour_scores(real.features, fakes.features, absent).items()
    if not by_class:
        return
    yield "class_accuracy", float(fakes.correct.sum() / fakes.asked.sum())
    per_class = [
        {"class": c, "asked": int(n), "accuracy": float(right / n) if n else None}
        for c, (right, n) in enumerate(zip(fakes.correct, fakes.asked, strict=True))
    ]
    if intra_fid and real.features is not None and "intra_fid" not in absent:
        sides = real.features, real.labels, fakes.features, fakes.labels
        intra = score_lib.intra_frechet_distance(*sides)
        yield "intra_fid", intra["mean"]
        for row in per_class:
            row["intra_fid"] = intra["per_class"][row["class"]]
    yield "per_class", per_class


def without_logits(extractor: Extractor) -> dict[str, str]:
    """{score: why} of those that a features network without logits leaves out."""
    if extractor.has_logits:
        return {}
    return dict.fromkeys(("is_mean", "is_std"), f"logits, and {extractor.name} features have none")


def too_few(real: int, fake: int) -> dict[str, str]:
    """{score: why} of those that so many features of each side leave out."""
    found = {}
    for names, k in ((("precision", "recall"), PRECISION_K), (("density", "coverage"), DENSITY_K)):
        for name in names:
            for count, what in ((real, "real images"), (fake, "samples")):
                if count <= k:
                    found[name] = f"k = {k} neighbours, and there are {count} {what}"
    return found


def _neighbour_scores(real: np.ndarray, fake: np.ndarray, absent: Collection[str]) -> dict:
    """Precision, recall, density and coverage, in one pass where all can be had."""
    if "precision" in absent:
        return {}
    if "density" in absent:
        return score_lib.precision_recall(real, fake, k=PRECISION_K)
    return score_lib.prdc(real, fake, precision_k=PRECISION_K, density_k=DENSITY_K)
