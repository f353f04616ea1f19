"""What lies in a folder with one sub-folder of image files per class."""

import contextlib
import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from biggan_jax.data.files import shown
from biggan_jax.errors import UserError, counts

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
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")  # of the kernel, with links to the whole disk
VISITS = 8  # of one folder by the links in a class: more of them lead round and round
# Formats that Pillow registers and that are no picture, or that it hands to other programs.
_NO_PICTURES = ("BUFR", "GRIB", "HDF5", "WMF", "EPS", "PDF", "MPEG", "IPTC")
ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"))
LABELS = "dataset.json"  # of the tools of StyleGAN, whose sub-folders are no classes


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


def natural_key(name: str) -> tuple:
    """Sorts names as a person counts: 'class 9' before 'class 10', and 2 before 10.

    Args:
      name: any text.

    Returns:
      A key that orders all names, in the same way in every locale: digits (of any script) by the
      number that they write, everything else by code points, names that differ in leading zeros
      alone by their text.
    """
    # Texts stand at even places and numbers at odd ones, so that like is compared with like.
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


# A value of `data.class_order` -> the key that sorts class names.
ORDERS = {"natural": natural_key, "text": str}


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
      folder: the folder.
      images: paths of the images relative to the folder, sorted, for each class in its order.
      empty: class folders without an image.
      loose: images that lie directly in the folder.
      junk: folders and files of systems and programs by name -> files in them, or of that name.
      hidden: names of folders that start with a dot and were not looked into.
      others: suffix -> files that are no picture.
    """

    folder: Path
    images: dict[str, list[str]]
    empty: tuple[str, ...]
    loose: int
    junk: dict[str, int]
    hidden: tuple[str, ...]
    others: dict[str, int]

    @property
    def ignored(self) -> int:
        """Files that were seen and are no images of a class."""
        return self.loose + sum(self.junk.values()) + sum(self.others.values())

    def left_out(self) -> tuple[str, ...]:
        """What these files are, and the hidden folders, one text for each kind."""
        texts = []
        for name, number in sorted(self.junk.items()):
            inside = name.casefold() in JUNK_FOLDERS
            texts.append(f"{number:,} {'in ' if inside else ''}{shown(name)}")
        if self.others:
            texts.append(f"no pictures: {listed_suffixes(self.others)}")
        if self.loose:
            texts.append(counts(self.loose, "image", "images") + " outside the class folders")
        if self.hidden:
            texts.append(f"hidden folders not looked into: {_some_names(self.hidden)}")
        return tuple(texts)


def list_folder(folder: Path, class_order: str) -> Listing:
    """Lists the images of every class.

    Args:
      folder: holds the class folders.
      class_order: `natural` or `text`.

    Returns:
      The listing, with at least one class.

    Raises:
      UserError: the folder is missing, unreadable, or has no class folder with an image.
    """
    if not folder.exists():
        raise UserError(f"no folder {folder}; correct the path")
    if not folder.is_dir():
        if folder.suffix.lower() in ARCHIVES:
            raise UserError(
                f"{folder} is an archive; unpack it, and write folder:PATH with the folder that "
                "holds the class folders"
            )
        raise UserError(f"{folder} is a file; write folder:PATH with the folder that holds it")
    walk = _Walk(folder)
    images, empty, loose = {}, [], 0
    for entry in _entries(folder):
        if not _is_folder(entry):
            loose += walk.is_image(entry.name)
        elif not walk.is_left_out(entry):
            walk.visits.clear()
            names = sorted(walk.below(entry.name, frozenset()))
            if names:
                images[entry.name] = names
            else:
                empty.append(entry.name)
    listing = Listing(
        folder,
        {name: images[name] for name in sorted(images, key=ORDERS[class_order])},
        tuple(sorted(empty, key=ORDERS[class_order])),
        loose,
        dict(walk.junk),
        tuple(sorted(walk.hidden)),
        dict(walk.others),
    )
    if not images:
        raise UserError(_nothing(listing))
    return listing


class _Walk:
    """Collects what is left out on the way through a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.junk: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.hidden: set[str] = set()
        self.visits: Counter[str] = Counter()  # of folders, in the class at hand

    def below(self, relative: str, above: frozenset[str]) -> Iterator[str]:
        """Relative paths of all images in a class folder; links are followed, loops are not."""
        real = os.path.realpath(self.folder / relative)
        if real in above or real in SYSTEM_FOLDERS:
            return
        self.visits[real] += 1
        if self.visits[real] > VISITS:
            raise UserError(
                f"{self.folder / relative} is reached by more than {VISITS} ways, by links to "
                "folders that lead round and round; remove such links"
            )
        for entry in _entries(self.folder / relative):
            name = f"{relative}/{entry.name}"
            if not _is_folder(entry):
                if self.is_image(entry.name):
                    yield name
            elif not self.is_left_out(entry):
                yield from self.below(name, above | {real})

    def is_left_out(self, entry: os.DirEntry) -> bool:
        """Whether a folder is none of a person; counts what is in it."""
        if entry.name.casefold() in JUNK_FOLDERS:
            # Unreadable ones, such as lost+found, count nothing.
            self.junk[entry.name] += sum(len(files) for _, _, files in os.walk(entry.path))
            return True
        if entry.name.startswith("."):
            self.hidden.add(entry.name)
            return True
        return False

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


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: a bad record, if it is called like a picture
        return False


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise UserError(f"cannot read the folder {folder}; change its permissions") from error


def listed_suffixes(others: dict[str, int], limit: int = 8) -> str:
    """'.txt 3, .xcf 1', the most frequent first."""
    most = Counter(others).most_common()
    text = ", ".join(f"{shown(suffix) or 'no suffix'} {n:,}" for suffix, n in most[:limit])
    return text + (f" and {len(most) - limit} more" if len(most) > limit else "")


def _nothing(listing: Listing) -> str:
    folder = listing.folder
    if listing.loose:
        what = counts(listing.loose, "image lies", "images lie") + " directly in it"
        if (folder / LABELS).is_file():
            what += f", and {LABELS}, which may hold their labels, is not read"
    elif listing.others:
        what = f"its files are no pictures that are read: {listed_suffixes(listing.others)}"
        if {".heic", ".heif"} & {*listing.others}:
            what += " (for .heic `pip install pillow-heif`)"
    elif listing.junk:
        what = f"it holds {_some_names(listing.junk)} alone"
    else:
        what = "it holds no images"
    return (
        f"{folder} has no sub-folder with images ({what}); class = sub-folder: put the images "
        f"of each class into {folder / 'CLASS'}"
    )


def _some_names(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in sorted(names)[:5])
