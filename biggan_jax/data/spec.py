"""The text of `--config.data.source` -> an open source."""

import difflib
import re
from pathlib import Path

from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

FORMS = {
    "digits": "digits or digits:SPLIT",
    "tfds": "tfds:NAME or tfds:NAME:SPLIT",
    "folder": "folder:PATH",
    "fashion_mnist": "fashion_mnist:FOLDER or fashion_mnist:FOLDER:SPLIT",
    "records": "records:DIR",
}

# A version looks like 1.2.3 or 1.*.*; a split may hold a colon itself, as in train[:10%].
_TFDS = re.compile(
    r"(?P<name>[^:\s]+(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(?P<split>[^\s:].*))?", re.ASCII
)


def open_source(
    spec: str, *, resolution: int, channels: int, on_bad_record: str = "error"
) -> Source:
    """Opens the images that a spec names.

    Args:
      spec: `digits[:train|:test]` | `tfds:NAME[:SPLIT]` | `folder:PATH` |
        `fashion_mnist:FOLDER[:train|:test]` | `records:DIR`. NAME is a TFDS name with an optional
        /config and :version; its split is `train` unless given. `~` in a path is the home folder.
      resolution: side of the square images in pixels, at least 1.
      channels: 1 (grey) or 3 (RGB).
      on_bad_record: what an unreadable image file means: `error` stops with its name, `skip`
        replaces it by the next readable one.

    Returns:
      An open source with at least one example.

    Raises:
      UserError: the spec is malformed, or the data is missing, empty or damaged.
    """
    _check_settings(resolution, channels, on_bad_record)
    kind, colon, rest = spec.partition(":")
    if kind not in FORMS:
        near = difflib.get_close_matches(kind.strip().lower(), FORMS, n=1, cutoff=0.4)
        hint = f"did you mean {FORMS[near[0]]}? " if near else ""
        raise UserError(
            f"--config.data.source={spec!r}: unknown kind {kind!r}; {hint}kinds: {', '.join(FORMS)}"
        )
    if (kind != "digits" or colon) and not rest.strip():
        raise UserError(f"--config.data.source={spec!r} is incomplete; write {FORMS[kind]}")
    size = {"resolution": resolution, "channels": channels}
    if kind == "digits":
        from biggan_jax.data.digits import open_digits

        return open_digits(spec, rest or "all", **size)
    if kind == "fashion_mnist":
        from biggan_jax.data.idx import open_fashion_mnist

        folder, _, split = rest.rpartition(":")
        if not folder or split not in ("train", "test"):
            folder, split = rest, "train"
        return open_fashion_mnist(spec, Path(folder).expanduser(), split, **size)
    if kind == "records":
        from biggan_jax.data.records import RecordSource

        return RecordSource(spec, Path(rest).expanduser(), **size)
    if kind == "folder":
        from biggan_jax.data.folder import FolderSource

        return FolderSource(spec, Path(rest).expanduser(), on_bad_record=on_bad_record, **size)
    match = _TFDS.fullmatch(rest)
    if match is None:
        raise UserError(f"--config.data.source={spec!r} is malformed; write {FORMS[kind]}")
    from biggan_jax.data.tfds_source import TfdsSource

    split = match["split"] or "train"
    return TfdsSource(spec, match["name"], split, on_bad_record=on_bad_record, **size)


def _check_settings(resolution: int, channels: int, on_bad_record: str) -> None:
    if resolution < 1:
        raise UserError(f"--config.model.resolution={resolution} must be at least 1 pixel")
    if channels not in (1, 3):
        raise UserError(f"--config.model.channels={channels} must be 1 (grey) or 3 (RGB)")
    if on_bad_record not in ("error", "skip"):
        raise UserError(
            f"--config.data.on_bad_record={on_bad_record!r} is unknown; choose error or skip"
        )
