"""What a data set holds, in a form to print."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from biggan_jax.data import balance
from biggan_jax.data import findings as findings_lib
from biggan_jax.data.files import shown
from biggan_jax.data.findings import Finding
from biggan_jax.data.listing import counts
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
      left_out: what the ignored files are, one text for each kind.
      held_out: number of examples of each class that are kept out of training; none where none is.
      findings: what may surprise whoever trains on it.
      balance: `data.balance` of the stream.
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
    left_out: tuple[str, ...] = ()
    held_out: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    balance: float = 0.0

    def lines(self) -> list[str]:
        """The report for a person: the facts, then the findings."""
        return self.facts() + [str(finding) for finding in self.findings]

    def facts(self) -> list[str]:
        """How many images and classes there are, and what was left out, one line per fact."""
        lines = [
            f"data {shown(self.spec)}: {counts(self.examples, 'image', 'images')}, "
            f"{counts(self.num_classes, 'class', 'classes')}, labels {self.label_min} to "
            f"{self.label_max}, digest {self.digest[:12]}",
            f"images per class: {self.per_class(self.histogram)}",
        ]
        if self.held_out:
            lines.append(
                f"held out of training: {counts(sum(self.held_out), 'image', 'images')}; of each "
                f"class: {self.per_class(self.held_out)}"
            )
        if self.balance:
            in_training = self.in_training()
            drawn = balance.shares(in_training, self.balance) * in_training.sum()
            lines.append(
                f"data.balance {self.balance:g}: in the time of an epoch, "
                f"{counts(int(in_training.sum()), 'image', 'images')}, are drawn of each class: "
                f"{self.per_class(np.rint(drawn).astype(int).tolist())}"
            )
        without = self.histogram.count(0)
        if without:
            have = "class has" if without == 1 else "classes have"
            lines.append(f"{without:,} {have} no image")
        if self.empty_classes:
            names = some(map(shown, self.empty_classes), LISTED_CLASSES)
            lines.append(f"left out, no image inside: {names}")
        if self.ignored_files:
            named = f" ({'; '.join(self.left_out)})" if self.left_out else ""
            number = counts(self.ignored_files, "file", "files")
            lines.append(f"ignored, no image of a class: {number}{named}")
        elif self.left_out:
            lines.append(f"ignored: {'; '.join(self.left_out)}")
        return lines

    def in_training(self) -> np.ndarray:
        """Examples of each class that are not held out, int64 [num_classes]."""
        return np.array(self.histogram) - np.array(self.held_out or 0)

    def per_class(self, numbers: Sequence[int]) -> str:
        """One number of every class, or their range where the classes are many."""
        names = [shown(name) for name in self.class_names]
        if self.num_classes <= LISTED_CLASSES:
            return ", ".join(f"{name} {n:,}" for name, n in zip(names, numbers, strict=True))
        of_class = np.array(numbers)
        least, most = int(of_class.argmin()), int(of_class.argmax())
        return (
            f"min {of_class[least]:,} ({names[least]}), median {np.median(of_class):,.10g}, "
            f"max {of_class[most]:,} ({names[most]})"
        )


def data_report(source: Source, histogram: np.ndarray | None = None) -> DataReport:
    """Describes a source.

    Args:
      source: the data.
      histogram: examples of each class [num_classes], where they are known already; counted
        otherwise, which reads all labels of some sources (`storage.label_counts` keeps them).

    Returns:
      The report, with the findings that need no look at the pictures.

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
        left_out=source.left_out,
        findings=(
            *findings_lib.of_layout(source),
            *source.remarks,
            *findings_lib.of_counts(source, histogram),
        ),
    )
