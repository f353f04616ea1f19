"""Images inside larger files: read where they lie, by many threads at once."""

import contextlib
import os
import stat
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from biggan_jax.data.images import BadImage

KEPT_OPEN = 200  # files of a source; the limit of a process is often 1024
STORED, DEFLATED = 0, 8  # methods of a zip file
_LOCAL_HEADER = 30  # bytes of a zip's header before a member, without its name and extra field


class OpenFiles:
    """Some files, each opened when something of it is first read.

    Args:
      paths: the files. Of more than `KEPT_OPEN` the later ones are opened for every read.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(paths)
        self._lock = threading.Lock()
        self._handles: dict[int, int] = {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Some bytes of one file; fewer where it ends.

        Args:
          number: of the file.
          offset: of the first byte.
          size: number of bytes.

        Returns:
          The bytes.

        Raises:
          OSError: it cannot be read.
        """
        handle = self._handles.get(number)
        if handle is None:
            with self._lock:
                handle = self._handles.get(number)
                if handle is None and len(self._handles) < KEPT_OPEN:
                    handle = self._handles[number] = _opened(self.paths[number])
        if handle is not None:
            return os.pread(handle, size, offset)
        handle = _opened(self.paths[number])
        try:
            return os.pread(handle, size, offset)
        finally:
            os.close(handle)

    def sizes_and_times(self) -> list[tuple[int, int]]:
        """Size and time of the last change of each file; (-1, 0) of one that is gone."""
        found = []
        for path in self.paths:
            with contextlib.suppress(OSError):
                known = os.stat(path)
                found.append((known.st_size, known.st_mtime_ns))
                continue
            found.append((-1, 0))
        return found

    def __del__(self):
        for handle in self._handles.values():
            with contextlib.suppress(OSError):
                os.close(handle)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


class Extent(NamedTuple):
    """One file that lies whole in another one."""

    files: OpenFiles
    number: int  # of the file that it lies in
    offset: int
    size: int

    def read(self, limit: int | None = None) -> bytes:
        """Its bytes, `limit` at most.

        Raises:
          BadImage: the file around it has become shorter.
          OSError: it cannot be read.
        """
        size = self.size if limit is None else min(limit, self.size)
        data = self.files.read(self.number, self.offset, size)
        if len(data) < size:
            raise BadImage(f"truncated at byte {len(data)} of {size}")
        return data


class ZipMember(NamedTuple):
    """One member of a zip file."""

    files: OpenFiles
    header: int  # offset of its header
    packed: int  # bytes in the file
    size: int
    method: int
    crc: int

    def read(self, limit: int | None = None) -> bytes:
        """Its bytes, `limit` at most; the whole is checked against its sum.

        Raises:
          BadImage: it is damaged.
          OSError: it cannot be read.
        """
        header = self.files.read(0, self.header, _LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise BadImage("its header in the zip file is damaged")
        # The name and extra field here may be longer than those of the directory at the end.
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = self.header + _LOCAL_HEADER + lengths
        whole = limit is None or limit >= self.size
        stored = self.packed if whole or self.method != STORED else limit
        data = self.files.read(0, start, stored)
        if len(data) < stored:
            raise BadImage(f"truncated at byte {len(data)} of {stored}")
        if self.method == DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            except zlib.error as error:
                raise BadImage(f"its compression in the zip file is damaged ({error})") from error
        if not whole:
            return data[:limit]
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise BadImage("it differs from the sum of its bytes in the zip file")
        return data
