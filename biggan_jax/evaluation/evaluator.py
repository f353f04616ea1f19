"""One pass over generated samples -> scores with the protocol that they were measured by."""

import contextlib
import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from biggan_jax import __version__
from biggan_jax.errors import UserError
from biggan_jax.evaluation import protocol
from biggan_jax.evaluation.reference import Reference, extractor_fields
from biggan_jax.evaluation.streaming import SPLITS, Fakes
from biggan_jax.metrics import scores as score_lib
from biggan_jax.metrics.features import Extractor
from biggan_jax.parallel import processes
from biggan_jax.pictures import grids
from biggan_jax.sampling import standing
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import compiled

BATCH_SIZE = 256  # samples made before their features are taken
KEEP = 10_000  # features of each side kept for KID, precision, recall, density and coverage
KID_SUBSETS = 100
PRECISION_K, DENSITY_K = 3, 5  # Kynkaanniemi et al. 2019; Naeem et al. 2020


@dataclasses.dataclass(frozen=True)
class Options:
    """How a user gives settings of an evaluation, for messages that can be followed literally.

    Attributes:
      samples: how their number is set.
      features: how the features network is chosen.
    """

    samples: str
    features: str


COMMAND = Options("--samples {}", "--features {}")  # of `biggan evaluate`
CONFIG = Options("--config.eval_samples={}", "--config.eval_features={}")  # of `biggan train`


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores generators against one reference.

    Attributes:
      extractor: the features network.
      reference: the real side.
      num_samples: to be generated; more than the feature dimensions.
      seed: of the latents.
      truncation_kind: `resample` or `scale`.
      class_names: of the classes that the extractor's logits and the reference's labels mean; empty
        where they mean none, and class scores are left out.
      intra_fid: whether the distances of single classes are scored as well.
      keep: features of the fakes kept at most.
      options: how a user gives these settings, for messages.
    """

    extractor: Extractor
    reference: Reference
    num_samples: int
    seed: int
    truncation_kind: str
    class_names: tuple[str, ...]
    intra_fid: bool
    keep: int
    options: Options

    def __post_init__(self):
        dim = self.extractor.feature_dim
        if self.num_samples <= dim:
            raise UserError(
                f"{self.num_samples} samples for the {dim} dimensions of {self.extractor.name} "
                "features: their covariance needs more, set "
                f"{self.options.samples.format(dim + 1)} or more"
            )

    def __call__(
        self,
        generator: LoadedGenerator,
        *,
        truncation: float | None = None,
        bn_mode: str = "running",
        weights: str = "ema",
        model: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Scores one generator; all processes of a run call it and share the work.

        Args:
          generator: the generator; it is left in `bn_mode`.
          truncation: threshold of the latents.
          bn_mode: of the generator; standing statistics are taken with truncated latents.
          weights: `ema` or `raw`, for the protocol.
          model: the generator's directory, for the protocol.
          progress: called with (samples done, samples of this process).

        Returns:
          {scores {name: value}, per_class [{class, name, asked, accuracy, intra_fid}], protocol,
          seconds}; per_class is empty where classes mean nothing.

        Raises:
          UserError: samples that are not finite, a class with too few samples, images that the
            features network does not take.
        """
        start = time.perf_counter()
        by_class = len(self.class_names) == generator.num_classes > 1
        self._check_classes(generator.num_classes if by_class and self.intra_fid else 0)
        with one_line_warnings():
            generator.set_bn_mode(bn_mode, truncation, kind=self.truncation_kind)
            fakes = self._generate(generator, truncation, weights, progress)
            values = {
                name: value
                for name, value in score(self.reference, fakes, by_class, self.intra_fid)
                if _finite(value)
            }
        per_class = values.pop("per_class", [])
        for row in per_class:
            row["name"] = self.class_names[row["class"]]
        fields = self.protocol(generator, truncation, bn_mode, weights, model)
        seconds = time.perf_counter() - start
        return {"scores": values, "per_class": per_class, "protocol": fields, "seconds": seconds}

    def _generate(self, generator, truncation, weights, progress) -> Fakes:
        """All samples: the processes of a run share them, and all get what the scores need."""
        share = processes.share(self.num_samples, BATCH_SIZE)
        fakes = processes.together(
            lambda: self._generate_share(generator, truncation, weights, share, progress)
        )
        return fakes.joined()

    def _generate_share(self, generator, truncation, weights, share: range, progress) -> Fakes:
        k = generator.num_classes
        fakes = Fakes(self.num_samples, self.extractor.feature_dim, k, self.keep, share)
        # Latents are small beside images: 25 MB for 50,000. Everything else is made by batches.
        z = generator.sample_z(
            self.seed, len(share), truncation, self.truncation_kind, first=share.start
        )
        for at in range(0, len(share), BATCH_SIZE):
            numbers = share[at : at + BATCH_SIZE]
            labels = np.array(numbers, np.int32) % k
            images = generator(z[at : at + BATCH_SIZE], labels)
            bad = int((~np.isfinite(images).all(axis=(1, 2, 3))).sum())
            if bad:
                raise UserError(
                    f"{bad} of the generated images {numbers[0]} to {numbers[-1]} hold NaN or "
                    f"infinity: these {weights} weights are broken"
                    + ("; --raw takes the raw ones" * (weights == "ema"))
                )
            out = self.extractor(grids.to_uint8(images))
            # TensorFlow's Inception score takes the logits before their bias is added.
            fakes.add(out["features"], out.get("logits_unbiased", out["logits"]), labels)
            if progress is not None:
                progress(at + len(numbers), len(share))
        return fakes

    def _check_classes(self, num_classes: int) -> None:
        labels = self.reference.labels
        if not num_classes or labels is None:
            return
        counts = np.bincount(labels, minlength=num_classes)
        least = int(counts.argmin())
        if counts[least] < 2:
            raise UserError(
                f"class {least} ({self.class_names[least]}) has {counts[least]} real images, and "
                "intra-class FID needs at least 2: choose other --data or leave it out with "
                "--no-intra-fid"
            )
        kept = min(self.num_samples, self.keep) // num_classes
        if kept < 2:
            raise UserError(
                f"{self.num_samples} samples are {kept} for some of the {num_classes} classes, and "
                "intra-class FID needs at least 2: set "
                f"{self.options.samples.format(2 * num_classes)} or more, or leave it out with "
                "--no-intra-fid"
            )

    def protocol(
        self,
        generator: LoadedGenerator,
        truncation: float | None = None,
        bn_mode: str = "running",
        weights: str = "ema",
        model: str | None = None,
    ) -> dict[str, Any]:
        """The protocol of `__call__` with the same arguments."""
        fields = {"resolution": generator.resolution, "channels": generator.channels}
        fields |= self.reference.statistics.protocol | extractor_fields(self.extractor)
        by_features = self.reference.features is not None
        fields |= {
            "real_features": len(self.reference.features) if by_features else None,
            "samples": self.num_samples,
            "fake_features": min(self.num_samples, self.keep),
            "labels": "balanced" if generator.num_classes > 1 else None,
            "seed": self.seed,
            "truncation": truncation,
            "truncation_kind": self.truncation_kind if truncation is not None else None,
            "bn_mode": bn_mode,
            "weights": weights,
            "is_splits": SPLITS,
            "kid_subsets": KID_SUBSETS,
            "precision_k": PRECISION_K,
            "density_k": DENSITY_K,
            "version": __version__,
            "model": model,
            "step": generator.step,
        }
        if bn_mode == "standing":
            fields["standing_batches"] = standing.BATCHES
            fields["standing_batch_size"] = standing.BATCH_SIZE
        return protocol.seal(fields)


