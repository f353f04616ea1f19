"""What lies beside the pictures of a person: files of systems and programs, and other files."""

import contextlib
import functools
import os
from collections import Counter

# What systems and programs put beside the files of a person: they hold thumbnails, deleted files
# or nothing. Names that start with a dot are left out as well.
JUNK_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("@__thumb", "@recently-snapshot"),
        *("lost+found", "found.000", "__macosx", "system volume information", "__pycache__"),
        *("network trash folder", "temporary items", ".ipynb_checkpoints"),
    )
)
JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r"))
# Formats that Pillow registers and that are no picture, or that it hands to other programs.
_NO_PICTURES = ("BUFR", "GRIB", "HDF5", "WMF", "EPS", "PDF", "MPEG", "IPTC")


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of the pictures that this Pillow decodes, in lower case with their dot."""
    from PIL import Image

    with contextlib.suppress(ImportError):
        # Pillow itself decodes no HEIC; this adds it where it is installed.
        import pillow_heif

        pillow_heif.register_heif_opener()
    registered = Image.registered_extensions()  # loads all formats
    opened = {*Image.OPEN, "MPO"} - {*_NO_PICTURES}  # an MPO is opened as a JPEG
    return frozenset(suffix for suffix, kind in registered.items() if kind in opened)


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file's name is that of a picture which this Pillow decodes."""
    name = os.path.basename(path)
    # A leading dot marks copies which macOS writes beside each file, under the same extension.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes()


class LeftOut:
    """Counts what is no picture of a person, on the way through a folder or an archive.

    Attributes:
      junk: folders and files of systems and programs by name -> files in them, or of that name.
      hidden: names of folders that start with a dot and were not looked into.
      others: suffix -> files that are no picture.
    """

    def __init__(self):
        self.junk: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.hidden: set[str] = set()

    def is_image(self, name: str) -> bool:
        """Whether a file is a picture; counts it where it is none."""
        if is_picture(name):
            return True
        if name.casefold() in JUNK_FILES:
            self.junk[name] += 1
        elif name.startswith("._"):
            self.junk["._*"] += 1
        elif name.startswith("."):
            self.junk[".*"] += 1
        else:
            self.others[os.path.splitext(name)[1].lower()] += 1
        return False
