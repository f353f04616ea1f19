"""What lies where in a zip file."""

import zipfile
from pathlib import Path

import numpy as np

from biggan_jax.data.index_cache import Index, joined
from biggan_jax.data.source import one_line
from biggan_jax.data.stored import DEFLATED, STORED
from biggan_jax.errors import UserError

_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard", 97: "WavPack"}
_ENCRYPTED = 1  # flag bit of a member


def scan(path: Path) -> Index:
    """The members of a zip file as arrays [n], names as `index_cache.joined`.

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
            infos = file.infolist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is no zip file, or truncated ({one_line(error)}); download or copy it again"
        ) from error
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
    numbers = {
        "headers": [info.header_offset for info in infos],
        "packed": [info.compress_size for info in infos],
        "sizes": [info.file_size for info in infos],
        "methods": [info.compress_type for info in infos],
        "sums": [info.CRC for info in infos],
    }
    index = {name: np.array(column, np.int64) for name, column in numbers.items()}
    # Some programs of Windows write its own separators.
    names = [info.filename.replace("\\", "/").removeprefix("./").lstrip("/") for info in infos]
    return index | {"names": joined(names)}
