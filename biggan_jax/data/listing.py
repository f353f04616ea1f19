"""What lies in a folder with one sub-folder of image files per class."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from biggan_jax.data.files import shown
from biggan_jax.data.left_out import JUNK_FOLDERS, LeftOut
from biggan_jax.errors import UserError, counts

SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")  # of the kernel, with links to the whole disk
VISITS = 8  # of one folder by the links in a class: more of them lead round and round
ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"))
# Files that hold many pictures -> the spec that reads them.
_PACKED = {
    ".zip": "zip:FILE",
    ".tar": "tar:FILE or webdataset:PATH",
    ".parquet": "parquet:PATH",
}
LABELS = "dataset.json"  # of the tools of StyleGAN, whose sub-folders are no classes


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
      kind: of the source that reads it: `folder`, or an archive's, whose file `folder` is.
      inside: path in the archive from which those of the images start, '' for all of it.
    """

    folder: Path
    images: dict[str, list[str]]
    empty: tuple[str, ...]
    loose: int
    junk: dict[str, int]
    hidden: tuple[str, ...]
    others: dict[str, int]
    kind: str = "folder"
    inside: str = ""

    def spec(self, at: str = "", split: str = "") -> str:
        """What opens a folder of it.

        Args:
          at: relative path of that folder.
          split: the folder in there to open.

        Returns:
          KIND:ARGUMENT.
        """
        if self.kind == "folder":
            return f"folder:{self.folder / at}" + (f":{split}" if split else "")
        inner = "/".join(part for part in (self.inside, at, split) if part)
        return f"{self.kind}:{self.folder}" + (f":{inner}" if inner else "")

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
    check(folder)
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
        raise UserError(nothing(listing))
    return listing


def list_images(folder: Path) -> Listing:
    """Lists all images under a folder, at any depth, as those of one class.

    Args:
      folder: holds them.

    Returns:
      The listing, with one class, `images`.

    Raises:
      UserError: the folder is missing, unreadable, or holds no image.
    """
    check(folder)
    walk = _Walk(folder)
    names = sorted(name.removeprefix("./") for name in walk.below(".", frozenset()))
    hidden, junk, others = tuple(sorted(walk.hidden)), dict(walk.junk), dict(walk.others)
    listing = Listing(folder, {"images": names}, (), 0, junk, hidden, others)
    if not names:
        raise UserError(f"{folder}: {_lacking(listing)}; correct the path")
    return listing


def check(folder: Path) -> None:
    """Raises UserError, which says what to write, unless a folder is one."""
    if not folder.exists():
        raise UserError(f"no folder {folder}; correct the path")
    if not folder.is_dir():
        if folder.suffix.lower() in (".zip", ".tar"):
            kind = folder.suffix.lower()[1:]
            raise UserError(
                f"{folder} is an archive; write {kind}:{folder}, which reads it as it is"
            )
        if folder.suffix.lower() in ARCHIVES:
            raise UserError(
                f"{folder} is an archive; unpack it, and write folder:PATH with the folder that "
                "holds the class folders"
            )
        raise UserError(f"{folder} is a file; write folder:PATH with the folder that holds it")


class _Walk(LeftOut):
    """Collects what is left out on the way through a folder."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
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


def nothing(listing: Listing) -> str:
    """Says that a folder holds no class folder with an image, and what it holds."""
    folder = listing.folder
    if listing.loose:
        what = counts(listing.loose, "image lies", "images lie") + " directly in it"
        if listing.kind == "folder" and (folder / LABELS).is_file():
            what += f", and {LABELS}, which may hold their labels, is not read"
    else:
        what = _lacking(listing)
    if listing.kind != "folder":
        inside = f"{listing.inside}/" if listing.inside else ""
        shards = f", or write webdataset:{folder} for samples" if ".cls" in listing.others else ""
        return (
            f"{folder} has no folder with images in it ({what}); class = folder: make it again "
            f"with the images of each class in {inside}CLASS/{shards}"
        )
    without = f", or write images:{folder} for one class" if listing.loose else ""
    return (
        f"{folder} has no sub-folder with images ({what}); class = sub-folder: put the images "
        f"of each class into {folder / 'CLASS'}{without}"
    )


def _lacking(listing: Listing) -> str:
    """What is in a folder without an image."""
    if listing.others:
        what = f"its files are no pictures that are read: {listed_suffixes(listing.others)}"
        if {".heic", ".heif"} & {*listing.others}:
            what += " (for .heic `pip install pillow-heif`)"
        for suffix in _PACKED.keys() & listing.others.keys():
            what += f" ({suffix} is read by {_PACKED[suffix]})"
        return what
    if listing.junk:
        return f"it holds {_some_names(listing.junk)} alone"
    return "it holds no images"


def _some_names(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in sorted(names)[:5])
