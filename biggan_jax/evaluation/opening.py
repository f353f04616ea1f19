"""Opens what a generator is scored with: the features network and the real side."""

import dataclasses
import functools
import sys
from pathlib import Path

from ml_collections import ConfigDict

from biggan_jax import data
from biggan_jax.data import kinds
from biggan_jax.errors import UserError, counts
from biggan_jax.evaluation import class_match, inputs, memorisation, reference
from biggan_jax.evaluation.evaluator import (
    COMMAND,
    KEEP,
    Evaluator,
    Options,
    check_samples,
    one_line_warnings,
)
from biggan_jax.evaluation.progress import progress_bar
from biggan_jax.metrics import moments
from biggan_jax.metrics.classifier import FEATURES
from biggan_jax.metrics.features import Extractor
from biggan_jax.parallel import processes
from biggan_jax.sampling import classes
from biggan_jax.storage import label_counts

NUM_SAMPLES = {"inception": 50_000, "dinov2": 50_000}
FEW_SAMPLES = 10_000  # of the classifier, and of functions of which nothing is known
MOST_SAMPLES, MOST_SEEDS = 10**8, 1000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a generator is compared with, and how often it is sampled.

    Attributes:
      data: spec of the real images; the training data if absent.
      reference: file of statistics in their place.
      features: `inception`, `dinov2`, `classifier` or `module:function`; see
        `inputs.features_name` for the default.
      inception: directory of the Inception weights.
      dinov2: directory of DINOv2's weights.
      resize: how images reach Inception, of `metrics.resize.RULES`; `inputs.RESIZE` if absent.
      fit_classifier: fit the classifier even if the cache has one.
      num_samples: 50,000 with inception and dinov2, otherwise 10,000 if absent.
      seed: of the latents.
      seeds: how many there are, from `seed` on; several give means and deviations.
      truncation_kind: `resample` or `scale`.
      intra_fid: whether the distances of single classes are scored too.
      on_bad_record: what an unreadable image of `data` means, error or skip; as in training if
        absent.
      cache: folder of fitted classifiers and measured real images; the `cache` of the directory
        that is evaluated if absent.
      memorisation: whether copies of training images are sought; if absent, where these are no
        more than `memorisation.LARGEST` and can be opened.
      options: how a user gives these settings, for messages.
    """

    data: str | None = None
    reference: Path | None = None
    features: str | None = None
    inception: Path | None = None
    dinov2: Path | None = None
    resize: str | None = None
    fit_classifier: bool = False
    num_samples: int | None = None
    seed: int = 0
    seeds: int = 1
    truncation_kind: str = "resample"
    intra_fid: bool = True
    on_bad_record: str | None = None
    cache: Path | None = None
    memorisation: bool | None = None
    options: Options = COMMAND


_FOR_COPIES = "--memorisation looks for copies of these images: restore them, or leave it out"
HELD_OUT = "included, {:.6g} of all"  # of the images that training leaves out, for the protocol


def open_evaluator(
    config: ConfigDict,
    cache: Path,
    settings: Settings,
    trained_on: tuple[data.Source, str] | None = None,
) -> Evaluator:
    """Opens the features network and measures the real side; both are cached.

    All processes of a run call it.

    Args:
      config: of the model; `data.source` names the training data.
      cache: folder of fitted classifiers and measured real images; its own `settings.cache` was
        looked at by the caller.
      settings: what to compare with.
      trained_on: the training data and its digest, where they are open already.

    Returns:
      What scores generators of this config.

    Raises:
      UserError: data, statistics or weights are missing or do not fit, or too few samples.
    """
    if not 1 <= settings.seeds <= MOST_SEEDS:
        raise UserError(f"--seeds {settings.seeds}: set it to a number from 1 to {MOST_SEEDS:,}")
    if settings.data is not None and not settings.data.strip():  # before a classifier is fitted
        raise UserError(f"--data={settings.data!r}: it is empty; write {kinds.forms()}")
    name = inputs.features_name(
        settings.features, settings.inception, config.model.channels, settings.dinov2
    )
    inputs.check_resize(settings.resize, name)
    if settings.fit_classifier and name != "classifier":
        raise UserError(f"--fit-classifier and {name} features: leave one of the two out")
    usual = NUM_SAMPLES.get(name, FEW_SAMPLES)
    num_samples = settings.num_samples if settings.num_samples is not None else usual
    if num_samples < 2:
        option = settings.options.samples.format(2)
        samples = counts(num_samples, "sample has", "samples have")
        raise UserError(f"{samples} no covariance: set {option} or more")
    if num_samples > MOST_SAMPLES:
        option = settings.options.samples.format(usual)
        raise UserError(
            f"{num_samples:,} samples would take months: set {option}, the usual number"
        )
    # All that can be refused, before minutes are spent on a classifier and hours on real images.
    size = config.model.resolution, config.model.channels
    network = functools.partial(
        inputs.open_network, name, settings.inception, settings.resize, size, settings.dinov2
    )
    extractor = network() if name not in ("inception", "classifier") else None
    if name != "inception":
        dim = FEATURES if extractor is None else extractor.feature_dim
        check_samples(num_samples, dim, name, settings.options)
        if settings.reference is not None:
            moments.load(settings.reference, dim)
    real = side = trained_on
    if real is None and (settings.reference is None or name == "classifier"):
        real = side = _open_first(name, config, cache, settings)
    if settings.reference is None and settings.data not in (None, real[0].spec):
        side = _open(settings.data, config, cache, settings)
    own_names = classes.names_of(config)
    class_names = real[0].class_names if name == "classifier" else ()
    matched = _match(own_names, class_names, real, settings)
    by_class = settings.intra_fid and bool(matched.names)
    labels = matched
    if by_class and settings.reference is None:
        labels = class_match.match(
            matched.names, side[0].class_names, side[0].spec, known=bool(own_names)
        )
    # Of process 0, whose cache it is: on other hosts the same files may have other times.
    stamp = processes.from_main(real[0].stamp()) if real else ""
    if name == "inception":
        extractor = network()
    elif name == "classifier":
        with processes.main_first():  # it fills the cache
            extractor = _fitted((real[0], stamp), cache, settings)
    evaluator = Evaluator(
        extractor,
        None,
        num_samples,
        seed=settings.seed,
        truncation_kind=settings.truncation_kind,
        classes=matched,
        intra_fid=by_class,
        keep=KEEP,
        options=settings.options,
    )
    if settings.reference is not None:
        found = reference.from_file(settings.reference, extractor, "leave out --reference")
        side = None
    else:
        found = _measured(config, extractor, cache, side, labels)
    training = memorisation.opened(
        config,
        settings.memorisation,
        side,
        found,
        at_hand=real,
        open_training=functools.partial(_open, None, config, cache, settings, _FOR_COPIES),
        measure=functools.partial(_of_training, extractor, cache),
        features=extractor.name,
    )
    return dataclasses.replace(evaluator, reference=found, training=training)


def _of_training(
    extractor: Extractor, cache: Path, training: tuple[data.Source, str]
) -> reference.Reference:
    with progress_bar("image", "training images") as progress, one_line_warnings():
        options = {"keep": len(training[0]), "prefix": "training-", "progress": progress}
        return reference.measure(*training, extractor, cache, **options)


def _measured(
    config: ConfigDict,
    extractor: Extractor,
    cache: Path,
    real: tuple[data.Source, str],
    labels: class_match.Match,
) -> reference.Reference:
    """The real side of a source, its labels those of the model."""
    with progress_bar("image", "real images") as progress, one_line_warnings():
        side = reference.measure(*real, extractor, cache, keep=KEEP, progress=progress)
    if config.data.holdout and real[0].spec == config.data.source:
        # Of the same images whatever the run was trained on: scores of two runs may be compared.
        fields = side.statistics.protocol | {"real_held_out": HELD_OUT.format(config.data.holdout)}
        statistics = dataclasses.replace(side.statistics, protocol=fields)
        side = dataclasses.replace(side, statistics=statistics)
    if side.labels is not None:
        side = dataclasses.replace(side, labels=labels.labels(side.labels))
    return side


def _match(
    own_names: tuple[str, ...],
    class_names: tuple[str, ...],
    real: tuple[data.Source, str] | None,
    settings: Settings,
) -> class_match.Match:
    """Which of the model's classes those of the features network are; none for Inception."""
    if not class_names:
        return class_match.Match()
    try:
        return class_match.match(own_names, class_names, real[0].spec)
    except UserError:
        if settings.intra_fid:
            raise
        return class_match.Match()


