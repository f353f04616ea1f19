"""Class folders that are none: splits of a data set, or one folder around all classes."""

import os
from collections import Counter

from biggan_jax.data.files import shown
from biggan_jax.data.finding import Finding
from biggan_jax.data.listing import LABELS, Listing, counts, natural_key
from biggan_jax.data.source import Source
from biggan_jax.errors import some

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def of_layout(source: Source) -> list[Finding]:
    """Finds class folders that are none: splits, or one folder around all of them."""
    listing = getattr(source, "listing", None)
    if listing is None:
        return []
    classes, option = [*listing.images], source.wording.option
    if listing.kind == "folder" and (listing.folder / LABELS).is_file():
        return [
            Finding(
                f"the labels in {LABELS} are not read, and the folders {some(classes)} are taken "
                "for the classes"
                if len(classes) > 1
                else f"the labels in {LABELS} are not read",
                shown(str(listing.folder / LABELS)),
                "if they are the labels, move the images of each into a folder of its own",
            )
        ]
    splits = [name for name in classes if _is_split(name)]
    if len(splits) == len(classes):
        found = _all_splits(listing, splits, option)
    elif len(classes) == 1:
        found = _one_class(listing, classes[0], option)
    elif splits:
        names = ", ".join(map(shown, splits))
        found = Finding(
            f"{'a class is' if len(splits) == 1 else 'classes are'} named like a split",
            names,
            "move such a folder out of the data if it is none of the classes",
        )
    else:
        found = _splits_inside(listing)
    return [found] if found else []


def _is_split(name: str) -> bool:
    return name.casefold() in SPLITS


def _all_splits(listing: Listing, splits: list[str], option: str) -> Finding | None:
    """D/train/{cat,dog} opened as D."""
    # The one to train on is the first of the usual order that holds class folders.
    order = sorted(splits, key=lambda name: SPLITS.index(name.casefold()))
    inside = {name: _folders_inside(listing.images[name], name) for name in order}
    best = next((name for name in order if inside[name]), None)
    named = some([shown(name) for name in splits], 8)
    if best is not None:
        which = "the only class is" if len(splits) == 1 else "the classes are"
        folders = some([shown(name) for name in inside[best]], 8)
        return Finding(
            f"{which} named like {'a split' if len(splits) == 1 else 'splits'}: {named}",
            f"{shown(best)} holds {counts(len(inside[best]), 'folder', 'folders')} with images: "
            f"{folders}",
            f"to train on the classes inside, give {option}={shown(listing.spec(split=best))}",
        )
    if len(splits) == 1:
        return None  # pictures without classes, in a folder named train
    others = some([shown(name) for name in order[1:]])
    return Finding(
        f"the classes are named like splits: {named}",
        shown(str(listing.folder)),
        f"to train on {shown(order[0])} alone, move {others} out of this folder",
    )


def _one_class(listing: Listing, name: str, option: str) -> Finding | None:
    """D/images/{cat,dog} opened as D, or with more folders in between."""
    paths = listing.images[name]
    at = os.path.commonpath([os.path.dirname(path) for path in paths])
    inside = _folders_inside(paths, at)
    if len(inside) < 2:
        return None
    splits = sorted(
        (folder for folder in inside if _is_split(folder)),
        key=lambda folder: SPLITS.index(folder.casefold()),
    )
    spec = listing.spec(at, splits[0] if splits else "")
    folders = some([shown(folder) for folder in inside], 8)
    return Finding(
        f"there is one class, {shown(name)}, so that the model is unconditional, but it holds "
        f"{len(inside)} folders with images",
        folders,
        f"if these are the classes, give {option}={shown(spec)}",
    )


def _splits_inside(listing: Listing) -> Finding | None:
    """D/{cat,dog}/{train,test}: all splits are trained on together."""
    seen = Counter()
    for name, paths in listing.images.items():
        seen.update(f for f in _folders_inside(paths, name) if _is_split(f))
    names = sorted(seen)
    if len(names) < 2 or min(seen.values()) < 2:
        return None
    return Finding(
        f"the class folders hold folders named like splits: {some(map(shown, names), 8)}",
        counts(max(seen.values()), "class", "classes"),
        "their images are trained on together; move those of other splits out of the data",
    )


def _folders_inside(paths: list[str], at: str) -> list[str]:
    """Names of the folders directly in `at` under which images lie, as a person sorts them."""
    rest = (path[len(at) + 1 :] for path in paths if path.startswith(f"{at}/"))
    return sorted({part.partition("/")[0] for part in rest if "/" in part}, key=natural_key)
