"""What a data set holds, in a form to print and to store."""

import dataclasses
import json
import uuid
from pathlib import Path

import numpy as np

from biggan_jax.data.source import Source

# Up to this many classes are listed one by one.
LISTED_CLASSES = 20
_CACHE_VERSION = 1


@dataclasses.dataclass(frozen=True)
class DataReport:
    """The size and the balance of a data set.

    Attributes:
      spec: the text that opened it.
      examples: number of examples.
      num_classes: number of classes.
      class_names: one name per class.
      histogram: number of examples of each class.
      label_min: smallest label that occurs.
      label_max: largest label that occurs.
      ignored_files: files that were seen and are no images of a class.
      digest: 64 hexadecimal digits that identify the contents.
      empty_classes: folders without images, which were left out and take no label.
    """

    spec: str
    examples: int
    num_classes: int
    class_names: tuple[str, ...]
    histogram: tuple[int, ...]
    label_min: int
    label_max: int
    ignored_files: int
    digest: str
    empty_classes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for a person, one line per fact."""
        counts = np.array(self.histogram)
        lines = [
            f"data {self.spec}: {self.examples:,} images, {self.num_classes:,} "
            f"class{'es' if self.num_classes != 1 else ''}, labels {self.label_min} to "
            f"{self.label_max}, digest {self.digest[:12]}"
        ]
        if self.num_classes <= LISTED_CLASSES:
            pairs = zip(self.class_names, self.histogram, strict=True)
            lines.append("images per class: " + ", ".join(f"{name} {n:,}" for name, n in pairs))
        else:
            least, most = int(counts.argmin()), int(counts.argmax())
            lines.append(
                f"images per class: min {counts[least]:,} ({self.class_names[least]}), "
                f"median {np.median(counts):,.10g}, max {counts[most]:,} "
                f"({self.class_names[most]})"
            )
        if not counts.all():
            lines.append(f"{int((counts == 0).sum())} classes have no image")
        if self.empty_classes:
            names = ", ".join(self.empty_classes[:LISTED_CLASSES])
            more = len(self.empty_classes) - LISTED_CLASSES
            lines.append(
                f"left out, no image inside: {names}" + (f" and {more} more" if more > 0 else "")
            )
        if self.ignored_files:
            lines.append(f"ignored, no image of a class: {self.ignored_files:,} files")
        return lines


def data_report(source: Source, cache_dir: Path | None, *, write: bool = True) -> DataReport:
    """Describes a source without a slow scan at each start.

    Args:
      source: the data.
      cache_dir: where the label counts of a source that must be scanned are kept, one file per
        digest; None scans every time.
      write: whether this process may write them there.

    Returns:
      The report.

    Raises:
      UserError: a label lies outside [0, num_classes).
    """
    digest = source.digest()
    histogram = _label_counts(source, digest, cache_dir, write)
    present = np.flatnonzero(histogram)
    return DataReport(
        spec=source.spec,
        examples=len(source),
        num_classes=source.num_classes,
        class_names=source.class_names,
        histogram=tuple(histogram.tolist()),
        label_min=int(present[0]),
        label_max=int(present[-1]),
        ignored_files=source.ignored_files,
        digest=digest,
        empty_classes=source.empty_classes,
    )


def _label_counts(source: Source, digest: str, cache_dir: Path | None, write: bool) -> np.ndarray:
    if source.histogram_is_cheap or cache_dir is None:
        return source.histogram()
    path = Path(cache_dir) / f"labels-{digest[:32]}.json"
    cached = _read_cache(path, source, digest)
    if cached is not None:
        return cached
    histogram = source.histogram()
    if not write:
        return histogram
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write at once: each renames a finished file of its own.
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    content = {"version": _CACHE_VERSION, "digest": digest, "histogram": histogram.tolist()}
    own.write_text(json.dumps(content), encoding="utf-8")
    own.replace(path)
    return histogram


def _read_cache(path: Path, source: Source, digest: str) -> np.ndarray | None:
    """The cached counts, or None where they are absent, damaged or of other data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        histogram = np.array(content["histogram"], np.int64)
        head = (content["version"], content["digest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    fits = histogram.shape == (source.num_classes,) and histogram.sum() == len(source)
    return histogram if fits and head == (_CACHE_VERSION, digest) else None
