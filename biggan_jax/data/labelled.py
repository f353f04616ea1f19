"""Encoded images whose labels are known from the start."""

from collections.abc import Iterator, Sequence

import numpy as np

from biggan_jax.data.decoding import DecodingSource, Encoded
from biggan_jax.data.source import count_labels


class LabelledSource(DecodingSource):
    """A source of encoded images with all labels in memory; subclasses say where the bytes are.

    Args:
      spec: the text that opened this source.
      labels: of all examples, integers [n] in [0, len(class_names)).
      **settings: those of `DecodingSource`.

    Raises:
      UserError: a label is no class.
    """

    labels_are_cheap = True

    def __init__(self, spec: str, labels: np.ndarray, **settings):
        super().__init__(spec, **settings)
        self._labels = labels.astype(np.int32)
        self._histogram = count_labels(self._labels, self.num_classes, spec)

    def __len__(self) -> int:
        return len(self._labels)

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        return self._labels[self._check_indices(indices)]

    def histogram(self) -> np.ndarray:
        return self._histogram.copy()

    def _others_of_class(self, index: int, label: int) -> Iterator[tuple[int, Encoded]]:
        others = np.flatnonzero(self._labels == label)
        at = int(np.searchsorted(others, index))
        for other in (*others[at + 1 :].tolist(), *others[:at].tolist()):
            yield other, self._encoded([other])[0]
