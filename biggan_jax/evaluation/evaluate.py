"""`biggan evaluate`: one feature pass -> (name, value) pairs with a protocol fingerprint."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from biggan_jax import data
from biggan_jax.errors import UserError
from biggan_jax.evaluation import inputs, reference
from biggan_jax.evaluation.evaluator import KEEP, Evaluator, one_line_warnings
from biggan_jax.metrics.features import Extractor
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import load
from biggan_jax.storage import networks, paths
from biggan_jax.storage import truncation_statistics as statistics
from biggan_jax.storage.directory import open_directory

SAMPLES = {"inception": 50_000, "classifier": 10_000}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a generator is compared with, and how often it is sampled.

    Attributes:
      data: spec of the real images; the training data if absent.
      reference: file of statistics in their place.
      features: `inception` or `classifier`; see `inputs.features_name` for the default.
      inception: directory of the Inception weights.
      fit_classifier: fit the classifier even if the cache has one.
      samples: 50,000 with inception, 10,000 with the classifier if absent.
      seed: of the latents.
      truncation_kind: `resample` or `scale`.
      intra_fid: whether the distances of single classes are scored too.
    """

    data: str | None = None
    reference: Path | None = None
    features: str | None = None
    inception: Path | None = None
    fit_classifier: bool = False
    samples: int | None = None
    seed: int = 0
    truncation_kind: str = "resample"
    intra_fid: bool = True


def open_evaluator(
    config: ConfigDict,
    cache: Path,
    settings: Settings,
    trained_on: tuple[data.Source, str] | None = None,
) -> Evaluator:
    """Opens the features network and measures the real side; both are cached.

    Args:
      config: of the model; `data.source` names the training data.
      cache: folder of fitted classifiers and measured real images.
      settings: what to compare with.
      trained_on: the training data and its digest, where they are open already.

    Returns:
      What scores generators of this config.

    Raises:
      UserError: data, statistics or weights are missing or do not fit, or too few samples.
    """
    name = inputs.features_name(settings.features, settings.inception, config.model.channels)
    if settings.fit_classifier and name == "inception":
        raise UserError("--fit-classifier and inception features: leave one of the two out")
    samples = settings.samples if settings.samples is not None else SAMPLES[name]
    if samples < 2:
        raise UserError(f"{samples} samples have no covariance: set --samples to 2 or more")
    real = trained_on
    if real is None and (settings.reference is None or name == "classifier"):
        specs = [settings.data, config.data.source]
        # The classifier is one of the training data, whatever the reference.
        spec = next(filter(None, specs[::-1] if name == "classifier" else specs), None)
        real = _open(spec, config, cache)
    extractor, class_names = _open_network(name, real, cache, settings)
    evaluator = Evaluator(  # it refuses too few samples before hours are spent on real images
        extractor,
        None,
        samples,
        seed=settings.seed,
        truncation_kind=settings.truncation_kind,
        class_names=class_names,
        intra_fid=settings.intra_fid and bool(class_names),
    )
    if settings.reference is not None:
        side = reference.from_file(settings.reference, extractor)
        return dataclasses.replace(evaluator, reference=side)
    if settings.data is not None and settings.data != real[0].spec:
        real = _open(settings.data, config, cache)
    if evaluator.intra_fid and real[0].num_classes != len(class_names):
        raise UserError(
            f"{real[0].spec} has {real[0].num_classes} classes, the training data "
            f"{len(class_names)}: choose other --data, or leave out classes with --no-intra-fid"
        )
    with _bar("image", "real images") as progress, one_line_warnings():
        side = reference.measure(*real, extractor, cache, keep=KEEP, progress=progress)
    return dataclasses.replace(evaluator, reference=side)


