"""Writing any source as sharded records, which read an order of magnitude faster than files."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import buckets, record_info, unfinished
from biggan_jax.data import lanes as lanes_lib
from biggan_jax.data.decoding import DecodingSource
from biggan_jax.data.encoding import Encoding
from biggan_jax.data.files import shown
from biggan_jax.data.images import REDUCED_SIDES
from biggan_jax.data.lane_writer import LaneFolder, difference, digest_of
from biggan_jax.data.record_info import FORMAT, FORMAT_VERSION, INFO_FILE, PLAIN_VERSION, read_info
from biggan_jax.data.records import record_dtype
from biggan_jax.data.shard_writer import Examples, ShardFiles
from biggan_jax.data.source import Source
from biggan_jax.data.spec import absolute
from biggan_jax.errors import UserError

NAMED_BAD = 10  # unreadable images that info.json names
_AS_WRITTEN = ("encoding", "jpeg")  # entries of info.json that say how pixels became records
LABELS_FILE = "labels.npy"


def prepare(
    source: Source,
    out: str | Path,
    *,
    shard_bytes: int = 256 << 20,
    lanes: int = 0,
    worker: tuple[int, int] | None = None,
    reduced_jpeg: bool = False,
    encoding: Encoding | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes all readable examples of a source, in order, as a folder for `records:DIR`.

    An unreadable image, where the source may leave it out, is no record and takes part in no count.

    One worker writes into a hidden folder beside a local `out`, which takes its name at the very
    end: a run that is killed leaves nothing that looks finished, and the next run removes the
    remains. Several workers, or one that writes to a bucket, write into `out` itself, lane after
    lane; one that is killed goes on where it was, and the folder is finished when info.json is
    there, which the last worker writes.

    Args:
      source: what to write; its resolution and channels are those of the records.
      out: the folder to make, local or gs://BUCKET/FOLDER; may exist if it is empty.
      shard_bytes: largest size of one file in bytes of pixels and labels, at least one record.
      lanes: in which the records are laid (`lanes.LaneOrder`); 0 for none.
      worker: (i, n): writes every n-th part of the lanes, part i of [0, n).
      reduced_jpeg: decode JPEGs at a reduced size, see `images.decode_image`; info.json says so.
      encoding: of the images; raw pixels if absent.
      progress: called with (examples written, examples in all) after each part.

    Returns:
      The contents of the folder's info.json; `{"finished": False, ...}` while lanes of other
      workers are missing.

    Raises:
      UserError: `out` holds something, a label or an image of the source is bad, a class has no
        readable image, there are more lanes than images or workers without lanes, or a source that
        decodes nothing shall decode at a reduced size.
      OSError: writing failed, for instance on a full disk.
    """
    _check_lanes(source, lanes, worker)
    out = buckets.workdir_path(out)
    out = out if buckets.is_remote(out) else out.absolute()
    encoding = encoding or Encoding()
    extra = _of_encoding(encoding) | (_reduced(source) if reduced_jpeg else {})
    per_shard = max(1, shard_bytes // record_dtype(source.resolution, source.channels).itemsize)
    if worker is not None or (lanes and buckets.is_remote(out)):
        return _write_in_place(
            source, out, lanes, worker or (0, 1), per_shard, encoding, extra, progress
        )
    _check_empty(out)
    with unfinished.folder(out) as partial:
        if lanes:
            folder = LaneFolder(partial, lanes, {}, encoding)
            folder.write(source, range(lanes), per_shard, progress)
            info = _of_lanes(source, partial, folder.parts(), lanes) | extra
            folder.finish(info)
        else:
            info = _write(source, partial, per_shard, encoding, progress) | extra
            text = json.dumps(info, indent=2) + "\n"
            (partial / INFO_FILE).write_text(text, encoding="utf-8")
    return info


def _write_in_place(
    source: Source,
    out: Any,
    lanes: int,
    worker: tuple[int, int],
    per_shard: int,
    encoding: Encoding,
    extra: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """What `prepare` does where a part of the work must outlive the process that did it."""
    settings = {"resolution": source.resolution, "channels": source.channels}
    settings |= {name: extra[name] for name in _AS_WRITTEN if name in extra}
    settings |= {"images": len(source), "digest of the data": source.digest()}
    if not buckets.is_remote(out):
        (out / record_info.PARTS).mkdir(parents=True, exist_ok=True)
    number, count = worker
    mine = range(lanes * number // count, lanes * (number + 1) // count)
    folder = LaneFolder(out, lanes, settings, encoding)
    if not _is_finished(out):
        folder.write(source, mine, per_shard, progress)
        parts = folder.parts()
        if parts is None and not _is_finished(out):
            return {"finished": False, "lanes": lanes, "written": len(mine)}
        if parts is not None:
            folder.finish(_of_lanes(source, out, parts, lanes) | extra)
    elif worker == (0, 1):
        raise _Exists(out)
    info = read_info(out)
    _check_same(out, info, settings | {"lanes": lanes})
    return info


def _check_same(out: Any, info: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuses a finished folder of other settings, which a worker would call its own."""
    names = [name for name in asked if name != "digest of the data"]  # info.json does not hold it
    there = {**info, "images": info["count"] + info.get("dropped", 0)}
    found = {name: there[name] for name in (*names, *_AS_WRITTEN) if name in there}
    other = difference(found, {name: asked[name] for name in names})
    if other:
        raise UserError(
            f"{out} holds finished records with {other}: choose another --out or remove it"
        )


def _is_finished(out: Any) -> bool:
    return buckets.retried(out, (out / INFO_FILE).exists)


def _write(
    source: Source, folder: Path, per_shard: int, encoding: Encoding, progress
) -> dict[str, Any]:
    examples = Examples(source, range(len(source)), encoding)
    with ShardFiles(folder, per_shard) as files:
        for done, records in examples:
            for record in records:
                files.write(record)
            if progress is not None:
                progress(done, len(source))
    labels, dropped = examples.labels, examples.dropped
    return _info(source, labels, dropped, examples.digest.hexdigest(), files.named())


def _of_lanes(source: Source, folder: Any, parts: list[dict], num_lanes: int) -> dict[str, Any]:
    """The info of records in lanes, whose labels are written beside them."""
    records = np.array([len(part["labels"]) for part in parts])
    if not records.all():
        raise UserError(
            f"lane {np.flatnonzero(records == 0)[0]} of {num_lanes:,} has no readable image, of "
            f"{records.sum():,} in all: set fewer --lanes, or repair images, and choose another "
            "--out where several workers write"
        )
    lane = lanes_lib.of_records(records)
    labels = np.concatenate([part["labels"] for part in parts]).astype("<i4")
    content = io.BytesIO()
    np.save(content, labels[lane[1]])
    path = folder / LABELS_FILE
    buckets.retried(path, lambda: buckets.write_bytes(path, content.getvalue()))
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    shards = [shard for part in parts for shard in part["shards"]]
    dropped = [label for part in parts for label in part["dropped"]]
    return {
        **_info(source, labels.tolist(), dropped, digest_of(parts), shards),
        "format_version": FORMAT_VERSION,
        "lanes": num_lanes,
        "labels": {"name": LABELS_FILE, "bytes": len(content.getvalue()), "sha256": digest},
    }


def _info(
    source: Source, labels: list[int], dropped: list[int], digest: str, shards: list[dict]
) -> dict[str, Any]:
    written, lost = (np.bincount(x, minlength=source.num_classes) for x in (labels, dropped))
    _check_written(source, written, lost)
    return {
        "format": FORMAT,
        "format_version": PLAIN_VERSION,
        "count": len(labels),
        "resolution": source.resolution,
        "channels": source.channels,
        "num_classes": source.num_classes,
        "class_names": list(source.class_names),
        "histogram": written.tolist(),
        "digest": digest,
        "source": absolute(source.spec),
        "shards": shards,
        "dropped": len(dropped),
        "dropped_names": source.bad_names(NAMED_BAD),
        "ignored_files": source.ignored_files,
        "empty_classes": list(source.empty_classes),
        "left_out": list(source.left_out),
    }


def _check_written(source: Source, written: np.ndarray, dropped: np.ndarray) -> None:
    """Refuses records in which a class has lost its last image."""
    lost = np.flatnonzero((written == 0) & (dropped > 0))
    if lost.size:
        name, count = shown(source.class_names[lost[0]]), int(dropped[lost[0]])
        which = f"all of its {count} images are" if count > 1 else "its only image is"
        raise UserError(
            f"{source.spec}: class {name!r} has no readable image ({which} unreadable): repair "
            "one, or take the class out of the data"
        )


def _check_lanes(source: Source, lanes: int, worker: tuple[int, int] | None) -> None:
    if not 0 <= lanes <= len(source):
        raise UserError(
            f"{source.spec} has {len(source):,} images, which do not fill {lanes:,} lanes: set "
            f"--lanes to a number from 0 to {len(source):,}"
        )
    if worker is None:
        return
    number, count = worker
    if count < 1:
        raise UserError(f"--worker {number}/{count}: there is no worker; name one, such as 0/8")
    if not 0 <= number < count:
        raise UserError(
            f"--worker {number}/{count} is none of {count}: number them from 0/{count} to "
            f"{count - 1}/{count}"
        )
    if not lanes:
        raise UserError("--worker shares out lanes, and --lanes is 0: set --lanes 1024, or fewer")
    if count > lanes:
        raise UserError(
            f"{count:,} workers cannot share {lanes:,} lanes: start {lanes:,} of them at most"
        )


def _of_encoding(encoding: Encoding) -> dict[str, Any]:
    """What info.json says of it: nothing of raw pixels, as ever."""
    if encoding.format == "raw":
        return {}
    return {"format_version": FORMAT_VERSION, "encoding": encoding.info}


def _reduced(source: Source) -> dict[str, Any]:
    """Lets a source decode JPEGs at a reduced size; what info.json says of it."""
    if not isinstance(source, DecodingSource):
        raise UserError(f"{source.spec} holds no encoded images; leave out --reduced-jpeg")
    source.reduced = True
    return {"jpeg": f"decoded at a reduced size of at least {REDUCED_SIDES} times each side"}


class _Exists(UserError):
    def __init__(self, out: Any):
        super().__init__(f"{out} exists already; choose another --out or remove it")


def _holds(out: Any) -> bool:
    """Whether there is something that a rename would not replace, such as a link to nowhere."""
    if out.is_dir():
        return any(out.iterdir()) or (isinstance(out, Path) and out.is_symlink())
    return out.exists() or (isinstance(out, Path) and out.is_symlink())


def _check_empty(out: Any) -> None:
    if buckets.retried(out, lambda: _holds(out)):
        raise _Exists(out)
