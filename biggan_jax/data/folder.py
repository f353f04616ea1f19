"""A folder with one sub-folder of image files per class."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data.decoding import DecodingSource, Encoded
from biggan_jax.data.source import count_labels
from biggan_jax.errors import UserError

EXTENSIONS = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> "FolderSource":
    """Opens the folder that `folder:PATH` names; see `FolderSource`."""
    return FolderSource(
        spec,
        Path(argument).expanduser(),
        resolution=resolution,
        channels=channels,
        on_bad_record=on_bad_record,
    )


class FolderSource(DecodingSource):
    """Images under `folder/CLASS/`, at any depth below it; classes are sorted by name.

    Hidden files and folders, files without an image extension and files outside the class folders
    are ignored and counted. A sub-folder without any image is no class: it takes no label, and
    `empty_classes` names it.

    Args:
      spec: the text that opened this source.
      folder: the folder that holds the class folders.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      on_bad_record: `error` or `skip`.

    Raises:
      UserError: the folder is missing, unreadable, or has no class folder with an image.
    """

    def __init__(
        self, spec: str, folder: Path, *, resolution: int, channels: int, on_bad_record: str
    ):
        images, self.ignored_files, self.empty_classes = _list_images(folder)
        super().__init__(
            spec,
            resolution=resolution,
            channels=channels,
            class_names=list(images),
            on_bad_record=on_bad_record,
        )
        self._folder = folder
        # Paths stay strings relative to the folder: a million Path objects take half a gigabyte.
        self._files = [name for names in images.values() for name in names]
        sizes = [len(names) for names in images.values()]
        self._labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def __len__(self) -> int:
        return len(self._files)

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        paths = [self._folder / self._files[i] for i in indices]
        labels = self._labels[list(indices)].tolist()
        return [Encoded(str(p), p, label) for p, label in zip(paths, labels, strict=True)]

    def histogram(self) -> np.ndarray:
        return count_labels(self._labels, self.num_classes, self.spec)

    def digest(self) -> str:
        """Hash of the relative paths and sizes of all images."""
        digest = hashlib.sha256()
        for name in self._files:
            try:
                size = os.stat(self._folder / name).st_size
            except FileNotFoundError:  # a dangling link; reading treats it as a bad record
                size = -1
            digest.update(os.fsencode(f"{name}\0{size}\n"))
        return digest.hexdigest()


def _list_images(folder: Path) -> tuple[dict[str, list[str]], int, tuple[str, ...]]:
    """Sorted relative paths by class, the number of ignored files, the classes without images."""
    if not folder.exists():
        raise UserError(f"no folder {folder}; correct the path")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; write folder:PATH with the folder that holds it")
    images: dict[str, list[str]] = {}
    empty = []
    ignored = loose = 0
    for entry in _entries(folder):
        if not entry.is_dir():
            loose += _is_image(entry.name)
            ignored += 1
        elif not entry.name.startswith("."):
            files = list(_walk(folder, entry.name, frozenset()))
            names = sorted(name for name in files if _is_image(os.path.basename(name)))
            ignored += len(files) - len(names)
            if names:
                images[entry.name] = names
            else:
                empty.append(entry.name)
    if not images:
        lies = f"{loose} images lie directly in it" if loose else "it holds no images"
        raise UserError(
            f"{folder} has no sub-folder with images ({lies}); class = sub-folder: put the images "
            f"of each class into {folder / 'CLASS'}"
        )
    return dict(sorted(images.items())), ignored, tuple(sorted(empty))


def _walk(folder: Path, relative: str, above: frozenset[str]) -> Iterator[str]:
    """Relative paths of all files below a class folder; links are followed, loops are not."""
    real = os.path.realpath(folder / relative)
    if real in above:
        return
    for entry in _entries(folder / relative):
        name = f"{relative}/{entry.name}"
        if not entry.is_dir():
            yield name
        elif not entry.name.startswith("."):
            yield from _walk(folder, name, above | {real})


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise UserError(f"cannot read the folder {folder}; change its permissions") from error


def _is_image(name: str) -> bool:
    # A leading dot marks copies which macOS writes beside each file, under the same extension.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
