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
from biggan_jax.config import averages
from biggan_jax.errors import UserError
from biggan_jax.evaluation import class_match, memorisation, protocol
from biggan_jax.evaluation.reference import Reference, extractor_fields
from biggan_jax.evaluation.scoring import (
    DENSITY_K,
    KID_SUBSETS,
    PRECISION_K,
    score,
    too_few,
    without_logits,
)
from biggan_jax.evaluation.streaming import SPLITS, Fakes
from biggan_jax.metrics.features import Extractor, logits_of
from biggan_jax.parallel import processes
from biggan_jax.pictures import grids
from biggan_jax.sampling import standing
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import compiled

BATCH_SIZE = 256  # samples made before their features are taken
KEEP = 10_000  # features of each side kept for KID, precision, recall, density and coverage


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


def check_samples(count: int, dim: int, name: str, options: Options) -> None:
    """Raises UserError unless there are more samples than feature dimensions."""
    if count <= dim:
        raise UserError(
            f"{count} samples for the {dim} dimensions of {name} features: their covariance needs "
            f"more, set {options.samples.format(dim + 1)} or more"
        )


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores generators against one reference.

    Attributes:
      extractor: the features network.
      reference: the real side.
      num_samples: to be generated; more than the feature dimensions.
      seed: of the latents.
      truncation_kind: `resample` or `scale`.
      classes: which of the model's classes the extractor's logits mean; where they mean none, class
        scores are left out. The reference's labels are the model's.
      intra_fid: whether the distances of single classes are scored as well.
      keep: features of the fakes kept at most.
      options: how a user gives these settings, for messages.
      training: what the generator was trained on, to tell copies; None where they are not sought.
    """

    extractor: Extractor
    reference: Reference
    num_samples: int
    seed: int
    truncation_kind: str
    classes: class_match.Match
    intra_fid: bool
    keep: int
    options: Options
    training: memorisation.Sets | None = None

    def __post_init__(self):
        check_samples(
            self.num_samples, self.extractor.feature_dim, self.extractor.name, self.options
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
          weights: `ema`, `raw` or the name of another average, for the protocol.
          model: the generator's directory, for the protocol.
          progress: called with (samples done, samples of this process).

        Returns:
          {scores {name: value}, absent {name: why}, per_class [{class, name, asked, accuracy,
          intra_fid}], protocol, seconds}; absent has the scores that are left out, and per_class is
          empty where classes mean nothing; with `training` also memorisation, what
          `memorisation.judge` says.

        Raises:
          UserError: samples that are not finite, images that the features network does not take.
        """
        start = time.perf_counter()
        by_class = self._by_class(generator)
        with one_line_warnings():
            generator.set_bn_mode(bn_mode, truncation, kind=self.truncation_kind)
            fakes = self._generate(generator, truncation, weights, progress)
            absent = self.absent(generator)
            values = {
                name: value
                for name, value in score(self.reference, fakes, by_class, self.intra_fid, absent)
                if finite(value)
            }
        per_class = values.pop("per_class", [])
        for row in per_class:
            row["name"] = self.classes.names[row["class"]]
        fields = self.protocol(generator, truncation, bn_mode, weights, model)
        result = {"scores": values, "absent": absent, "per_class": per_class, "protocol": fields}
        if self.training is not None:
            copying, lacking = memorisation.score(self.training, fakes.features)
            result["scores"], result["absent"] = values | copying, absent | lacking
            sets = self.training.described, self.training.features
            result["memorisation"] = memorisation.judge(copying, *sets)
        return result | {"seconds": time.perf_counter() - start}

    def _by_class(self, generator: LoadedGenerator) -> bool:
        return len(self.classes.names) == generator.num_classes > 1

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
                    + ("; --raw takes the raw ones" * (weights != "raw"))
                )
            out = self.extractor(grids.to_uint8(images))
            fakes.add(out["features"], self.classes.logits(logits_of(out)), labels)
            if progress is not None:
                progress(at + len(numbers), len(share))
        return fakes

    def absent(self, generator: LoadedGenerator) -> dict[str, str]:
        """{score: why} of those that `__call__` leaves out: too few images, or no logits."""
        found = without_logits(self.extractor)
        if self.reference.features is None:
            return found
        found |= too_few(len(self.reference.features), self._kept)
        if self._by_class(generator) and self.intra_fid:
            why = self._too_few_of_a_class(generator.num_classes)
            found |= {"intra_fid": why} if why else {}
        return found

    @property
    def _kept(self) -> int:
        return min(self.num_samples, self.keep)

    def _too_few_of_a_class(self, num_classes: int) -> str | None:
        counts = np.bincount(self.reference.labels, minlength=num_classes)
        least = int(counts.argmin())
        if counts[least] < 2:
            name = self.classes.names[least]
            return f"2 images a class, and the data have {counts[least]} of class {least} ({name})"
        kept = self._kept // num_classes
        if kept >= 2:
            return None
        more = ""
        if 2 * num_classes <= self.keep:
            more = f" (set {self.options.samples.format(2 * num_classes)} or more)"
        return f"2 images a class, and {self._kept} samples are {kept} for some of them{more}"

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
            "fake_features": self._kept,
            "classes": self.classes.how if self._by_class(generator) else None,
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
        if self.training is not None:
            fields["memorisation"] = self.training.described
        begins = generator.config.ema.start_step
        copies = weights == averages.MAIN or weights.startswith(averages.DECAY)
        if copies and generator.step is not None and generator.step < begins:
            fields["average"] = f"a copy of the raw weights before step {begins}"
        if bn_mode == "standing":
            fields["standing_batches"] = standing.BATCHES
            fields["standing_batch_size"] = standing.BATCH_SIZE
        return protocol.seal(fields)


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """A context in which a warning is one line on stderr, without its place in the code."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        if not compiled.tell(message):
            print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def finite(value: Any) -> bool:
    """Whether a score is a number, or none that JSON must have a word for."""
    # JSON has no word for NaN: KID has no standard error where a subset takes all rows.
    return not isinstance(value, float) or math.isfinite(value)
