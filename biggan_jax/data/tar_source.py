"""A tar of class folders, or of one tar a class, read without unpacking."""

from pathlib import Path

from biggan_jax.data import tar_index
from biggan_jax.data.archive import ArchiveSource, of_class_folders, split_file
from biggan_jax.data.index_cache import Index, indexed
from biggan_jax.data.stored import Extent, OpenFiles


def open_spec(
    spec: str,
    argument: str,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str,
    class_order: str = "natural",
) -> ArchiveSource:
    """Opens the images that `tar:FILE` names, or those in a folder of it with `tar:FILE:FOLDER`.

    A folder is a class, and so is a tar in the tar. UserError where the file is missing, no tar,
    compressed, truncated, or has no class with an image.
    """
    path, inside = split_file(argument, "tar")
    settings = {"resolution": resolution, "channels": channels, "on_bad_record": on_bad_record}
    return opened(spec, path, inside, read_index(path), class_order, **settings)


def read_index(path: Path) -> Index:
    """The members of a tar, from the cache where it has not changed; see `tar_index.scan`."""
    return indexed("tar", [path], lambda: tar_index.scan(path))


def opened(
    spec: str, path: Path, inside: str, index: Index, class_order: str, **settings
) -> ArchiveSource:
    """The images of an indexed tar; arguments as of `archive.of_class_folders`."""
    offsets, sizes = index["offsets"], index["sizes"]

    def content(files: OpenFiles, at: int) -> Extent:
        return Extent(files, 0, int(offsets[at]), int(sizes[at]))

    return of_class_folders(spec, path, inside, index, content, class_order, **settings)
