"""ImageNet as people have it: the official tars, and the folder of Kaggle's competition."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data import tar_source
from biggan_jax.data.archive import ArchiveSource
from biggan_jax.data.decoding import DecodingSource
from biggan_jax.data.files import read_regular, shown
from biggan_jax.data.folder import FolderSource
from biggan_jax.data.index_cache import Index, parted
from biggan_jax.data.left_out import is_picture
from biggan_jax.data.listing import Listing
from biggan_jax.data.member_listing import list_members
from biggan_jax.data.stored import Extent, OpenFiles
from biggan_jax.errors import UserError, did_you_mean, some

SPLITS = ("train", "val")
WORDS = ("LOC_synset_mapping.txt", "words.txt", "synset_words.txt")
SOLUTION = "LOC_val_solution.csv"
_IN_KAGGLE = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_WNID = re.compile(r"n\d{8}")
_WORDS_LINE = re.compile(r"(n\d{8})[ \t]+([^,\t]+)")
_LEVELS = 5  # of folders above the images in which the files beside them are looked for


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> DecodingSource:
    """Opens the images that `imagenet:PATH[:SPLIT]` names; classes are in the order of their ids.

    PATH is ILSVRC2012_img_train.tar (a tar of one tar a class), ILSVRC2012_img_val.tar with
    LOC_val_solution.csv beside it, a folder with these tars, or Kaggle's folder, whose `train` has
    a folder for each class and whose `val` is flat, its classes in that file. Classes are called by
    the first word of a `LOC_synset_mapping.txt`, `words.txt` or `synset_words.txt` beside the
    images or above them, where there is one, and by their WordNet ids otherwise.

    UserError where the images are missing, or a folder is no class of ImageNet.
    """
    path, split = _parted(argument)
    settings = {"resolution": resolution, "channels": channels, "on_bad_record": on_bad_record}
    place = _place(path, split)
    if place.is_dir():
        return _of_folder(spec, place, settings)
    return _of_tar(spec, place, settings)


def _parted(argument: str) -> tuple[Path, str]:
    """(path, split or '')."""
    if "://" in argument:
        raise UserError(f"{argument} is no local path; copy it here")
    head, _, tail = argument.rpartition(":")
    for text, split in ((argument, ""), (head, tail)):
        path = Path(os.path.expanduser(text))
        if text and path.exists():
            return path, split
    raise UserError(f"no file or folder {os.path.expanduser(argument)}; correct the path")


def _place(path: Path, split: str) -> Path:
    """The tar, or the folder, that holds the images of a split."""
    if not path.is_dir():
        if split:
            raise UserError(f"{path} is one split, and no split {split!r} is in it; leave it out")
        return path
    wanted = split or "train"
    roots = [path / inside for inside in _IN_KAGGLE] if wanted in SPLITS else []
    places = [place for root in roots if (place := root / wanted).is_dir()]
    tar = path / f"ILSVRC2012_img_{wanted}.tar"
    places += [tar] if tar.is_file() else []
    if places:
        return places[0]
    if not split and any(_WNID.fullmatch(entry.name) for entry in os.scandir(path)):
        return path
    if not split and any(is_picture(entry.name) for entry in os.scandir(path)):
        return path  # Kaggle's flat val
    known = "train and val are read (test has no labels)"
    raise UserError(
        f"{path} has no split {wanted!r} of ImageNet{did_you_mean(wanted, SPLITS)}: {known}; name "
        f"the folder that holds ILSVRC/Data/CLS-LOC/{wanted}, or ILSVRC2012_img_{wanted}.tar"
    )


def _of_folder(spec: str, folder: Path, settings: dict) -> FolderSource:
    flat = [entry.name for entry in os.scandir(folder) if is_picture(entry.name)]
    if not flat:
        source = FolderSource(spec, folder, class_order="text", **settings)
        check_classes(folder, [*source.class_names, *source.empty_classes])
        source.class_names = class_names(source.class_names, folder)
        return source
    wnids = _solution(folder, [os.path.splitext(name)[0] for name in flat])
    images: dict[str, list[str]] = {wnid: [] for wnid in sorted({*wnids.values()})}
    for name in sorted(flat):
        images[wnids[os.path.splitext(name)[0]]].append(name)
    listing = Listing(folder, images, (), 0, {}, (), {})
    names = class_names([*images], folder)
    return FolderSource(spec, folder, listing=listing, class_names=names, **settings)


def _of_tar(spec: str, path: Path, settings: dict) -> ArchiveSource:
    index = tar_source.read_index(path)
    names = parted(index["names"])
    if not any("/" in name and is_picture(name) for name in names) and any(map(is_picture, names)):
        return _of_flat_tar(spec, path, index, names, settings)
    listing, _ = list_members(path, "imagenet", names, "text")
    check_classes(path, [*listing.images, *listing.empty])
    named = class_names([*listing.images], path)
    return tar_source.opened(spec, path, "", index, "text", class_names=named, **settings)


def _of_flat_tar(
    spec: str, path: Path, index: Index, names: Sequence[str], settings: dict
) -> ArchiveSource:
    """The official tar of the validation images."""
    at = {name: i for i, name in enumerate(names) if is_picture(name)}
    wnids = _solution(path, [os.path.splitext(name)[0] for name in at])
    classes = sorted({*wnids.values()})
    number = {wnid: i for i, wnid in enumerate(classes)}
    of_name = {name: number[wnids[os.path.splitext(name)[0]]] for name in at}
    ordered = sorted(at, key=lambda name: (of_name[name], name))  # as the folder of them
    files = OpenFiles([path])

    def content(i: int) -> Extent:
        member = at[ordered[i]]
        return Extent(files, 0, int(index["offsets"][member]), int(index["sizes"][member]))

    return ArchiveSource(
        spec,
        files,
        ordered,
        content,
        index["sizes"][[at[name] for name in ordered]],
        np.array([of_name[name] for name in ordered]),
        class_names=class_names(classes, path),
        **settings,
    )


def check_classes(place: Path, names: Iterable[str]) -> None:
    """Refuses folders that are no class of ImageNet.

    Args:
      place: the folder or tar that they are in.
      names: of the folders.

    Raises:
      UserError: one is no WordNet id.
    """
    odd = [shown(name) for name in names if not _WNID.fullmatch(name)]
    if odd:
        what = (
            "a folder that is no class"
            if len(odd) == 1
            else f"{len(odd)} folders that are no classes"
        )
        kind = "folder" if place.is_dir() else "tar"
        raise UserError(
            f"{place} has {what} of ImageNet: {some(odd)} (classes are called as n01440764); take "
            f"it out, or write {kind}:{place} where folders of any name are classes"
        )


def class_names(wnids: Sequence[str], place: Path) -> tuple[str, ...]:
    """What classes are called by a list of words beside their images.

    Args:
      wnids: WordNet ids of the classes.
      place: the tar or folder of the images; files beside it and above it are looked at.

    Returns:
      The first word of each, with the id behind it where several have the same word ('crane'); the
      ids where no list has them.
    """
    words: dict[str, str] = {}
    path = _beside(place, WORDS)
    if path is not None:
        text = read_regular(path).decode("utf-8", "replace")
        found = (_WORDS_LINE.match(line) for line in text.splitlines())
        words = {match[1]: match[2].strip() for match in found if match}
    named = [words.get(wnid, wnid) for wnid in wnids]
    often = Counter(named)
    return tuple(
        name if often[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(named, wnids, strict=True)
    )


def _solution(place: Path, ids: Sequence[str]) -> dict[str, str]:
    """The WordNet id of each validation image, from Kaggle's table beside them."""
    path = _beside(place, (SOLUTION,))
    if path is None:
        raise UserError(
            f"{place} holds {len(ids):,} images without folders, and {SOLUTION}, which has their "
            "classes, lies nowhere beside or above it; put it there"
        )
    rows = csv.reader(read_regular(path).decode("utf-8", "replace").splitlines())
    found = {row[0]: row[1].split(" ")[0] for row in rows if len(row) >= 2 and row[0] != "ImageId"}
    odd = sorted({wnid for wnid in found.values() if not _WNID.fullmatch(wnid)})
    if odd or not found:
        what = f"names {some(map(shown, odd))}, no class of ImageNet" if odd else "is empty"
        raise UserError(f"{path} {what}; take it from a fresh download")
    for these, those, words in (
        (ids, found, f"images of {place} have no class in {path}"),
        (found, set(ids), f"images of {path} are not in {place}"),
    ):
        missing = sorted(name for name in these if name not in those)
        if missing:
            named = some(map(shown, missing))
            raise UserError(f"{len(missing):,} of the {words} ({named}); complete it")
    return found


def _beside(place: Path, names: Sequence[str]) -> Path | None:
    """The first of some files in the folder of the images or above it."""
    above = [place.absolute(), *place.absolute().parents][: _LEVELS + 1]
    for folder in above if place.is_dir() else above[1:]:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None
