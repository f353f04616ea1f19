"""Samples as single files, `FOLDER/CLASS/00001.png`, written as they come."""

import concurrent.futures
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from biggan_jax.errors import UserError, some
from biggan_jax.pictures import grids
from biggan_jax.storage import paths

LONGEST = 120  # bytes of a folder's name; most file systems take 255
# What Windows, or a shell, takes for something else.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_folder(out: str) -> bool:
    """Whether `--out` means a folder: it ends in a slash, or there is one of this name."""
    return out.endswith(("/", "\\")) or paths.workdir_path(out).is_dir()


def check(folder: Path) -> None:
    """Raises UserError unless a folder is new or empty; hidden files do not count."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--out {folder}/ is a file: name a new or an empty folder")
    held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if held:
        raise UserError(
            f"--out {folder} is not empty ({some(held)}): name a new or an empty folder, or a file "
            "such as F.png or F.npz"
        )


def class_folders(ids: Iterable[int], names: Sequence[str], num_classes: int) -> dict[int, str]:
    """Names the folder of each class.

    Args:
      ids: the classes.
      names: one per class of the model; none where it does not know them.
      num_classes: of the model.

    Returns:
      {id: name}: names that every file system takes and tells apart, in any case of letters; the
      id, with leading zeros, where there is no name.
    """
    width, found, taken = len(str(num_classes - 1)), {}, set()
    for i in sorted(set(ids)):
        name = _safe(names[i]) if names else f"{i:0{width}}"
        if not name or name.casefold() in taken:
            name = f"{name}-{i:0{width}}".removeprefix("-")
        taken.add(name.casefold())
        found[i] = name
    return found


def write(
    folder: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]], names: dict[int, str]
) -> int:
    """Writes every sample of a stream.

    Args:
      folder: new or empty.
      batches: (images uint8 [N, H, W, C], labels [N]), each written before the next is made.
      names: of the folders of the classes.

    Returns:
      The number of samples.
    """
    counts = dict.fromkeys(names, 0)
    for name in names.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for images, labels in batches:
            files = []
            for label in labels.tolist():
                counts[label] += 1
                files.append(folder / names[label] / f"{counts[label]:05}.png")
            list(pool.map(_write_one, files, images))
    return sum(counts.values())


def _write_one(file: Path, image: np.ndarray) -> None:
    data = grids.png(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))
    # No fsync, which `paths.write_bytes` takes a disk's time for: it can be made again.
    file.write_bytes(data)


def _safe(name: str) -> str:
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", name))
    name = "".join(c if c.isprintable() else "_" for c in name)
    name = re.sub(r"^[. ]|[. ]$", "_", name.strip())
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    while len(name.encode()) > LONGEST:
        name = name[:-1]
    return name.strip()
