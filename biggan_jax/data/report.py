"""What a data set holds, in a form to print."""

import dataclasses

import numpy as np

from biggan_jax.data.source import Source
from biggan_jax.errors import some

# Up to this many classes are listed one by one.
LISTED_CLASSES = 20


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
            lines.append(f"left out, no image inside: {some(self.empty_classes, LISTED_CLASSES)}")
        if self.ignored_files:
            lines.append(f"ignored, no image of a class: {self.ignored_files:,} files")
        return lines


def data_report(source: Source, histogram: np.ndarray | None = None) -> DataReport:
    """Describes a source.

    Args:
      source: the data.
      histogram: examples of each class [num_classes], where they are known already; counted
        otherwise, which reads all labels of some sources (`storage.label_counts` keeps them).

    Returns:
      The report.

    Raises:
      UserError: a label lies outside [0, num_classes).
    """
    histogram = source.histogram() if histogram is None else histogram
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
        digest=source.digest(),
        empty_classes=source.empty_classes,
    )