def score(
    real: Reference, fakes: Fakes, by_class: bool = False, intra_fid: bool = True
) -> Iterator[tuple[str, Any]]:
    """All scores of one pass.

    Args:
      real: the real side.
      fakes: the generated side.
      by_class: whether the network's classes are those asked for.
      intra_fid: whether the distances of single classes are scored.

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
    yield from zip(("is_mean", "is_std"), fakes.inception_score.result(), strict=True)
    if real.features is not None:
        kid = score_lib.kernel_distance(real.features, fakes.features, subsets=KID_SUBSETS)
        yield "kid", kid["mean"]
        yield "kid_standard_error", kid["standard_error"]
        yield from score_lib.prdc(
            real.features, fakes.features, precision_k=PRECISION_K, density_k=DENSITY_K
        ).items()
    if not by_class:
        return
    yield "class_accuracy", float(fakes.correct.sum() / fakes.asked.sum())
    per_class = [
        {"class": c, "asked": int(n), "accuracy": float(right / n) if n else None}
        for c, (right, n) in enumerate(zip(fakes.correct, fakes.asked, strict=True))
    ]
    if intra_fid and real.features is not None:
        sides = real.features, real.labels, fakes.features, fakes.labels
        intra = score_lib.intra_frechet_distance(*sides)
        yield "intra_fid", intra["mean"]
        for row in per_class:
            row["intra_fid"] = intra["per_class"][row["class"]]
    yield "per_class", per_class


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """A context in which a warning is one line on stderr, without its place in the code."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        if not compiled.tell(message):
            print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _finite(value: Any) -> bool:
    # JSON has no word for NaN: KID has no standard error where a subset takes all rows.
    return not isinstance(value, float) or math.isfinite(value)
