"""A zip file of class folders, or of images with a `dataset.json` of StyleGAN's tools."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import zip_index
from biggan_jax.data.archive import ArchiveSource, of_class_folders, split_file
from biggan_jax.data.images import BadImage
from biggan_jax.data.index_cache import Index, indexed, parted
from biggan_jax.data.labels import numbered
from biggan_jax.data.left_out import is_picture
from biggan_jax.data.listing import LABELS
from biggan_jax.data.source import one_line
from biggan_jax.data.stored import OpenFiles, ZipMember
from biggan_jax.errors import UserError, counts, some


def open_spec(
    spec: str,
    argument: str,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str,
    class_order: str = "natural",
) -> ArchiveSource:
    """Opens the images that `zip:FILE` names, or those in a folder of it with `zip:FILE:FOLDER`.

    A folder is a class, unless a `dataset.json` beside the folders says the labels. UserError where
    the file is missing, no zip file, truncated, empty, or its labels do not fit its images.
    """
    path, inside = split_file(argument, "zip")
    index = indexed("zip", [path], lambda: zip_index.scan(path))
    settings = {"resolution": resolution, "channels": channels, "on_bad_record": on_bad_record}
    names = parted(index["names"])
    beside = f"{inside.strip('/')}/{LABELS}".lstrip("/")
    if beside in names:
        return _labelled(spec, path, index, names, beside, settings)
    return of_class_folders(
        spec,
        path,
        inside,
        index,
        lambda files, at: _member(files, index, at),
        class_order,
        **settings,
    )


def _member(files: OpenFiles, index: Index, at: int) -> ZipMember:
    columns = ("headers", "packed", "sizes", "methods", "sums")
    return ZipMember(files, *(int(index[name][at]) for name in columns))


def _labelled(
    spec: str, path: Path, index: Index, names: list[str], labels_at: str, settings: dict
) -> ArchiveSource:
    """The images of a zip file whose `dataset.json` has their labels, sorted by their names."""
    files = OpenFiles([path])
    start = labels_at.removesuffix(LABELS)
    images = {
        name.removeprefix(start): at
        for at, name in enumerate(names)
        if name.startswith(start) and is_picture(name) and "__MACOSX" not in name
    }
    if not images:
        raise UserError(f"{path} holds {labels_at} and no images; zip the images with it")
    given = _labels(path, labels_at, _member(files, index, names.index(labels_at)))
    ordered = sorted(images)
    at = np.array([images[name] for name in ordered], np.int64)
    if given is None:  # of tools that were given no labels
        labels, class_names = np.zeros(len(ordered), np.int32), ("all",)
    else:
        _check_names(path, given, images)
        values = [given[name] for name in ordered]
        labels, class_names = numbered(values, lambda i: f"{ordered[i]} in {labels_at} of {path}")
    return ArchiveSource(
        spec,
        files,
        ordered,
        lambda i: _member(files, index, int(at[i])),
        index["sizes"][at],
        labels,
        class_names=class_names,
        **settings,
    )


def _labels(path: Path, labels_at: str, member: ZipMember) -> dict[str, Any] | None:
    """The label of each name in a `dataset.json`; None where it has none."""
    where = f"{labels_at} of {path}"
    try:
        content = json.loads(member.read())
    except (BadImage, ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is damaged ({one_line(error)}); make the zip file again"
        ) from error
    found = content.get("labels") if isinstance(content, dict) else None
    if found is None and isinstance(content, dict) and "labels" in content:
        return None
    pairs = isinstance(found, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in found
    )
    if not pairs:
        raise UserError(
            f'{where} holds no labels; write {{"labels": [["00000/img00000000.png", 3], ...]}} '
            "into it, or leave it out of the zip file where folders are classes"
        )
    return {name.replace("\\", "/"): label for name, label in found}


def _check_names(path: Path, given: dict[str, Any], images: Collection[str]) -> None:
    """Refuses labels that do not fit the images."""
    missing = sorted(name for name in images if name not in given)
    if missing:
        have = counts(len(missing), "image has", "images have")
        raise UserError(
            f"{path}: {have} no label in {LABELS}, of {len(images):,} ({some(missing)}); add them "
            "to it, or take the images out"
        )
    absent = sorted(name for name in given if name not in images)
    if absent:
        have = counts(len(absent), "label is", "labels are")
        raise UserError(
            f"{path}: {have} of images that are not in it ({some(absent)}); add the images, or "
            f"take the labels out of {LABELS}"
        )
