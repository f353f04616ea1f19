"""The real side of the scores: measured once, then kept in the cache."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from biggan_jax.data import Source
from biggan_jax.errors import UserError
from biggan_jax.evaluation.streaming import joined_moments
from biggan_jax.metrics import archives, moments
from biggan_jax.metrics.features import Extractor
from biggan_jax.parallel import processes
from biggan_jax.storage import paths

BATCH_SIZE = 256  # images read at once


@dataclasses.dataclass(frozen=True)
class Reference:
    """Real images as the scores see them.

    Attributes:
      statistics: of all of them; their protocol describes the real side.
      features: float32 [M, d] of a random M of them; None where only statistics are at hand.
      labels: int32 [M], their classes.
    """

    statistics: moments.Statistics
    features: np.ndarray | None = None
    labels: np.ndarray | None = None


def file_digest(path: Path) -> str:
    """Hexadecimal sha256 of a file of statistics."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def from_file(path: Path, extractor: Extractor, other: str) -> Reference:
    """Reads statistics that the user has: our own, or those of pytorch-fid.

    Args:
      path: an .npz with `mu` and `sigma`.
      extractor: the features network that the fakes go through.
      other: what may be done in place of other statistics, for messages.

    Returns:
      A reference without features, so without the scores that need them.

    Raises:
      UserError: no statistics, of another dimension, or (as far as they tell) of another network.
    """
    statistics = moments.load(path, extractor.feature_dim)
    made = statistics.protocol
    for name in ("features", "features_digest", "resize"):
        own = extractor_fields(extractor)[name]
        if name in made and made[name] != own:
            raise UserError(
                f"{path} was made with {name} {made[name]}, the samples use {own}: take "
                f"statistics of the same network, or {other}"
            )
    digest = file_digest(path)
    if not statistics.checked and processes.is_main():
        print(
            f"{path} has no digest of its own, so a changed value would not be seen: compare its "
            f"sha256 with its source's, {digest}",
            file=sys.stderr,
        )
    known = {"real": path.name, "real_digest": digest, "real_count": statistics.count}
    fields = known | {name: made[name] for name in known if name in made}
    return Reference(dataclasses.replace(statistics, protocol=fields))


def measure(
    source: Source,
    digest: str,
    extractor: Extractor,
    cache: Path,
    *,
    keep: int,
    prefix: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Measures all images of a source, or finds in the cache that it was done before.

    All processes of a run call it, share the images and get the same; the cache is that of
    process 0.

    Args:
      source: the real images.
      digest: of the source.
      extractor: the features network.
      cache: folder for `reference-*.npz` (statistics) and `features-*.npz`.
      keep: features to keep at most.
      prefix: of the names of the two files; none where others may take them for the real side.
      progress: called with (images done, images of this process).

    Returns:
      The reference.

    Raises:
      UserError: an image is unreadable, or fewer than 2 images.
    """
    fields = extractor_fields(extractor) | {
        "real": source.spec,
        "real_digest": digest,
        "real_count": len(source),
        "resolution": source.resolution,
        "channels": source.channels,
    }
    named = {**fields, "real": None, "keep": keep}
    stamp = processes.from_main(source.stamp())
    if stamp != digest:  # the protocol has the digest, which a copy of the files shares
        named["real_stamp"] = stamp
    key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
    files = [cache / f"{prefix}{name}-{key}.npz" for name in ("reference", "features")]
    found = _cached(*files, extractor.feature_dim, fields) if processes.is_main() else None
    if processes.from_main(found is not None):
        return _of_main(found, extractor.feature_dim, fields)
    kept = np.sort(np.random.default_rng(0).permutation(len(source))[:keep])
    stream, features, labels = processes.together(
        lambda: _measure_share(source, extractor, kept, progress)
    )
    statistics = joined_moments(stream).statistics(fields)
    sides = processes.concatenated(features), processes.concatenated(labels)
    if processes.is_main():
        paths.write_bytes(files[0], statistics.to_bytes())
        kept_arrays = archives.to_bytes({"features": sides[0], "labels": sides[1]})
        paths.write_bytes(files[1], kept_arrays)
    return Reference(statistics, *sides)


def _measure_share(
    source: Source,
    extractor: Extractor,
    kept: np.ndarray,
    progress: Callable[[int, int], None] | None,
) -> tuple[moments.Moments, np.ndarray, np.ndarray]:
    """(moments of all features, features and labels of those in `kept`) of this process's share."""
    share = processes.share(len(source), BATCH_SIZE)
    order = source.stored(share)  # of records in lanes the own ones, but for those at the ends
    source.expect(order, order, tell=processes.is_main())
    stream = moments.Moments(extractor.feature_dim)
    kept = kept[slice(*np.searchsorted(kept, (share.start, share.stop)))]
    features = np.empty((len(kept), extractor.feature_dim), np.float32)
    labels = np.empty(len(kept), np.int32)
    for start in share[::BATCH_SIZE]:
        stop = min(start + BATCH_SIZE, share.stop)
        images, classes = source.read(order[start - share.start : stop - share.start])
        batch = extractor(images)["features"]
        stream.add(batch)
        rows = slice(*np.searchsorted(kept, (start, stop)))
        features[rows], labels[rows] = batch[kept[rows] - start], classes[kept[rows] - start]
        if progress is not None:
            progress(stop - share.start, len(share))
    return stream, features, labels


def _of_main(found: Reference | None, dim: int, fields: dict[str, Any]) -> Reference:
    """The reference that process 0 has found, on all processes."""
    if jax.process_count() == 1:
        return found
    if found is None:
        nothing = moments.Statistics(np.zeros(dim), np.zeros((dim, dim)))
        found = Reference(nothing, np.zeros((0, dim), np.float32), np.zeros(0, np.int32))
    mean, covariance = found.statistics.mean, found.statistics.covariance
    statistics = moments.Statistics(
        processes.total(mean),
        processes.total(covariance),
        processes.from_main(found.statistics.count),
        fields,
    )
    sides = processes.concatenated(found.features), processes.concatenated(found.labels)
    return Reference(statistics, *sides)


def extractor_fields(extractor: Extractor) -> dict[str, Any]:
    """Fields of a protocol that describe a features network."""
    return {
        "features": extractor.name,
        "features_digest": extractor.digest,
        "resize": extractor.resize,
    }


def _cached(statistics: Path, kept: Path, dim: int, fields: dict[str, Any]) -> Reference | None:
    """What the two files hold; None where one is missing or damaged, to be made again."""
    try:
        found = moments.load(statistics, dim)
        arrays, _ = archives.read(kept)
        features, labels = arrays["features"], arrays["labels"]
    except (UserError, OSError, ValueError, KeyError):
        return None
    fits = features.dtype == np.float32 and features.shape == (len(labels), dim)
    if not fits or labels.dtype != np.int32 or labels.ndim != 1 or not np.isfinite(features).all():
        return None
    # The same data may lie elsewhere now.
    return Reference(dataclasses.replace(found, protocol=fields), features, labels)
