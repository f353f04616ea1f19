"""What lies where in a tar: one pass over its headers, without reading what they stand before."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biggan_jax.data.index_cache import Index, joined
from biggan_jax.data.member_listing import linked_name, plain_name
from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError

_BLOCK = 512  # bytes of which a tar is made
# What a compressed file starts with -> the program that unpacks it.
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


class Member(NamedTuple):
    """One member of a tar; a folder's name ends in a slash."""

    name: str
    offset: int  # of its contents, in the outermost file
    size: int


class Section(io.RawIOBase):
    """A part of an open file as a file of its own, for reading.

    Args:
      handle: of the open file.
      start: offset of the part.
      size: of the part.
    """

    def __init__(self, handle: int, start: int, size: int):
        super().__init__()
        self._handle, self._start, self._size, self._at = handle, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._handle, size, self._start + self._at)
        self._at += len(data)
        return data


def members(path: Path, handle: int) -> Iterator[Member]:
    """All files and folders in a tar, those in tars inside it too (`cat.tar` holds `cat/...`).

    A link to a file of the same tar is that file once more, as where both are unpacked.

    Args:
      path: of the tar, for messages.
      handle: of the open file.

    Yields:
      Each in its order.

    Raises:
      UserError: it is no tar, compressed or truncated.
      OSError: it cannot be read.
    """
    size = os.fstat(handle).st_size
    start = os.pread(handle, 8, 0)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(
                f"{path} is compressed, and so can be read from its start alone; unpack it once "
                f"with `{program} {path}`, and name the .tar file that is left"
            )
    yield from _inside(path, handle, 0, size, "")


def _inside(path: Path, handle: int, start: int, size: int, around: str) -> Iterator[Member]:
    where = f"{around.rstrip('/')}.tar in {path}" if around else f"{path}"
    files = None  # by name, where there are links to them
    try:
        with tarfile.open(fileobj=Section(handle, start, size), mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # it keeps all of them: gigabytes for a million
                name = around + info.name.removeprefix("./").lstrip("/")
                if info.isdir():
                    yield Member(f"{name.rstrip('/')}/", 0, 0)
                elif info.isreg() and not info.issparse():
                    begin = start + info.offset_data
                    if name.lower().endswith(".tar"):
                        yield Member(f"{name[:-4]}/", begin, info.size)
                        yield from _inside(path, handle, begin, info.size, f"{name[:-4]}/")
                    else:
                        yield Member(name, begin, info.size)
                elif info.islnk() or info.issym():
                    files = _files(handle, start, size) if files is None else files
                    if (found := files.get(_target(info))) is not None:
                        yield Member(name, *found)
            end = tar.offset
    except tarfile.ReadError as error:
        raise _no_tar(where, one_line(error)) from error
    # Of a header that cannot be read, and of none at all, tarfile says nothing.
    block = os.pread(handle, min(_BLOCK, max(0, size - end)), start + end)
    if block != bytes(_BLOCK):
        what = "it ends" if len(block) < _BLOCK else "there is no header"
        raise _no_tar(where, f"{what} at byte {end:,}, where an archive has its end marker")


def _files(handle: int, start: int, size: int) -> dict[str, tuple[int, int]]:
    """Offset and size of every file of a tar, by its name: a second pass, where it holds links."""
    found = {}
    with tarfile.open(fileobj=Section(handle, start, size), mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []
            if info.isreg() and not info.issparse():
                found[plain_name(info.name)] = start + info.offset_data, info.size
    return found


def _target(info: tarfile.TarInfo) -> str:
    """The file that a link stands for, as `_files` names it."""
    if info.islnk():
        return plain_name(info.linkname)
    return linked_name(info.name, info.linkname)


def _no_tar(where: str, reason: str) -> UserError:
    if reason in ("empty file", "invalid header", "truncated header", "bad checksum"):
        return UserError(f"{where} is no tar file ({reason}); download or copy it again")
    return UserError(f"{where} is truncated or damaged ({reason}); download or copy it again")


def scan(path: Path) -> Index:
    """The members of a tar as arrays: names as `index_cache.joined`, offsets and sizes int64 [n].

    Raises:
      UserError: as of `members`, or it holds nothing.
    """
    names, offsets, sizes = [], [], []
    handle = os.open(path, os.O_RDONLY)
    try:
        for member in members(path, handle):
            names.append(member.name)
            offsets.append(member.offset)
            sizes.append(member.size)
    finally:
        os.close(handle)
    if not names:
        raise UserError(f"{path} is an empty tar; name another")
    return {
        "names": joined(names),
        "offsets": np.array(offsets, np.int64),
        "sizes": np.array(sizes, np.int64),
    }
