"""Writing records in lanes, by one worker or by many, each lane for itself.

A lane is finished when its part file says so, the whole when info.json does. Whoever is started
again goes on behind the lanes that are finished; whoever finishes the last one writes info.json.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from biggan_jax.data import buckets
from biggan_jax.data.encoding import Encoding
from biggan_jax.data.record_info import INFO_FILE, PARTS
from biggan_jax.data.shard_writer import Examples, ShardFiles
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

_THREADS = 16  # that read the parts: a bucket answers many requests at once


class LaneFolder:
    """A folder of records in lanes in the making.

    Args:
      out: the folder, local or in a bucket; it exists where it is local.
      num_lanes: how many lanes there are in the end.
      settings: of the images and the source, the same for all workers; JSON can hold them.
      encoding: of the images.
    """

    def __init__(self, out: Any, num_lanes: int, settings: dict[str, Any], encoding: Encoding):
        self._out, self._num_lanes, self._encoding = out, num_lanes, encoding
        self._settings = settings | {"lanes": num_lanes}

    def write(
        self,
        source: Source,
        lanes: range,
        per_shard: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Writes those of some lanes that are not there yet.

        Args:
          source: what is written; example i belongs to lane i mod `num_lanes`.
          lanes: to be written.
          per_shard: records of a file.
          progress: called with (examples done, examples of these lanes).

        Raises:
          UserError: a label or an image is bad, or the folder holds lanes of other settings.
          OSError: writing failed.
        """
        examples = {lane: range(lane, len(source), self._num_lanes) for lane in lanes}
        total, done = sum(map(len, examples.values())), 0
        there = self._found()  # of all workers: before anything is written under other settings
        local = None if buckets.is_remote(self._out) else self._out
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=local) as folder:
            for lane, indices in examples.items():
                if there[lane] is None:
                    tell = progress and (lambda n, done=done: progress(done + n, total))
                    part = self._write_lane(source, lane, indices, per_shard, Path(folder), tell)
                    content = json.dumps(part | {"settings": self._settings})
                    self._write_file(self._part_file(lane), content)
                done += len(indices)
                if progress is not None:
                    progress(done, total)

    def parts(self) -> list[dict[str, Any]] | None:
        """What is known of every lane, in their order; None while one is missing.

        Raises:
          UserError: a lane has other settings.
        """
        found = self._found()
        return None if None in found else found

    def _found(self) -> list[dict[str, Any] | None]:
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(self._part, range(self._num_lanes)))

    def finish(self, info: dict[str, Any]) -> None:
        """Writes info.json, with which the folder is finished, and removes the parts."""
        text = json.dumps(info, indent=2) + "\n"
        self._write_file(self._out / INFO_FILE, text)
        with ThreadPoolExecutor(_THREADS) as threads:
            for lane in range(self._num_lanes):
                path = self._part_file(lane)
                threads.submit(buckets.retried, path, path.unlink)  # left behind it does no harm
        if not buckets.is_remote(self._out):
            shutil.rmtree(self._out / PARTS, ignore_errors=True)

    def _write_lane(
        self, source: Source, lane: int, indices: range, per_shard: int, folder: Path, tell
    ) -> dict[str, Any]:
        examples = Examples(source, indices, self._encoding)
        stem = f"lane-{lane:05d}-of-{self._num_lanes:05d}"
        with ShardFiles(folder, per_shard, stem) as files:
            for done, records in examples:
                for record in records:
                    files.write(record)
                if tell is not None:
                    tell(done)
        shards = files.named()
        for shard in shards:
            buckets.move(folder / shard["name"], self._out / shard["name"])
        return {
            "shards": [{**shard, "lane": lane} for shard in shards],
            "labels": examples.labels,
            "dropped": examples.dropped,
            "digest": examples.digest.hexdigest(),
        }

    def _write_file(self, path: Any, text: str) -> None:
        buckets.retried(path, lambda: buckets.write_bytes(path, text.encode()))

    def _part_file(self, lane: int) -> Any:
        return self._out / PARTS / f"lane-{lane:05d}.json"

    def _part(self, lane: int) -> dict[str, Any] | None:
        """What is known of a lane, None where it is not finished."""
        try:
            content = buckets.read_bytes(self._part_file(lane))
        except FileNotFoundError:
            return None
        part = json.loads(content)
        settings = part.pop("settings")
        settings.pop("format_version", None)  # which earlier versions wrote beside the encoding
        other = difference(settings, self._settings)
        if other:
            raise UserError(
                f"{self._out} holds lanes that were written with {other}: start all workers with "
                "the same options on the same data, or choose another --out"
            )
        return part


def difference(found: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first setting in which two writings differ, with both values; None where none does.

    Args:
      found: settings of what is there.
      asked: those of what shall be written; what only one of the two names differs too, since raw
        pixels have no `encoding`.
    """
    for name in dict.fromkeys([*asked, *found]):
        values = [settings.get(name) for settings in (found, asked)]
        if values[0] != values[1]:
            told = [_PLAIN.get(name, "none") if value is None else _told(value) for value in values]
            return f"{name} {told[0]}, not {told[1]}"
    return None


_PLAIN = {"encoding": "raw", "jpeg": "at full size"}  # where a setting is not named


def _told(value: Any) -> str:
    """A setting for a person."""
    return " ".join(map(str, value.values())) if isinstance(value, dict) else repr(value)


def digest_of(parts: list[dict[str, Any]]) -> str:
    """Hash of all records: of the hashes of the lanes' records, in the order of the lanes."""
    return hashlib.sha256("".join(part["digest"] for part in parts).encode()).hexdigest()