def evaluate(
    directory: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    truncations: Sequence[float | None] = (None,),
    bn_mode: str = "running",
    ema: bool = True,
    matrix: bool = False,
) -> dict[str, Any]:
    """Scores the generator of a directory.

    Args:
      directory: a workdir (its newest intact checkpoint is taken) or a model directory.
      settings: what to compare with.
      truncations: thresholds in ascending order; None is none.
      bn_mode: 'running', 'batch' or 'standing'.
      ema: averaged weights; False takes the raw ones.
      matrix: score every bn mode with averaged and raw weights.

    Returns:
      {scores, per_class, protocol, seconds}. With several truncations these are of the last, the
      mildest, and `curve` lists {truncation, scores, fingerprint} of all; with `matrix` they are of
      `bn_mode` and `ema`, and `matrix` lists {bn_mode, weights, scores, fingerprint} of all.

    Raises:
      UserError: the directory or the settings do not fit.
    """
    directory, config = open_directory(directory)
    held = networks.generator_weights(directory)
    weights = "ema" if ema and "EMA" in held else "raw"
    if matrix and len(truncations) > 1:
        raise UserError("--matrix takes a single --truncation: leave one of the two out")
    # Before the real side: a directory without weights is an error of a second.
    generators = {weights: load.load_generator(directory, ema=ema)}
    evaluator = open_evaluator(config, paths.cache_folder(directory), settings)

    def one(truncation: float | None, bn_mode: str, weights: str) -> dict[str, Any]:
        own = statistics.default(directory, truncation)
        if weights not in generators or own is not None:
            generators[weights] = load.load_generator(
                directory, ema=weights == "ema", truncation_statistics=own
            )
        protocol = {"truncation": truncation, "bn_mode": bn_mode, "weights": weights}
        text = ", ".join(f"{name} {value}" for name, value in protocol.items())
        with _bar("sample", text) as progress:
            options = protocol | {"model": str(directory), "progress": progress}
            return evaluator(generators[weights], **options)

    if matrix:
        names = ["ema" if averaged else "raw" for averaged in held.values()]
        cells = {(m, w): one(truncations[0], m, w) for w in names for m in generator_lib.BN_MODES}
        rows = [{"bn_mode": m, "weights": w} | _row(r) for (m, w), r in cells.items()]
        return cells[bn_mode, weights] | {"matrix": rows}
    curve = [one(truncation, bn_mode, weights) for truncation in truncations]
    if len(curve) == 1:
        return curve[0]
    rows = [{"truncation": t} | _row(r) for t, r in zip(truncations, curve, strict=True)]
    return curve[-1] | {"curve": rows}


def during_training(
    config: ConfigDict, source: data.Source, digest: str, workdir: Path
) -> Callable[[Any, int], dict[str, Any]] | None:
    """Scores for the training loop, of the averaged weights without truncation.

    Args:
      config: of the run.
      source: the training data.
      digest: of the source.
      workdir: whose `cache` keeps the classifier and the real side.

    Returns:
      A function of (generator variables, step) -> {scores {name: value}, protocol}; None where
      `eval_every_steps` is unset. Every process computes the same scores, on its own devices.

    Raises:
      UserError: too few `eval_samples`, or Inception weights that are missing.
    """
    if config.eval_every_steps is None:
        return None
    settings = Settings(features=config.eval_features, samples=config.eval_samples)
    try:
        evaluator = open_evaluator(config, paths.cache_folder(workdir), settings, (source, digest))
    except UserError as e:
        flags = {"--samples": "--config.eval_samples", "--features": "--config.eval_features="}
        text = str(e)
        for flag, key in flags.items():
            text = text.replace(flag, key)
        raise UserError(text) from e
    # A rare class may have fewer images than its own distance needs: no reason to stop a run.
    evaluator = dataclasses.replace(evaluator, intra_fid=False)
    generators: list[generator_lib.LoadedGenerator] = []

    def scores(variables: Any, step: int) -> dict[str, Any]:
        held = jax.device_get(variables)
        if not generators:
            generators.append(generator_lib.LoadedGenerator(config, held))
        # Other weights in the same compiled programs.
        result = evaluator(generators[0].replace(held, step), model=str(workdir))
        return {name: result[name] for name in ("scores", "protocol")}

    return scores


def _open_network(
    name: str, real: tuple[data.Source, str] | None, cache: Path, settings: Settings
) -> tuple[Extractor, tuple[str, ...]]:
    """(network, names of the classes that its logits mean), the classifier being one of `real`."""
    if name == "inception":
        return inputs.open_inception(settings.inception), ()
    with _bar("step", "fitting the classifier") as progress:
        classifier = inputs.fitted_classifier(
            *real, cache, refit=settings.fit_classifier, progress=progress
        )
    return classifier, real[0].class_names


def _open(spec: str | None, config: ConfigDict, cache: Path) -> tuple[data.Source, str]:
    if spec is None:
        raise UserError("the config names no data.source: give the real images with --data SPEC")
    source = inputs.open_real(
        spec,
        resolution=config.model.resolution,
        channels=config.model.channels,
        on_bad_record=config.data.on_bad_record,
    )
    return source, data.data_report(source, cache).digest


def _row(result: dict[str, Any]) -> dict[str, Any]:
    return {"scores": result["scores"], "fingerprint": result["protocol"]["fingerprint"]}


@contextlib.contextmanager
def _bar(unit: str, text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, total): one line, and a bar on a terminal."""
    bars: list[tqdm] = []

    def update(done: int, total: int) -> None:
        if not bars and jax.process_index() == 0:
            print(f"{text}: {total:,} {unit}s", file=sys.stderr, flush=True)
            bars.append(tqdm(total=total, unit=unit, disable=None, leave=False))
        for bar in bars:
            bar.update(done - bar.n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
