"""Sources of images in archives, read where they lie."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data import identity, stored
from biggan_jax.data.decoding import Encoded
from biggan_jax.data.files import shown
from biggan_jax.data.images import BadImage, Stored
from biggan_jax.data.index_cache import Index, parted
from biggan_jax.data.labelled import LabelledSource
from biggan_jax.data.listing import Listing
from biggan_jax.data.member_listing import list_members
from biggan_jax.errors import UserError


class ArchiveSource(LabelledSource):
    """Images in one archive or several.

    Args:
      spec: the text that opened this source.
      files: the archives.
      names: of the images, in the order of the examples.
      content: reads the image at a position.
      sizes: of the images in bytes, int [n].
      labels: of the images, int [n].
      labelled_by_name: whether the names say the labels, which then take no part in the digest: an
        archive of a folder is the same data as the folder.
      listing: what lies in the archive, where its folders are classes.
      archive_of: number of the file that an image lies in, int [n]; all in the first if absent.
      **settings: those of `DecodingSource`.
    """

    def __init__(
        self,
        spec: str,
        files: stored.OpenFiles,
        names: Sequence[str],
        content: Callable[[int], Stored],
        sizes: np.ndarray,
        labels: np.ndarray,
        *,
        labelled_by_name: bool = False,
        listing: Listing | None = None,
        archive_of: np.ndarray | None = None,
        **settings,
    ):
        super().__init__(spec, labels, **settings)
        self._files, self._names, self._content, self._sizes = files, names, content, sizes
        self._archive_of = archive_of
        self._extra = b"" if labelled_by_name else self._labels.astype("<i4").tobytes()
        if listing is not None:
            self.listing = listing
            self.ignored_files = listing.ignored
            self.empty_classes = listing.empty
            self.left_out = listing.left_out()

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        labels = self._labels[list(indices)].tolist()
        return [
            Encoded(self._name(i), self._content(i), label)
            for i, label in zip(indices, labels, strict=True)
        ]

    def _name(self, index: int) -> str:
        number = 0 if self._archive_of is None else int(self._archive_of[index])
        return shown(f"{self._files.paths[number]}/{self._names[index]}")

    def digest(self) -> str:
        """Hash of all names and sizes, of labels, and of the starts of up to 4,096 images.

        Those of the archives take no part, so that a copy of them has the same.
        """
        return self._identity.digest

    def stamp(self) -> str:
        """Hash of the digest and of the archives' sizes and times."""
        return self._identity.stamp

    @functools.cached_property
    def _identity(self) -> identity.Identity:
        return identity.identify(
            zip(self._names, self._sizes.tolist(), strict=True),
            len(self),
            self._start_of,
            self._pool.map,
            lambda: repr(self._files.sizes_and_times()).encode(),
            self._extra,
        )

    def _start_of(self, index: int) -> bytes:
        try:
            return self._content(index).read(identity.DIGEST_BYTES)
        except (OSError, BadImage):
            return b"unreadable"

    def copies(self, seconds: float) -> list[tuple[int, int]]:
        return identity.copies(self._identity.starts, self._whole, seconds)

    def _whole(self, index: int) -> bytes:
        try:
            return self._content(index).read()
        except BadImage as error:
            raise OSError(str(error)) from error


def of_class_folders(
    spec: str,
    path: Path,
    inside: str,
    index: Index,
    content: Callable[[stored.OpenFiles, int], Stored],
    class_order: str,
    **settings,
) -> ArchiveSource:
    """The images of an archive in which the folders are classes.

    Args:
      spec: the text that asked for it; its kind is that of the archive.
      path: of the archive.
      inside: path in it of the folder that holds the class folders; '' to find it.
      index: of the archive; what stands at `names` and `sizes` is used here.
      content: reads the member at a position of the index.
      class_order: `natural` or `text`.
      **settings: those of `DecodingSource`; without `class_names` those of the folders.

    Returns:
      The source.

    Raises:
      UserError: there is no class folder with an image.
    """
    kind = spec.partition(":")[0]
    listing, at = list_members(path, kind, parted(index["names"]), class_order, inside)
    files = stored.OpenFiles([path])
    counted = [len(names) for names in listing.images.values()]
    return ArchiveSource(
        spec,
        files,
        [name for names in listing.images.values() for name in names],
        lambda i: content(files, int(at[i])),
        index["sizes"][at],
        np.repeat(np.arange(len(counted)), counted),
        labelled_by_name=True,
        listing=listing,
        **{"class_names": list(listing.images)} | settings,
    )


def split_file(argument: str, kind: str) -> tuple[Path, str]:
    """The archive, and the folder in it, that FILE or FILE:FOLDER means.

    Args:
      argument: an existing path, which may hold a colon; or FILE:FOLDER.
      kind: of the source, for messages.

    Returns:
      (path of the file, path in it or '').

    Raises:
      UserError: there is no such file.
    """
    if "://" in argument:
        raise UserError(f"{argument} is no local file; copy it here")
    path, inside = Path(os.path.expanduser(argument)), ""
    head, _, tail = argument.rpartition(":")
    if head and not os.path.lexists(path) and os.path.lexists(os.path.expanduser(head)):
        path, inside = Path(os.path.expanduser(head)), tail
    if path.is_dir():
        raise UserError(f"{path} is a folder; write folder:{path}, or {kind}:FILE")
    if not path.exists():
        raise UserError(f"no file {path}; correct the path")
    if not stored.is_file(path):
        raise UserError(f"{path} is no regular file; name a file that can be read at any place")
    if not os.access(path, os.R_OK):
        raise UserError(f"cannot read {path}; change its permissions")
    return path, inside
