"""The text of `--config.data.source` -> an open source."""

import importlib
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.config import domains
from biggan_jax.data import buckets, wording
from biggan_jax.data.kinds import KINDS, forms
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError, did_you_mean


def open_source(
    spec: str | None,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str = "error",
    class_order: str = "natural",
    max_pixels: int | None = None,
    stage: str | None = None,
    stage_gb: float | None = None,
    option: str = "--config.data.source",
) -> Source:
    """Opens the images that a spec names.

    Args:
      spec: KIND or KIND:ARGUMENT, as `kinds.KINDS` lists them. `~` in a path is the home folder.
      resolution: side of the square images in pixels, at least 1.
      channels: 1 (grey) or 3 (RGB).
      on_bad_record: what an unreadable image file means: `error` stops with its name, `skip`
        replaces it by the next readable one of its class.
      class_order: how the names of class folders are sorted: `natural` or `text`.
      max_pixels: of the largest image file that is decoded; Pillow's own limit if absent.
      stage: a folder of a local disk, to which what lies in a bucket is copied.
      stage_gb: how much of it one process may take, in 10**9 bytes; what is free if absent.
      option: where the user wrote the spec, for messages; `wording` knows what else it takes.

    Returns:
      An open source with at least one example.

    Raises:
      UserError: the spec is unset or malformed, or the data is missing, empty or damaged.
    """
    if spec is None:
        raise UserError(f"{option.removeprefix('--config.')} is not set: set {option} to {forms()}")
    domains.check(
        {
            "model.resolution": resolution,
            "model.channels": channels,
            "data.on_bad_record": on_bad_record,
            "data.class_order": class_order,
            "data.max_pixels": max_pixels,
            "data.stage_gb": stage_gb,
        }
    )
    words = wording.of(option)
    try:
        source = _open(
            spec,
            {"class_order": class_order, "stage": stage, "stage_gb": stage_gb},
            resolution=resolution,
            channels=channels,
            on_bad_record=on_bad_record,
        )
    except UserError as error:
        advised = error.worded(words) if hasattr(error, "worded") else error
        raise UserError(f"{option}={spec!r}: {advised}") from error
    source.wording = words
    source.max_pixels = max_pixels
    return source


def choices(section: ConfigDict) -> dict[str, Any]:
    """What `open_source` takes of the config's section `data`."""
    names = ("on_bad_record", "class_order", "max_pixels", "stage", "stage_gb")
    return {name: section[name] for name in names}


def _open(spec: str, taken: dict[str, Any], **settings) -> Source:
    """Opens a source; its kind gets those of the further settings that it takes."""
    if not spec.strip():
        raise UserError(f"it is empty; write {forms()}")
    name, _, argument = spec.partition(":")
    if name not in KINDS:
        raise UserError(_unknown(spec, name))
    kind = KINDS[name]
    if not argument.strip() and (kind.needs_argument or spec != name):
        raise UserError(f"incomplete; write {kind.form}")
    module = importlib.import_module(f"biggan_jax.data.{kind.module}")
    settings |= {key: taken[key] for key in kind.takes}
    return module.open_spec(spec, argument, **settings)


def _unknown(spec: str, name: str) -> str:
    """What to write in the place of a spec without a kind, or with an unknown one."""
    path = Path(os.path.expanduser(spec))
    if os.sep not in name and not path.exists():
        return f"unknown kind {name!r}{did_you_mean(name, KINDS)}; write {forms()}"
    if (path / "info.json").is_file() and list(path.glob("*.array_record")):
        kind = "records"
    elif list(path.glob("*-images-idx3-ubyte*")):
        kind = "fashion_mnist"
    elif path.is_file() and (kind := _of_file(path)):
        return f"a path needs its kind: did you mean '{kind}:{spec}'?; write {forms()}"
    elif path.is_file():
        what = "an array" if path.suffix == ".npy" else "a file"
        return f"{path} is {what}, and images are read from a folder of files; write {forms()}"
    else:
        kind = _of_folder(path)
    word = f"{kind}:{spec}"
    missing = "" if path.exists() else f" (no such folder {path})"
    return f"a path needs its kind: did you mean {word!r}?{missing}; write {forms()}"


def _of_folder(path: Path) -> str:
    """The kind that probably reads a folder, by what lies in it."""
    if (path / "ILSVRC").is_dir() or list(path.glob("ILSVRC2012_img_*.tar")):
        return "imagenet"
    for kind, patterns in (
        ("webdataset", ("*.tar",)),
        ("parquet", ("*.parquet", "data/*.parquet")),
    ):
        if any(next(path.glob(pattern), None) for pattern in patterns):
            return kind
    return "folder"


def _of_file(path: Path) -> str | None:
    """The kind that probably reads a file, by its name."""
    if path.name.startswith("ILSVRC2012_img_"):
        return "imagenet"
    suffix = path.suffix.lower()[1:]
    kinds = {"zip": "zip", "tar": "tar", "parquet": "parquet", "npz": "arrays"}
    return kinds.get(suffix)


def absolute(spec: str) -> str:
    """The same source from wherever it is opened: a path in a spec, made absolute.

    Args:
      spec: KIND:ARGUMENT.

    Returns:
      The spec with an absolute path where its kind reads a path of this machine.
    """
    name, colon, argument = spec.partition(":")
    if name not in KINDS or not KINDS[name].holds_path or not argument:
        return spec
    if buckets.is_remote(argument):
        return spec
    return f"{name}{colon}{Path(os.path.expanduser(argument)).absolute()}"