def _fitted(real: tuple[data.Source, str], cache: Path, settings: Settings) -> Extractor:
    """The classifier of `real`: a source and its stamp."""
    with progress_bar("step", "fitting the classifier") as progress:
        return inputs.fitted_classifier(
            *real,
            cache,
            refit=settings.fit_classifier,
            progress=progress,
            option=settings.options.features,
        )


def _open_first(
    name: str, config: ConfigDict, cache: Path, settings: Settings
) -> tuple[data.Source, str]:
    """The training data where the classifier is fitted to them, otherwise the real side."""
    trained = config.data.source
    remedy = "give other real images with --data SPEC"
    relative = trained is not None and data.absolute(trained) != trained
    where = "its path is relative to where the training ran" if relative else ""
    if name != "classifier" or trained is None:
        remedy = "; ".join(filter(None, (where, remedy)))
        return _open(settings.data, config, cache, settings, remedy)
    # The classifier is one of the training data, whatever the reference.
    what = f"the classifier is one of these training images{where and f', and {where}'}"
    remedy = f"{what}: say where they are with --data SPEC, restore them, or use "
    remedy += settings.options.features.format("inception")
    try:
        return _open(trained, config, cache, settings, remedy)
    except UserError as error:
        if settings.data is None or settings.data == trained:
            raise
        found = _open(settings.data, config, cache, settings)
        if processes.is_main():
            gone = str(error).removesuffix(f"; {remedy}")
            print(f"{gone}; the classifier is one of --data {settings.data}", file=sys.stderr)
        return found


def _open(
    spec: str | None, config: ConfigDict, cache: Path, settings: Settings, remedy: str = ""
) -> tuple[data.Source, str]:
    """(source, digest) of `--data`, or of the training data with a remedy where these are gone."""
    given = spec is not None and spec == settings.data
    spec = config.data.source if spec is None else spec
    if spec is None:
        raise UserError("the config names no data.source: give the real images with --data SPEC")
    try:
        bad = {"on_bad_record": settings.on_bad_record} if settings.on_bad_record else {}
        source = data.open_source(
            spec,
            resolution=config.model.resolution,
            channels=config.model.channels,
            option="--data" if given else "data.source",
            **data.choices(config.data) | bad,
        )
    except UserError as error:
        if given:
            raise
        raise UserError(f"{error}; {remedy}") from error
    return source, label_counts.cached_report(source, cache).digest
