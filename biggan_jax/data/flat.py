"""Image files of a folder without classes."""

from biggan_jax.data.folder import FolderSource, split_folder
from biggan_jax.data.listing import list_images


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> FolderSource:
    """Opens all images under the folder of `images:PATH` or `images:PATH:SPLIT`, as one class.

    See `FolderSource` for what is left out.
    """
    folder = split_folder(argument)
    return FolderSource(
        spec,
        folder,
        resolution=resolution,
        channels=channels,
        on_bad_record=on_bad_record,
        listing=list_images(folder),
    )
