"""What lies where in a zip file."""

import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np

from biggan_jax.data.index_cache import Index, joined
from biggan_jax.data.member_listing import linked_name, plain_name
from biggan_jax.data.source import one_line
from biggan_jax.data.stored import DEFLATED, STORED
from biggan_jax.errors import UserError

_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard", 97: "WavPack"}
_ENCRYPTED = 1  # flag bit of a member
_PATH_BYTES = 4096  # of a link, as on Linux


def scan(path: Path) -> Index:
    """The members of a zip file as arrays [n], names as `index_cache.joined`.

    A symbolic link to a file of the same zip is that file once more, as where both are unpacked;
    one to nothing is left out.

    Args:
      path: of the zip file.

    Returns:
      names, and of each member the offset of its header, its packed and whole size, the method
      by which it is packed and the sum of its bytes.

    Raises:
      UserError: it is no zip file, truncated, empty, encrypted, or packed otherwise than
        by deflating.
      OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            _check(path, file.infolist())
            members = _followed(file)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is no zip file, or truncated ({one_line(error)}); download or copy it again"
        ) from error
    numbers = {
        "headers": [info.header_offset for _, info in members],
        "packed": [info.compress_size for _, info in members],
        "sizes": [info.file_size for _, info in members],
        "methods": [info.compress_type for _, info in members],
        "sums": [info.CRC for _, info in members],
    }
    index = {name: np.array(column, np.int64) for name, column in numbers.items()}
    return index | {"names": joined([name for name, _ in members])}


def _check(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if not infos:
        raise UserError(f"{path} is an empty zip file; name another")
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise UserError(
                f"{path}: {info.filename} is encrypted; zip it again without a password"
            )
        if info.compress_type not in (STORED, DEFLATED):
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise UserError(
                f"{path}: {info.filename} is packed by {method}, which is not read; zip it again "
                "with `zip -r`, which deflates"
            )


def _followed(file: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """The name of every member and what is stored under it, behind a link its target."""
    named = [(_unix_name(info.filename), info) for info in file.infolist()]
    if not any(_is_link(info) for _, info in named):
        return named
    files = {plain_name(name): info for name, info in named if not _is_link(info)}
    found = []
    for name, info in named:
        if not _is_link(info):
            found.append((name, info))
            continue
        with file.open(info) as content:
            to = content.read(_PATH_BYTES).decode("utf-8", "surrogateescape")
        target = files.get(linked_name(name, to))
        if target is not None and not target.is_dir():
            found.append((name, target))
    return found


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _unix_name(name: str) -> str:
    # Some programs of Windows write its own separators.
    return name.replace("\\", "/").removeprefix("./").lstrip("/")
