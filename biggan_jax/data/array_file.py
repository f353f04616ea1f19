"""Arrays of images in one file, such as `biggan sample --out F.npz` writes."""

import os
import zipfile
from pathlib import Path

import numpy as np

from biggan_jax.data.arrays import ArraySource
from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError

IMAGES = ("images", "arr_0")  # the second is what `numpy.savez(F, images)` calls it
LABELS, NAMES = "labels", "class_names"
_CUT = 40  # characters of a shape or a name in a message


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> ArraySource:
    """Opens the images of an `.npz`.

    Args:
      spec: the text that asked for it.
      argument: the file. It holds `images` uint8 [N, S, S, C], C being 1 or 3, or [N, S, S] of grey
        ones; it may hold `labels`, integers [N], and `class_names`, text [K]. Without labels all
        images are of one class.
      resolution: side of the images in pixels; others are resized bilinearly.
      channels: 1 or 3.
      on_bad_record: means nothing here: a damaged file is refused as a whole.

    Returns:
      A source in memory.

    Raises:
      UserError: the file is missing or damaged, or its arrays are no images and labels.
    """
    path = Path(os.path.expanduser(argument))
    arrays = read(path)
    images = pixels(path, arrays)
    labels, names = _classes(path, arrays, len(images))
    return ArraySource(spec, images, labels, names, resolution=resolution, channels=channels)


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`; no pickle is loaded.

    Raises:
      UserError: it is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"no file {path}; correct the path")
    if not path.is_file():
        raise UserError(f"{path} is no file; name an .npz")
    if not zipfile.is_zipfile(path):  # of these numpy says that one may allow pickles
        raise UserError(
            f"{path} is no readable .npz, but something else or cut off; make it again, by "
            "numpy.savez(FILE, images=...)"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds, MemoryError too
        raise UserError(f"{path} is no readable .npz ({one_line(error)}); make it again") from error


def pixels(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The images among the arrays of a file.

    Returns:
      uint8 [N, S, S, 3], or [N, S, S] where they are grey; N at least 1.

    Raises:
      UserError: there are none, or they are no square uint8 images.
    """
    name = next((name for name in IMAGES if name in arrays), None)
    if name is None:
        raise UserError(
            f"{path} holds no array `images` ({_named(arrays)}); write uint8 [N, S, S, C] by "
            "numpy.savez(FILE, images=...), or samples by `biggan sample --from DIR --out F.npz`"
        )
    images = arrays[name]
    shape = str(list(images.shape))[:_CUT]
    if images.dtype != np.uint8:
        bad = 0
        if images.dtype.kind == "f":
            bad = int(images.size - np.isfinite(images).sum())
        which = f", {bad:,} of its values NaN or infinite," if bad else ""
        cure = "make them again" if bad else _conversion(images)
        raise UserError(f"{path}: `{name}` is {images.dtype} {shape}{which} not uint8: {cure}")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    colour = images.ndim == 4 and images.shape[-1] == 3
    square = images.ndim in (3, 4) and images.shape[1] == images.shape[2]
    if not square or (images.ndim == 4 and not colour) or not images.size:
        raise UserError(
            f"{path}: `{name}` is {shape}, not [N, S, S, C] with N at least 1 and C 1 or 3: "
            f"{_cure(images.shape)}"
        )
    return images


def _conversion(images: np.ndarray) -> str:
    """What makes uint8 of finite numbers of another type, by what they reach."""
    general = "convert them to whole numbers 0 to 255, of type uint8"
    if images.dtype.kind not in "fiub" or not images.size:
        return general
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and low >= -1 and high <= 1:
        made = "(images * 255)" if low >= 0 else "((images + 1) * 127.5)"
        known = f"{made}.round()"
    elif images.dtype == np.uint16 and high > 255:
        known = "(images / 257).round()"
    elif images.dtype.kind == "b":
        known = "(images * 255)"
    elif low >= 0 and high <= 255:
        known = "images" + ".round()" * (images.dtype.kind == "f")
    else:
        return general
    reach = f"they reach from {low:g} to {high:g}, " if images.dtype.kind != "b" else ""
    return f"{reach}convert them by {known}.astype('uint8')"


def _cure(shape: tuple[int, ...]) -> str:
    """What to do about images of a shape that is refused."""
    if 0 in shape or len(shape) not in (3, 4):
        return "write some images"
    if len(shape) == 4 and shape[-1] not in (1, 3):
        if shape[1] in (1, 3):
            return "put the channels last, by images.transpose(0, 2, 3, 1)"
        if shape[-1] == 2:
            return "keep the grey, as images[..., :1]"
        return "keep the three of colour, as images[..., :3]"
    return "cut or resize them to squares first"


def _classes(
    path: Path, arrays: dict[str, np.ndarray], count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels [N], names of the classes) of a file; one class where it has no labels."""
    names = tuple(map(str, arrays[NAMES].reshape(-1))) if NAMES in arrays else ()
    if LABELS not in arrays:
        if len(names) > 1:
            raise UserError(f"{path} has {len(names)} `{NAMES}` and no `{LABELS}`: add them")
        return np.zeros(count, np.int32), names or ("images",)
    labels = arrays[LABELS]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path}: `{LABELS}` is {labels.dtype} {str(list(labels.shape))[:_CUT]}, and there are "
            f"{count:,} images: write one integer for each"
        )
    if labels.min() < 0 or labels.max() >= 2**31 - 1:
        raise UserError(
            f"{path}: `{LABELS}` range from {labels.min()} to {labels.max()}: write 0 to K - 1"
        )
    return labels, names or tuple(str(i) for i in range(int(labels.max()) + 1))


def _named(arrays: dict[str, np.ndarray]) -> str:
    if not arrays:
        return "it is empty"
    return "its arrays: " + ", ".join(f"{name[:_CUT]}" for name in sorted(arrays)[:6])
