"""Which parquet files belong to a split, and which of their columns are images and labels."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from biggan_jax.data import patterns
from biggan_jax.data.layout import SPLITS
from biggan_jax.data.listing import natural_key
from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError, did_you_mean, some

_SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+(?:-[0-9a-f]+)?\.parquet")
_LABELS = ("label", "labels", "cls", "class", "class_id", "target", "fine_label")
_NAMED = "parquet:FOLDER:SPLIT:COLUMN or parquet:FILE::COLUMN"
_IMAGES = ("image", "img", "images", "jpg", "png", "bytes")


class Columns(NamedTuple):
    """What of a table is read.

    Attributes:
      image: name of the column, or of the field in it, of encoded images.
      label: name of the column of labels.
      names: of the classes, None where the file does not know them.
    """

    image: str
    label: str
    names: list[str] | None


def pyarrow():
    """PyArrow's parquet; UserError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet files are read by PyArrow, which is missing: pip install 'biggan_jax[parquet]'"
        ) from error
    return pyarrow.parquet


def chosen(argument: str) -> tuple[list[Path], str | None]:
    """The files that PATH, PATH:SPLIT or PATH:SPLIT:COLUMN means, and the column of its labels.

    Args:
      argument: PATH as in `patterns.files`, where a folder stands for all files below it. Of
        several splits in a folder, by the names of files (`train-00000-of-00005.parquet`) or of
        folders, `train` is taken unless another is asked for.

    Returns:
      (the files, at least one, the column or None).

    Raises:
      UserError: there are none.
    """
    path, split, column = _parts(argument)
    if not os.path.isdir(path):
        if split:
            raise UserError(
                f"{path} is no folder, so that it has no split {split!r}; leave it out"
                f"{f' (parquet:{path}::{column})' if column else ''}"
            )
        return patterns.files(path, ".parquet", "parquet files"), column
    root = Path(path)
    found = sorted(
        (file for file in root.rglob("*.parquet") if not file.name.startswith(".")),
        key=lambda file: natural_key(str(file)),
    )
    if not found:
        raise UserError(
            f"{root} holds no file that ends in .parquet; name the folder of such files"
        )
    of_split: dict[str, list[Path]] = {}
    for file in found:
        of_split.setdefault(_split_of(file, root), []).append(file)
    if not split:
        split = next(iter(of_split)) if len(of_split) == 1 else "train"
    if split not in of_split:
        there = sorted(of_split)
        raise UserError(
            f"{root} has no split {split!r}{did_you_mean(split, there)}; its splits: "
            f"{some(there, 8)}; write parquet:{root}:SPLIT with one of them"
        )
    return [
        checked for file in of_split[split] for checked in patterns.files(str(file), "", "")
    ], column


def _parts(argument: str) -> tuple[str, str, str | None]:
    """(path, split or '', column or None)."""
    if "://" in argument:
        return argument, "", None
    words = argument.split(":")
    for number in range(len(words), max(0, len(words) - 3), -1):
        path = os.path.expanduser(":".join(words[:number]))
        if os.path.lexists(path):
            rest = words[number:] + ["", ""]
            return path, rest[0], rest[1] or None
    return os.path.expanduser(argument), "", None


def _split_of(file: Path, root: Path) -> str:
    """The split of a file by its name or its folder; '' where neither says one."""
    match = _SHARD.fullmatch(file.name)
    if match:
        return match["split"]
    if file.stem.casefold() in SPLITS:
        return file.stem
    folder = file.parent
    return "" if folder == root or folder.name == "data" else folder.name


def columns_of(path: Path, schema: Any, label: str | None) -> Columns:
    """Which columns of a table are read.

    Args:
      path: of the file, for messages.
      schema: PyArrow's, whose metadata may have the features of Hugging Face.
      label: name of the column of labels, None to find it.

    Returns:
      The columns.

    Raises:
      UserError: there is no column of images or of labels, or several could be it.
    """
    features = _features(schema)
    return Columns(_image(path, schema, features), *_label(path, schema, features, label))


def _features(schema: Any) -> dict[str, dict]:
    """What Hugging Face's `datasets` has written of each column; {} where it has not."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _image(path: Path, schema: Any, features: dict[str, dict]) -> str:
    import pyarrow.types as types

    def binary(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    usable = {}
    for field in schema:
        if binary(field.type):
            usable[field.name] = field.name
        elif types.is_struct(field.type):
            inner = {one.name for one in field.type if binary(one.type)}
            if "bytes" in inner:
                usable[field.name] = f"{field.name}.bytes"
    told = [name for name in usable if features.get(name, {}).get("_type") == "Image"]
    likely = told or [name for name in _IMAGES if name in usable] or [*usable]
    if not likely or (len(likely) > 1 and not told and likely[0] not in _IMAGES):
        many = f"several columns of bytes ({some(likely)})" if likely else "no column of images"
        raise UserError(
            f"{path} has {many}; its columns: {_listed(schema)}; an image column holds the bytes "
            "of image files, or {bytes, path}, and is called image"
        )
    return usable[likely[0]]


def _label(
    path: Path, schema: Any, features: dict[str, dict], asked: str | None
) -> tuple[str, list[str] | None]:
    names = set(schema.names)
    classes = [n for n, f in features.items() if f.get("_type") == "ClassLabel" and n in names]
    if asked is not None:
        if asked not in names:
            raise UserError(
                f"{path} has no column {asked!r}{did_you_mean(asked, names)}; its columns: "
                f"{_listed(schema)}; write {_NAMED} with the column of labels"
            )
        found = [asked]
    else:
        found = [name for name in _LABELS if name in names and (name in classes or not classes)]
        found = found[:1] if found and found[0] != "fine_label" else classes or found
    if len(found) != 1:
        what = f"several columns of labels ({some(found)})" if found else "no column of labels"
        raise UserError(
            f"{path} has {what}; its columns: {_listed(schema)}; write {_NAMED} with the column "
            "that holds the classes, whole numbers or names"
        )
    known = features.get(found[0], {}).get("names")
    usable = isinstance(known, list) and known and all(isinstance(name, str) for name in known)
    return found[0], known if usable else None


def _listed(schema: Any) -> str:
    return some([f"{field.name} ({one_line(Exception(str(field.type)))})" for field in schema], 8)
