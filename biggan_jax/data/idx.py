"""Fashion-MNIST from its four idx files, gzipped or not."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from biggan_jax.data.arrays import ArraySource
from biggan_jax.data.files import OF_ONE_FILE, read_regular
from biggan_jax.errors import UserError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_PREFIX = {"train": "train", "test": "t10k"}
_UINT8 = 0x08


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> ArraySource:
    """Opens one split of Fashion-MNIST; images are resized bilinearly from 28 pixels.

    Args:
      spec: the text that asked for it.
      argument: FOLDER, FOLDER:train or FOLDER:test; the folder holds
        `train-images-idx3-ubyte[.gz]` and its three companions.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      on_bad_record: means nothing here: a damaged file is refused as a whole.

    Returns:
      A source in memory.

    Raises:
      UserError: a file is missing, damaged, or disagrees with its companion.
    """
    name, _, split = argument.rpartition(":")
    if not name or split not in _PREFIX:
        name, split = argument, "train"
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder} (write fashion_mnist:FOLDER, FOLDER:train or FOLDER:test)"
        )
    images_path = _find(folder, f"{_PREFIX[split]}-images-idx3-ubyte")
    labels_path = _find(folder, f"{_PREFIX[split]}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} "
            "labels; take both from the same download"
        )
    if images.shape[1] != images.shape[2] or 0 in images.shape:
        raise UserError(
            f"{images_path} holds images of shape {images.shape}; expected at least one, square"
        )
    if labels.max() >= len(CLASS_NAMES):
        raise UserError(
            f"{labels_path} holds labels from {labels.min()} to {labels.max()}, but Fashion-MNIST "
            f"has labels 0 to {len(CLASS_NAMES) - 1}; take the file from a fresh download"
        )
    return ArraySource(spec, images, labels, CLASS_NAMES, resolution=resolution, channels=channels)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes.

    Args:
      path: the file; gzipped if its name ends in .gz.
      ndim: the number of dimensions it must have.

    Returns:
      uint8 array of that many dimensions.

    Raises:
      UserError: the file is no such idx file, or is truncated or too long.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        raise UserError(f"{path} cannot be read ({error.strerror}); correct that file") from error
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}); download it again") from error
    header = 4 + 4 * ndim
    magic = bytes([0, 0, _UINT8, ndim])
    if data[:4] != magic:
        raise UserError(
            f"{path} starts with {data[:4].hex() or 'nothing'}, not {magic.hex()}: no idx file of "
            f"{ndim}-dimensional bytes; download it again"
        )
    if len(data) < header:
        raise UserError(f"{path} is truncated in its header; download it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, offset=4))
    if len(data) - header != math.prod(shape):
        raise UserError(
            f"{path} holds {len(data) - header} bytes after its header where its shape {shape} "
            f"needs {math.prod(shape)}; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} holds neither {name} nor {name}.gz; put the four idx files there")
