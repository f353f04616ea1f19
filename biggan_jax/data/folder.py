"""A folder with one sub-folder of image files per class."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data import identity
from biggan_jax.data.decoding import DecodingSource, Encoded
from biggan_jax.data.files import read_regular, shown
from biggan_jax.data.listing import Listing, list_folder
from biggan_jax.data.source import count_labels
from biggan_jax.errors import UserError, did_you_mean, some


def open_spec(
    spec: str,
    argument: str,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str,
    class_order: str = "natural",
) -> "FolderSource":
    """Opens the folder that `folder:PATH` names, or the one that `folder:PATH:SPLIT` has in it.

    See `FolderSource`.
    """
    return FolderSource(
        spec,
        split_folder(argument),
        resolution=resolution,
        channels=channels,
        on_bad_record=on_bad_record,
        class_order=class_order,
    )


def split_folder(argument: str) -> Path:
    """The folder that PATH or PATH:SPLIT means.

    Args:
      argument: an existing path, which may hold a colon; or PATH:SPLIT for the sub-folder SPLIT.

    Returns:
      The folder, or PATH where nothing of either form exists.

    Raises:
      UserError: the folder PATH exists and has no sub-folder SPLIT, or is an address.
    """
    if "://" in argument:
        raise UserError(f"{argument} is no local folder; copy its image files to one")
    whole = Path(os.path.expanduser(argument))
    head, _, split = argument.rpartition(":")
    if not head or not split or os.path.lexists(whole):
        return whole
    folder = Path(os.path.expanduser(head))
    if not folder.is_dir():
        return whole
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    found = [name for name in names if name == split] or [
        name for name in names if name.casefold() == split.casefold()
    ]
    if not found:
        there = some([shown(name) for name in names if not name.startswith(".")], 8) or "none"
        raise UserError(
            f"{folder} has no sub-folder {split!r}{did_you_mean(split, names)}; its sub-folders: "
            f"{there}; write folder:PATH:SPLIT with one of them, or folder:{head}"
        )
    return folder / found[0]


class FolderSource(DecodingSource):
    """Images under `folder/CLASS/`, at any depth below it.

    Hidden files and folders, those of systems and programs (`left_out.JUNK_FOLDERS`), files without
    an image suffix and files outside the class folders are ignored and counted. A sub-folder
    without any image is no class: it takes no label, and `empty_classes` names it.

    Args:
      spec: the text that opened this source.
      folder: the folder that holds the class folders.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      on_bad_record: `error` or `skip`.
      class_order: of the class folders' names: `natural` (2 before 10) or `text` (by code points).
      listing: of the folder, where something else than its sub-folders says the classes.
      class_names: one a class; the names in the listing if absent.

    Attributes:
      listing: what lies in the folder.

    Raises:
      UserError: the folder is missing, unreadable, or has no class folder with an image.
    """

    labels_are_cheap = True

    def __init__(
        self,
        spec: str,
        folder: Path,
        *,
        resolution: int,
        channels: int,
        on_bad_record: str,
        class_order: str = "natural",
        listing: Listing | None = None,
        class_names: Sequence[str] | None = None,
    ):
        self.listing = listing or list_folder(folder, class_order)
        images = self.listing.images
        super().__init__(
            spec,
            resolution=resolution,
            channels=channels,
            class_names=class_names or list(images),
            on_bad_record=on_bad_record,
        )
        self.ignored_files = self.listing.ignored
        self.empty_classes = self.listing.empty
        self.left_out = self.listing.left_out()
        # Paths stay strings relative to the folder: a million Path objects take half a gigabyte.
        self._files = [name for names in images.values() for name in names]
        self._ends = np.cumsum([len(names) for names in images.values()])
        sizes = np.diff(self._ends, prepend=0)
        self._labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def __len__(self) -> int:
        return len(self._files)

    def path(self, index: int) -> Path:
        """The file of one example."""
        return self.listing.folder / self._files[index]

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        paths = [self.path(i) for i in indices]
        labels = self._labels[list(indices)].tolist()
        return [Encoded(shown(str(p)), p, y) for p, y in zip(paths, labels, strict=True)]

    def _others_of_class(self, index: int, label: int) -> Iterator[tuple[int, Encoded]]:
        end = int(self._ends[label])
        first = int(self._ends[label - 1]) if label else 0
        for other in (*range(index + 1, end), *range(first, index)):
            yield other, self._encoded([other])[0]

    def labels_of(self, indices: Sequence[int]) -> np.ndarray:
        return self._labels[self._check_indices(indices)]

    def histogram(self) -> np.ndarray:
        return count_labels(self._labels, self.num_classes, self.spec)

    def digest(self) -> str:
        """Hash of all relative paths and sizes, and of the starts of up to 4,096 files.

        Times take no part, so that a copy of the folder has the same.
        """
        return self._identity.digest

    def stamp(self) -> str:
        """Hash of the digest and of the times at which the files were last changed."""
        return self._identity.stamp

    def earlier_digest(self) -> str:
        """Hash of the relative paths and sizes alone, as older versions took it."""
        return self._identity.earlier

    @functools.cached_property
    def _identity(self) -> identity.Identity:
        """From one look at every file."""
        times = np.empty(len(self), "<i8")

        def files() -> Iterator[tuple[str, int]]:
            for i, name in enumerate(self._files):
                try:
                    found = os.stat(f"{self.listing.folder}/{name}")
                    size, times[i] = found.st_size, found.st_mtime_ns
                except OSError:  # such as a dangling link; reading treats it as a bad record
                    size, times[i] = -1, 0
                yield name, size

        return identity.identify(files(), len(self), self._start_of, self._pool.map, times.tobytes)

    def copies(self, seconds: float) -> list[tuple[int, int]]:
        """Pairs of files with the same contents, among those whose starts the digest has read."""
        return identity.copies(self._identity.starts, lambda i: read_regular(self.path(i)), seconds)

    def _start_of(self, index: int) -> bytes:
        try:
            return read_regular(self.path(index), identity.DIGEST_BYTES)
        except OSError:
            return b"unreadable"
