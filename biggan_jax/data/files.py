"""Reading files that other programs put there: nothing waits for a pipe or a device."""

import errno
import hashlib
import os
import stat
from typing import BinaryIO

# Of a path rather than of the disk under it: one file is bad, the others may be read.
OF_ONE_FILE = frozenset(
    (
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP),
        *(errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL),
    )
)
_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
)


def read_regular(path: str | os.PathLike, limit: int | None = None) -> bytes:
    """Reads a regular file.

    Args:
      path: the file; links are followed.
      limit: bytes to read at most, from its start; all without it.

    Returns:
      Its bytes.

    Raises:
      OSError: it cannot be read; for a pipe, a socket, a folder or a device its number is one of
        `OF_ONE_FILE`, and nothing was opened that could wait or act on being opened.
    """
    with open_regular(path) as file:
        return file.read() if limit is None else file.read(limit)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading; OSError as of `read_regular`."""
    _check_regular(os.stat(path).st_mode, path)
    # O_NONBLOCK: a pipe that has taken the file's place since would wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(mode: int, path: str | os.PathLike) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((text for test, text in _KINDS if test(mode)), "is a device")
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, f"{kind}, not a file", os.fspath(path))


def stamp_of_files(digest: str, folder: str | os.PathLike) -> str:
    """Hash of a digest and of the names, sizes and times of the files of a folder.

    Args:
      digest: of the contents.
      folder: local; where there is none, as for a bucket, the digest alone counts.

    Returns:
      64 hexadecimal digits, the digest itself where there is no such folder.
    """
    if not os.path.isdir(folder):
        return digest
    stamp = hashlib.sha256(digest.encode())
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_file():
            found = entry.stat()
            line = f"{entry.name}\0{found.st_size}\0{found.st_mtime_ns}\n"
            stamp.update(os.fsencode(line))
    return stamp.hexdigest()


def shown(name: str) -> str:
    """A file's name on one line, whatever characters it holds."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
