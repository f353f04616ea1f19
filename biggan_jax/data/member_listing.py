"""Which members of an archive are the images of which class: folders in it are classes."""

import functools
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.data.files import shown
from biggan_jax.data.left_out import JUNK_FOLDERS, LeftOut, is_picture
from biggan_jax.data.listing import ORDERS, Listing, nothing
from biggan_jax.errors import UserError, did_you_mean, some


def plain_name(name: str) -> str:
    """A member's path from the root of its archive, without `.`, `..` and doubled slashes."""
    return posixpath.normpath(name.lstrip("/"))


def linked_name(name: str, to: str) -> str:
    """The `plain_name` of what a symbolic link stands for.

    Args:
      name: path of the link in its archive.
      to: what the link holds.
    """
    return plain_name(posixpath.join(posixpath.dirname(name), to))


def list_members(
    archive: Path, kind: str, names: Sequence[str], class_order: str, inside: str = ""
) -> tuple[Listing, np.ndarray]:
    """Lists the images of every class of an archive, as `listing.list_folder` those of a folder.

    Where all images lie in one folder around their class folders, as an archive of a folder has
    them, that is the folder which holds the class folders.

    Args:
      archive: the file, for messages.
      kind: of the source.
      names: paths of its members; those of folders end in a slash. Of two members of one name the
        later counts, as where an archive is unpacked.
      class_order: `natural` or `text`.
      inside: path in the archive of the folder that holds the class folders; '' to find it.

    Returns:
      (the listing, with at least one class, positions of its images among the names, int64 [n]).

    Raises:
      UserError: there is no such folder, or no class folder with an image.
    """
    inside = _chosen(archive, kind, names, inside.strip("/"))
    left_out, places, loose, empty = LeftOut(), {}, 0, set()
    start = f"{inside}/" if inside else ""
    of_class: dict[str, list[str]] = defaultdict(list)
    for position, name in enumerate(names):
        if not name.startswith(start):
            continue
        name = name[len(start) :]
        folder, _, file = name.rpartition("/")
        kept_out = _left_out(folder)
        if kept_out is not None:
            if kept_out.casefold() in JUNK_FOLDERS:
                left_out.junk[kept_out] += bool(file)
            else:
                left_out.hidden.add(kept_out)
        elif not file:
            empty |= {folder.partition("/")[0]} - {""}
        elif left_out.is_image(file):
            loose += not folder
            if folder and name not in places:
                of_class[name.partition("/")[0]].append(name)
            places[name] = position
    key = ORDERS[class_order]
    images = {name: sorted(of_class[name]) for name in sorted(of_class, key=key)}
    listing = Listing(
        archive,
        images,
        tuple(sorted(empty - images.keys(), key=key)),
        loose,
        dict(left_out.junk),
        tuple(sorted(left_out.hidden)),
        dict(left_out.others),
        kind,
        inside,
    )
    if not images:
        raise UserError(nothing(listing))
    found = [places[name] for of_one in images.values() for name in of_one]
    return listing, np.array(found, np.int64)


def _chosen(archive: Path, kind: str, names: Sequence[str], inside: str) -> str:
    """The path in the archive of the folder that holds the class folders."""
    folders = {folder for name in names if (folder := _folder_with_image(name)) is not None}
    around = _around(folders)
    if not inside:
        return around
    above = {path for folder in folders for path in _ups(folder)}
    for path in (inside, f"{around}/{inside}".strip("/")):
        if path in above:
            return path
    there = sorted(
        {path.removeprefix(around).strip("/").partition("/")[0] for path in above} - {""}
    )
    raise UserError(
        f"{archive} has no folder {inside!r} with images{did_you_mean(inside, there)}; folders in "
        f"it: {some(map(shown, there), 8) or 'none'}; write {kind}:{archive}:FOLDER with one of "
        f"them, or {kind}:{archive}"
    )


def _folder_with_image(name: str) -> str | None:
    """The folder of a member that is a picture of a person."""
    folder, _, file = name.rpartition("/")
    return folder if file and _left_out(folder) is None and is_picture(file) else None


def _around(folders: set[str]) -> str:
    """The folder that holds all folders with images, and no image itself."""
    inside = ""
    while inside not in folders:
        start = f"{inside}/" if inside else ""
        below = {folder[len(start) :].partition("/")[0] for folder in folders}
        if len(below) != 1 or below == {""} or start + min(below) in folders:
            break
        inside = start + min(below)
    return inside


def _ups(folder: str) -> list[str]:
    """A folder and all that it lies in."""
    parts = folder.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


@functools.lru_cache(1 << 14)
def _left_out(folder: str) -> str | None:
    """The first part of a path that belongs to a system or is hidden; None where none is."""
    for part in folder.split("/"):
        if part.casefold() in JUNK_FOLDERS or part.startswith("."):
            return part
    return None
