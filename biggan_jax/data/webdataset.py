"""Shards of WebDataset: tars of samples, whose files share a name up to the first dot."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from biggan_jax.data import patterns, tar_index
from biggan_jax.data.archive import ArchiveSource
from biggan_jax.data.files import read_regular, shown
from biggan_jax.data.index_cache import Index, indexed, joined, parted
from biggan_jax.data.labels import numbered
from biggan_jax.data.left_out import is_picture
from biggan_jax.data.source import one_line
from biggan_jax.data.stored import Extent, OpenFiles
from biggan_jax.errors import UserError, some

NAMES = ("classnames.txt", "class_names.txt", "classes.txt")  # one class a line, by its label
# Where a sample's .json may have its label.
LABEL_KEYS = ("label", "cls", "class", "class_id", "class_name", "target")
_LABEL_BYTES = 1 << 20  # of a .cls or .json
_SCANNED_AT_ONCE = 4


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> ArchiveSource:
    """Opens the shards that `webdataset:PATH` names; see `patterns.files` for what PATH may be.

    A sample is an image, and a label in `KEY.cls` or in `KEY.json`; examples are in the order of
    the shards. Classes are named by a `classnames.txt` beside the shards or above them, if there is
    one. UserError where a shard is missing or truncated, or a sample has no label.
    """
    paths = patterns.files(argument, ".tar", "shards")
    index = indexed("webdataset", paths, lambda: scan(paths))
    shards, keys = index["shards"], parted(index["keys"])
    files = OpenFiles(paths)
    values = json.loads(index["labels"].tobytes())

    def where(i: int) -> str:
        return f"sample {shown(keys[i])} of {paths[shards[i]]}"

    labels, class_names = numbered(
        [values[i] for i in index["codes"]], where, _names(paths[0], values)
    )

    def content(i: int) -> Extent:
        place = (int(index[column][i]) for column in ("shards", "offsets", "sizes"))
        return Extent(files, *place)

    source = ArchiveSource(
        spec,
        files,
        keys,
        content,
        index["sizes"],
        labels,
        archive_of=shards,
        resolution=resolution,
        channels=channels,
        class_names=class_names,
        on_bad_record=on_bad_record,
    )
    source.ignored_files = int(index["ignored"])
    return source


class Sample(NamedTuple):
    """One image and its label."""

    key: str  # name of the image in the shard
    shard: int
    offset: int
    size: int
    label: Any  # as it is written


def scan(paths: list[Path]) -> Index:
    """Where the images of all samples lie, and their labels.

    Args:
      paths: of the shards.

    Returns:
      Arrays [n] by name: keys (joined), shards, offsets, sizes, codes (positions among the
      different labels); labels, the bytes of those as JSON, and ignored, files of no sample.

    Raises:
      UserError: a shard is no whole tar, a sample has no label or several images, or there is none.
    """
    with ThreadPoolExecutor(_SCANNED_AT_ONCE) as pool:
        found = list(pool.map(_scan_shard, range(len(paths)), paths))
    samples = [sample for of_shard, _ in found for sample in of_shard]
    if not samples:
        raise UserError(f"{paths[0]} holds no sample with an image; name shards of WebDataset")
    codes: dict[tuple, int] = {}
    numbers = [
        codes.setdefault((type(s.label).__name__, repr(s.label)), len(codes)) for s in samples
    ]
    first = {
        number: sample.label
        for number, sample in zip(reversed(numbers), reversed(samples), strict=True)
    }
    return {
        "keys": joined([sample.key for sample in samples]),
        "shards": np.array([sample.shard for sample in samples], np.int32),
        "offsets": np.array([sample.offset for sample in samples], np.int64),
        "sizes": np.array([sample.size for sample in samples], np.int64),
        "codes": np.array(numbers, np.int32),
        "labels": np.frombuffer(
            json.dumps([first[i] for i in range(len(codes))]).encode(), np.uint8
        ),
        "ignored": np.array(sum(ignored for _, ignored in found)),
    }


def _scan_shard(number: int, path: Path) -> tuple[list[Sample], int]:
    """(samples of one shard, files that belong to none)."""
    handle = os.open(path, os.O_RDONLY)
    samples, ignored = [], 0
    try:
        for key, files in _grouped(tar_index.members(path, handle)):
            images = [file for file in files if is_picture(file.name)]
            if not images:
                ignored += len(files)
                continue
            if len(images) > 1:
                names = [os.path.basename(image.name) for image in images]
                raise UserError(
                    f"sample {shown(key)} of {path} has {len(images)} images ({some(names)}); "
                    "write shards with one image a sample"
                )
            label = _label(path, handle, key, files)
            samples.append(Sample(images[0].name, number, images[0].offset, images[0].size, label))
    finally:
        os.close(handle)
    return samples, ignored


def _grouped(
    members: Iterator[tar_index.Member],
) -> Iterator[tuple[str, list[tar_index.Member]]]:
    """(key, files) of each sample: those of one key stand side by side."""
    key, files = "", []
    for member in members:
        folder, _, name = member.name.rpartition("/")
        if not name or name.startswith("."):
            continue
        new = f"{folder}/{name.partition('.')[0]}".lstrip("/")
        if new != key and files:
            yield key, files
            files = []
        key = new
        files.append(member)
    if files:
        yield key, files


def _label(path: Path, handle: int, key: str, files: list[tar_index.Member]) -> Any:
    """What a sample's .cls or .json says of its class."""
    where = f"sample {shown(key)} of {path}"
    by_ending = {file.name.rpartition("/")[2].partition(".")[2].lower(): file for file in files}
    for ending, read in (("cls", _of_cls), ("json", _of_json)):
        if ending in by_ending:
            file = by_ending[ending]
            content = os.pread(handle, min(file.size, _LABEL_BYTES), file.offset)
            return read(content, f"{where}: {key.rpartition('/')[2]}.{ending}")
    raise UserError(
        f"{where} has no label; write KEY.cls with the number or name of its class, or KEY.json "
        f"with {LABEL_KEYS[0]!r}, beside each image, or name tar:FILE where folders are classes"
    )


def _of_cls(content: bytes, where: str) -> int | str:
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no text; write the number or name of the class") from error
    if not text:
        raise UserError(f"{where} is empty; write the number or name of the class")
    return int(text) if text.lstrip("-").isdecimal() else text


def _of_json(content: bytes, where: str) -> Any:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({one_line(error)}); write the shard again") from error
    for name in LABEL_KEYS:
        if isinstance(found, dict) and found.get(name) is not None:
            return found[name]
    raise UserError(
        f"{where} has no {some(map(repr, LABEL_KEYS), 9)}; write {LABEL_KEYS[0]!r} into it"
    )


def _names(shard: Path, values: list) -> list[str] | None:
    """The class names beside the shards, or in the folder above, where labels are numbers."""
    if not all(type(value) is int for value in values):
        return None
    for folder in (shard.absolute().parent, shard.absolute().parent.parent):
        for name in NAMES:
            try:
                lines = read_regular(folder / name).decode().splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            lines = [line.strip() for line in lines if line.strip()]
            if len(set(lines)) < len(lines) or max(values) >= len(lines):
                raise UserError(
                    f"{folder / name} names {len({*lines})} classes, labels go to {max(values)}; "
                    "give each class a line and a name of its own, or take the file away"
                )
            return lines
    return None
