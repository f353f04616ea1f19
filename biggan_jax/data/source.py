"""What every kind of image source offers, whatever it reads from."""

from collections.abc import Sequence

import numpy as np

from biggan_jax.data.finding import Finding
from biggan_jax.data.wording import TRAIN, Wording
from biggan_jax.errors import UserError

LABELS_AT_ONCE = 1024  # examples that are read together where a source has no labels apart


class Source:
    """A finite, indexable set of labelled square images.

    Reading is thread-safe and has no order of its own: `Batches` decides which indices to read.

    Attributes:
      spec: the text that opened this source, as in `--config.data.source`.
      resolution: side of the square images in pixels.
      channels: 1 (grey) or 3 (RGB).
      class_names: one name per class; label i means `class_names[i]`.
      ignored_files: files that were seen and are no images of a class (folder sources).
      empty_classes: names of folders without images, which were left out (folder sources).
      histogram_is_cheap: False where `histogram` reads the whole data set.
      labels_are_cheap: False where `labels_of` reads the records.
      held_out: whether each example is kept out of training, bool [n]; None where all are in it.
      left_out: what the ignored files are, and folders that were not looked into, to be listed.
      num_lanes: of a source whose examples lie in lanes (`lanes.LaneOrder`), 0 of others.
      lane_of: the lane of each of its examples, int [n].
      max_pixels: of the largest image that is decoded; Pillow's own limit if absent.
      remarks: what about it may surprise, that is not seen from outside.
      wording: how the command at hand takes the settings that messages advise.
    """

    held_out: np.ndarray | None = None
    num_lanes: int = 0
    lane_of: np.ndarray | None = None
    left_out: tuple[str, ...] = ()
    max_pixels: int | None = None
    remarks: tuple[Finding, ...] = ()
    wording: Wording = TRAIN

    ignored_files: int = 0
    empty_classes: tuple[str, ...] = ()
    histogram_is_cheap: bool = True
    labels_are_cheap: bool = False

    def __init__(self, spec: str, resolution: int, channels: int, class_names: Sequence[str]):
        self.spec = spec
        self.resolution = resolution
        self.channels = channels
        self.class_names = tuple(class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are in [0, num_classes)."""
        return len(self.class_names)

    @property
    def bad_records(self) -> int:
        """Number of distinct unreadable records which were found and replaced so far."""
        return 0

    def __len__(self) -> int:
        """Number of examples."""
        raise NotImplementedError

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Reads the examples at some indices, in the order given.

        Args:
          indices: integers in [0, len(self)); repeats are allowed.

        Returns:
          images uint8 [n, resolution, resolution, channels], labels int32 [n].

        Raises:
          UserError: a record is unreadable and may not be replaced.
        """
        raise NotImplementedError

    def expect(self, first: np.ndarray, others: np.ndarray, *, tell: bool) -> None:
        """Says which examples a stream will read, for sources that must bring them near first.

        Args:
          first: indices of the examples that are read first, in the order of their use.
          others: of all that may be read.
          tell: whether this process says on stderr how far it is.

        Raises:
          UserError: some cannot be had.
        """

    def stored(self, places: Sequence[int]) -> np.ndarray:
        """The examples at some places of the order in which they lie, where a part is read whole.

        Args:
          places: in [0, len(self)); neighbours lie beside each other.

        Returns:
          Indices of examples, int64 [n]; of sources without lanes the places themselves.
        """
        return np.asarray(places, np.int64)

    def read_good(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads the examples at some indices and replaces none.

        Args:
          indices: integers in [0, len(self)).

        Returns:
          images uint8 [n, resolution, resolution, channels], labels int32 [n], whether each is
          readable bool [n]; the pixels of those that are not mean nothing.

        Raises:
          UserError: a record is unreadable and may not be left out.
        """
        images, labels = self.read(indices)
        return images, labels, np.ones(len(labels), bool)

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        """The labels of the examples at some indices, int32 [n]; unreadable ones have theirs too.

        Raises:
          UserError: a record is damaged.
        """
        parts = np.array_split(np.asarray(indices), max(1, len(indices) // LABELS_AT_ONCE))
        return np.concatenate([self.read(part)[1] for part in parts])

    def histogram(self) -> np.ndarray:
        """Counts the examples of each class.

        Returns:
          int64 [num_classes].

        Raises:
          UserError: a label lies outside [0, num_classes).
        """
        raise NotImplementedError

    def digest(self) -> str:
        """Identifies the contents without decoding them.

        Returns:
          64 hexadecimal digits; equal contents give equal digits on any machine.
        """
        raise NotImplementedError

    def stamp(self) -> str:
        """Identifies the files on this machine: what was measured under another stamp is stale.

        Returns:
          64 hexadecimal digits; those of `digest` where nothing can change beneath it.
        """
        return self.digest()

    def earlier_digest(self) -> str:
        """The digest that older versions took, by which they know the data of their workdirs."""
        return self.digest()

    def bad_names(self, limit: int) -> list[str]:
        """Names of the first unreadable records that were found so far, `limit` at most."""
        return []

    def _check_indices(self, indices: Sequence[int]) -> np.ndarray:
        """Indices as int64 [n]; a negative one would silently read from the end."""
        index_n = np.asarray(indices, dtype=np.int64)
        if index_n.size and (index_n.min() < 0 or index_n.max() >= len(self)):
            raise IndexError(f"indices must be in [0, {len(self)}) for {self.spec}")
        return index_n


def count_labels(labels: np.ndarray, num_classes: int, spec: str) -> np.ndarray:
    """Counts labels per class and refuses labels that are no class.

    Args:
      labels: integers [n].
      num_classes: number of classes.
      spec: the source's spec, for the message.

    Returns:
      int64 [num_classes].

    Raises:
      UserError: a label lies outside [0, num_classes).
    """
    labels = np.asarray(labels)
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise UserError(
            f"{spec}: labels range from {labels.min()} to {labels.max()}, but its {num_classes} "
            f"classes allow 0 to {num_classes - 1}; choose another split or correct the labels"
        )
    return np.bincount(labels, minlength=num_classes).astype(np.int64)


def one_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0].strip() if text else type(error).__name__
