"""Files of arrays (`.npz`) that may be damaged: read whole and checked, or refused in a few words.

`numpy.load` reads what an archive claims to hold before anything is checked, and finds a changed
value only where the archive's own sums were not made anew. So the sizes are looked at first, and
the files that are written here hold a digest of all their arrays.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CHECK = "check"  # the array that holds the digest
MOST_BYTES = 1 << 31  # of all arrays: covariances of 11,000 dimensions, or all of Inception
_MOST_HEADER = 1 << 16
_SUFFIX = ".npy"


class DamagedError(ValueError):
    """A file of arrays cannot be read; the message is the reason, in a few words."""


class ChangedError(DamagedError):
    """The arrays can be read, and are not those of which the file holds the digest."""


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Gives the contents of an `.npz` without pickles, with a digest of its arrays.

    Args:
      arrays: by their names; of numbers or text.

    Returns:
      What `read` reads from a file, and `numpy.load` too.
    """
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **arrays, **{CHECK: np.array(digest(arrays))})
    return file.getvalue()


def read(path: str | Path) -> tuple[dict[str, np.ndarray], bool]:
    """Reads all arrays of a file; no pickle is ever loaded.

    Args:
      path: an `.npz` of `to_bytes`, or of another program, which has no digest.

    Returns:
      (the arrays by their names, whether they were compared with a digest).

    Raises:
      FileNotFoundError: there is no file.
      OSError: the disk does not give it.
      DamagedError: it is no such file, or not what was written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise DamagedError("it is no file")
    with open(path, "rb") as file:
        try:
            arrays = _arrays(file)
        except DamagedError:
            raise
        except OSError as error:
            if error.errno is not None and error.filename is not None:
                raise
            raise DamagedError(_one_line(error)) from error
        except Exception as error:  # zipfile, zlib, lzma, bz2 and numpy raise a dozen kinds
            raise DamagedError(_one_line(error)) from error
    check = arrays.pop(CHECK, None)
    if check is not None and (check.shape != () or str(check) != digest(arrays)):
        raise ChangedError("its arrays are not those that were written")
    return arrays, check is not None


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """64 hexadecimal digits: sha256 over names, types, shapes and bytes, in the names' order."""
    found = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        found.update(f"{name!r} {x.dtype.str} {x.shape}\n".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()


def _arrays(file) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > MOST_BYTES:
            raise DamagedError(f"it claims to hold {total:,} bytes, more than {MOST_BYTES:,}")
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise DamagedError("it holds an array twice")
        return {
            member.filename.removesuffix(_SUFFIX): _array(archive, member)
            for member in members
            if member.filename.endswith(_SUFFIX)
        }


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array: its header is compared with the bytes that are there before they are taken."""
    data = archive.read(member)  # never more than its size says, and its sum is compared
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    headers = {(1, 0): np.lib.format.read_array_header_1_0}
    headers |= {(2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise DamagedError(f"{member.filename} is of another format")
    shape, fortran, dtype = headers[version](stream, max_header_size=_MOST_HEADER)
    if dtype.hasobject or dtype.kind not in "biufUSc":
        raise DamagedError(f"{member.filename} holds {dtype}, neither numbers nor text")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != len(data) - stream.tell():
        raise DamagedError(f"{member.filename} has not the size that its header says")
    flat = np.frombuffer(data, dtype, offset=stream.tell()) if size else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:120]}..."
