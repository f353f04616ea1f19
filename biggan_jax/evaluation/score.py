"""Scores of any two sets of images: what `biggan evaluate` measures, without a model."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax import __version__, data
from biggan_jax.errors import UserError
from biggan_jax.evaluation import class_match, folders, inputs, protocol, reference, sides
from biggan_jax.evaluation.evaluator import KEEP, finite, one_line_warnings
from biggan_jax.evaluation.progress import progress_bar
from biggan_jax.evaluation.scoring import (
    DENSITY_K,
    KID_SUBSETS,
    PRECISION_K,
    score,
    too_few,
    without_logits,
)
from biggan_jax.evaluation.streaming import SPLITS, Fakes
from biggan_jax.metrics import moments
from biggan_jax.metrics import scores as score_lib
from biggan_jax.metrics.features import Extractor, logits_of

BATCH_SIZE = 256  # images read at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """How two sets of images are compared.

    Attributes:
      features: `inception`, `dinov2`, `classifier` or `module:function`; see
        `inputs.features_name` for the default.
      inception, dinov2: directories of the weights of these.
      resize: how images reach Inception, of `metrics.resize.RULES`; `inputs.RESIZE` if absent.
      resolution, channels: pixels of a side, 1 or 3, at which they are compared; absent: their own.
      on_bad_record: what an unreadable image means, `error` or `skip`.
      intra_fid: whether the distances of single classes are scored.
      cache: folder of fitted classifiers and measured real images; one in ~/.cache/biggan_jax if
        absent.
    """

    features: str | None = None
    inception: Path | None = None
    dinov2: Path | None = None
    resize: str | None = None
    resolution: int | None = None
    channels: int | None = None
    on_bad_record: str = "error"
    intra_fid: bool = True
    cache: Path | None = None


def score_images(real: str, fake: str, settings: Settings = Settings()) -> dict[str, Any]:  # noqa: B008 (frozen)
    """Scores one set of images, or its statistics, against another.

    Args:
      real: the reference; see `sides.look` for what both may be.
      fake: what is scored.
      settings: how.

    Returns:
      {scores {name: value}, absent {name: why}, per_class [...], protocol, seconds}, as
      `Evaluator.__call__` has them. Where a side is statistics FID is all there is, and where it
      is the real one also the Inception score.

    Raises:
      UserError: a side is missing or damaged, or they cannot be compared.
    """
    start = time.perf_counter()
    both = tuple(
        sides.look(name, text, settings.on_bad_record)
        for name, text in (("REAL", real), ("FAKE", fake))
    )
    if all(side.statistics is not None for side in both):
        found = _of_statistics(*both, settings.features)
    else:
        found = _of_images(*both, settings)
    found["protocol"] = protocol.seal(found["protocol"] | {"version": __version__})
    return found | {"seconds": time.perf_counter() - start}


def _of_statistics(real: sides.Side, fake: sides.Side, features: str | None) -> dict[str, Any]:
    """FID of two files of statistics, which need no features network."""
    pair = [sides.load_statistics(side, features) for side in (real, fake)]
    dims = [len(each.mean) for each in pair]
    if dims[0] != dims[1]:
        raise UserError(
            f"REAL has {dims[0]} feature dimensions and FAKE {dims[1]}: take statistics of one "
            "features network"
        )
    made = [each.protocol for each in pair]
    names = ("features", "features_digest", "resize", "resolution", "channels")
    for name in names:
        values = [each.get(name) for each in made]
        if None not in values and values[0] != values[1]:
            raise UserError(
                f"REAL was made with {name} {values[0]}, FAKE with {values[1]}: make one of them "
                "again with the other's"
            )
    with one_line_warnings():
        fid = score_lib.frechet_distance(
            pair[0].mean, pair[0].covariance, pair[1].mean, pair[1].covariance
        )
    fields = {name: made[0].get(name, made[1].get(name)) for name in names}
    fields |= _of_file("real", real, pair[0].count) | _of_file("fake", fake, pair[1].count)
    absent = dict.fromkeys(("kid", "precision", "recall"), "images, and both sides are statistics")
    return {"scores": {"fid": fid}, "absent": absent, "per_class": [], "protocol": fields}


def _of_file(name: str, side: sides.Side, count: int | None) -> dict[str, Any]:
    number = "real_count" if name == "real" else "samples"
    digest = reference.file_digest(side.statistics)
    return {name: side.statistics.name, f"{name}_digest": digest, number: count}


def _of_images(real: sides.Side, fake: sides.Side, settings: Settings) -> dict[str, Any]:
    """Scores where one side at least has images."""
    size = sides.common((real, fake), settings.resolution, settings.channels)
    name = inputs.features_name(settings.features, settings.inception, size[1], settings.dinov2)
    inputs.check_resize(settings.resize, name)
    if name == "classifier" and real.spec is None:
        raise UserError(
            "REAL is statistics, to which no classifier can be fitted: give images as REAL, or "
            "--features inception"
        )
    cache = _cache(settings.cache)
    extractor = None
    if name != "classifier":
        extractor = inputs.open_network(
            name, settings.inception, settings.resize, size, settings.dinov2
        )
    opened = {
        side.name: sides.open_images(side, *size, settings.on_bad_record)
        for side in (real, fake)
        if side.spec is not None
    }
    if extractor is None:
        extractor = _fitted(opened["REAL"][0], cache)
    read = {
        side.name: reference.from_file(side.statistics, extractor, f"give images as {side.name}")
        for side in (real, fake)
        if side.spec is None
    }
    with one_line_warnings():
        if real.spec is None:
            of_real = read["REAL"]
        else:
            with progress_bar("image", "real images") as progress:
                of_real = reference.measure(
                    *opened["REAL"], extractor, cache, keep=KEEP, progress=progress
                )
        fields = {"resolution": size[0], "channels": size[1]} | of_real.statistics.protocol
        fields |= reference.extractor_fields(extractor)
        if fake.spec is None:
            found = _against_file(of_real, fake, read["FAKE"].statistics)
        else:
            real_classes = opened["REAL"][0].class_names if name == "classifier" else ()
            found = _against_images(of_real, *opened["FAKE"], extractor, real_classes, settings)
    return found | {"protocol": fields | found["protocol"]}


def _cache(given: Path | None) -> Path:
    cache = given or Path.home() / ".cache" / "biggan_jax" / "score"
    folders.check_writable(cache, "--cache")
    return cache


def _fitted(source: data.Source, cache: Path) -> Extractor:
    with progress_bar("step", "fitting the classifier") as progress:
        return inputs.fitted_classifier(source, source.stamp(), cache, progress=progress)


def _against_file(
    real: reference.Reference, fake: sides.Side, found: moments.Statistics
) -> dict[str, Any]:
    """FID of statistics against images."""
    fid = score_lib.frechet_distance(
        real.statistics.mean, real.statistics.covariance, found.mean, found.covariance
    )
    absent = dict.fromkeys(("kid", "precision", "recall"), "images, and FAKE is statistics")
    fields = _of_file("fake", fake, found.count)
    return {"scores": {"fid": fid}, "absent": absent, "per_class": [], "protocol": fields}


def _against_images(
    real: reference.Reference,
    source: data.Source,
    digest: str,
    extractor: Extractor,
    real_classes: tuple[str, ...],
    settings: Settings,
) -> dict[str, Any]:
    """All scores of images."""
    count = len(source)
    matched, absent = _match(real_classes, source, settings)
    if real.features is None:
        absent |= dict.fromkeys(("kid", "precision", "recall"), "images, and REAL is statistics")
    else:
        absent |= too_few(len(real.features), min(count, KEEP))
    if count < SPLITS:
        why = f"{SPLITS} splits, and there are {count} samples"
        absent |= dict.fromkeys(("is_mean", "is_std"), why)
    absent |= without_logits(extractor)
    with progress_bar("image", "images to be scored") as progress:
        fakes = _measured(source, extractor, matched, progress)
    by_class, intra = bool(matched.names), settings.intra_fid
    if by_class and intra and (why := _too_few_of_a_class(real, fakes, matched)):
        absent["intra_fid"] = why
    measured = score(real, fakes, by_class, intra, absent)
    values = {name: value for name, value in measured if finite(value)}
    per_class = values.pop("per_class", [])
    for row in per_class:
        row["name"] = matched.names[row["class"]]
    fields = {
        "real_features": None if real.features is None else len(real.features),
        "fake": source.spec,
        "fake_digest": digest,
        "samples": count,
        "fake_features": min(count, KEEP),
        "classes": matched.how,
        "is_splits": SPLITS,
        "kid_subsets": KID_SUBSETS,
        "precision_k": PRECISION_K,
        "density_k": DENSITY_K,
    }
    return {"scores": values, "absent": absent, "per_class": per_class, "protocol": fields}


def _match(
    real_classes: tuple[str, ...], source: data.Source, settings: Settings
) -> tuple[class_match.Match, dict[str, str]]:
    """(REAL's classes and which of FAKE's they are, why classes are not scored)."""
    if not real_classes:
        return class_match.Match(), {}
    if source.num_classes == 1:
        return class_match.Match(), {"class_accuracy": "labels of FAKE, which has one class"}
    numbered = source.class_names == tuple(str(i) for i in range(source.num_classes))
    if numbered and source.num_classes <= len(real_classes):
        return class_match.Match(real_classes, "by index"), {}
    try:
        return class_match.match(real_classes, source.class_names, source.spec), {}
    except UserError:
        names = class_match.listed(source.class_names, class_match.LISTED)
        return class_match.Match(), {"class_accuracy": f"REAL's classes; FAKE has {names}"}


def _measured(source: data.Source, extractor: Extractor, matched, progress) -> Fakes:
    """Features of all images, in an order that the order of the files has no part in."""
    count = len(source)
    fakes = Fakes(count, extractor.feature_dim, max(1, len(matched.names)), KEEP)
    order = np.random.default_rng(0).permutation(count)
    for at in range(0, count, BATCH_SIZE):
        images, labels = source.read(order[at : at + BATCH_SIZE])
        out = extractor(images)
        labels = matched.labels(labels) if matched.names else np.zeros_like(labels)
        fakes.add(out["features"], logits_of(out), labels)
        progress(min(at + BATCH_SIZE, count), count)
    return fakes


def _too_few_of_a_class(
    real: reference.Reference, fakes: Fakes, matched: class_match.Match
) -> str | None:
    for what, labels in (("REAL", real.labels), ("FAKE", fakes.labels)):
        counts = np.bincount(labels, minlength=len(matched.names))
        least = int(counts.argmin())
        if counts[least] < 2:
            return f"2 images a class, and {what} has {counts[least]} of {matched.names[least]}"
    return None


def lines(result: dict[str, Any]) -> list[str]:
    """What `biggan score` says to a person: one score a line, then the protocol."""
    from biggan_jax.evaluation import report

    out = [f"{name:<20}{value:>12,.5g}" for name, value in result["scores"].items()]
    out += report.class_lines(result["per_class"]) + report.absent_lines(result)
    p = result["protocol"]
    number = {"real": p.get("real_count"), "fake": p.get("samples")}
    texts = [
        f"{'?' if number[side] is None else format(number[side], ',')} images of {p[side]} "
        f"({str(p[f'{side}_digest'])[:12]})"
        for side in ("fake", "real")
    ]
    features = f"{p['features']} features" if p["features"] else "features of the files"
    digest = f" ({p['features_digest'][:12]})" if p["features_digest"] else ""
    if p["real_digest"] == p["fake_digest"]:
        out.append("REAL and FAKE are the same: give what is to be scored as FAKE")
    resize = f", {p['resize']}" if p["resize"] not in (None, "none") else ""
    size = f", {p['resolution']} pixels" if p["resolution"] else ""
    out.append(
        f"protocol {p['fingerprint']}: {texts[0]} against {texts[1]}, {features}{digest}{resize}"
        f"{size}, version {p['version']}"
    )
    return out
