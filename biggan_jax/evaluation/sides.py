"""The two sides of `biggan score`: what a text names, how large its images are, its features."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from biggan_jax import data
from biggan_jax.config.domains import LARGEST_SIDE
from biggan_jax.data import kinds, record_info, records, survey
from biggan_jax.errors import UserError
from biggan_jax.metrics import moments
from biggan_jax.storage import directory, hub, json_file, published

_PROBE = 32  # pixels at which a source is opened to be looked at
_PICKLES = (".pt", ".pth", ".pkl", ".pickle")


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    Attributes:
      name: REAL or FAKE, for messages.
      text: as the user wrote it.
      statistics: the file, where it is one of a mean and a covariance.
      spec: of the images otherwise.
      resolution: of its images where all that were looked at are squares of one size, in pixels.
      sizes: some of the sizes otherwise, for messages.
      channels: 1 where all that were looked at are grey, otherwise 3.
    """

    name: str
    text: str
    statistics: Path | None = None
    spec: str | None = None
    resolution: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    channels: int = 3


def look(name: str, text: str, on_bad_record: str) -> Side:
    """Finds out what a text names.

    Args:
      name: REAL or FAKE, for messages.
      text: KIND:ARGUMENT, a folder of images or of class folders, a folder of prepared records, an
        `.npz` of images or one of statistics.
      on_bad_record: `error` or `skip`.

    Returns:
      The side; no image but a few is looked at.

    Raises:
      UserError: it names nothing that has features.
    """
    path = Path(os.path.expanduser(text))
    names = _arrays(path) if path.suffix == ".npz" and path.is_file() else ()
    if "feats" in names and "images" not in names:
        raise UserError(
            f"{name} {text} holds features, which clean-fid keeps for KID: give its statistics "
            "(mu, sigma), which lie beside them under the name without _kid, or images"
        )
    if "mu" in names and "images" not in names:
        moments.load(path)  # what is wrong with it is said before anything is fitted or measured
        return Side(name, text, statistics=path)
    spec = _spec(name, text, path)
    size = records.size_of(spec)
    probe = {"resolution": _PROBE, "channels": 3} | size
    source = data.open_source(spec, **probe, on_bad_record=on_bad_record, option=name)
    if size:
        return Side(name, text, spec=spec, **size)
    found = survey.headers(source)
    sizes = tuple(dict.fromkeys(map(tuple, found.sizes.tolist())))
    square = len(sizes) == 1 and sizes[0][0] == sizes[0][1]
    resolution = sizes[0][0] if square else None
    grey = getattr(source, "depth", 3) == 1 if found.grey is None else found.grey
    return Side(name, text, None, spec, resolution, sizes, 1 if grey else 3)


def common(
    sides: tuple[Side, Side], resolution: int | None, channels: int | None
) -> tuple[int, int]:
    """The size and the channels at which two sides are compared.

    Args:
      sides: of images; those of statistics have no say.
      resolution: what the user asked for.
      channels: the same.

    Returns:
      (side of the images in pixels, 1 or 3).

    Raises:
      UserError: they differ, or one of them has images of several sizes, and nothing was asked for.
    """
    if resolution is not None and not 1 <= resolution <= LARGEST_SIDE:
        raise UserError(f"--resolution is {resolution}; set it to 1 to {LARGEST_SIDE:,} pixels")
    with_images = [side for side in sides if side.spec is not None]
    own = {side.resolution for side in with_images}
    if resolution is None:
        if len(own) > 1 or None in own:
            texts = " and ".join(_sized(side) for side in with_images)
            least = min((size for size in own if size), default=None) or _shortest(with_images)
            raise UserError(
                f"{texts}: give the size at which they are compared, as --resolution {least}"
            )
        (resolution,) = own
    if channels is None:
        depths = {side.channels for side in with_images}
        if len(depths) > 1:
            words = {1: "grey", 3: "in colour"}
            texts = " and ".join(f"{s.name} is {words[s.channels]}" for s in with_images)
            raise UserError(f"{texts}: give --channels 3, or 1 to make both grey")
        (channels,) = depths
    return resolution, channels


def open_images(
    side: Side, resolution: int, channels: int, on_bad_record: str
) -> tuple[data.Source, str]:
    """(source, digest) of a side that has images; UserError where it has too few."""
    settings = {"resolution": resolution, "channels": channels, "on_bad_record": on_bad_record}
    source = data.open_source(side.spec, **settings, option=side.name)
    if len(source) < 2:
        raise UserError(f"{side.name} has 1 image, and a covariance needs at least 2: give more")
    return source, source.digest()


def _arrays(path: Path) -> list[str]:
    """Names of the arrays of an `.npz`; none of a damaged one, which is left to its reader."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return list(file.files)
    except Exception:  # zipfile, zlib and numpy raise a dozen kinds
        return []


def _spec(name: str, text: str, path: Path) -> str:
    """The spec that a text means: itself, or a path with its kind."""
    if text.partition(":")[0] in kinds.KINDS:
        return text
    if not text.strip():
        raise UserError(f"{name} is empty; write {kinds.forms()}, or an .npz of statistics")
    if hub.is_address(text) or _is_model(path) or _is_demo(text):
        raise UserError(
            f"{name} {text} is a trained model: score it by `biggan evaluate --from {text}`, or "
            f"write its samples by `biggan sample --from {text} --out F.npz`"
        )
    if path.is_file():
        if path.suffix in _PICKLES:
            raise UserError(
                f"{name} {text} is a pickle, which can run code and is not read: write the mean "
                "and covariance that it holds by numpy.savez('F.npz', mu=..., sigma=...)"
            )
        if path.suffix != ".npz":
            raise UserError(f"{name} {text} is a file, and no .npz; write {kinds.forms()}")
        return f"arrays:{text}"
    if not path.is_dir():
        raise UserError(
            f"{name} {text}: no such file or folder; write {kinds.forms()}, or an .npz of "
            "statistics"
        )
    if (path / record_info.INFO_FILE).is_file():
        return f"records:{text}"
    if list(path.glob("*-images-idx3-ubyte*")):
        return f"fashion_mnist:{text}"
    inside = sorted(path.iterdir())
    folders = any(each.is_dir() and not each.name.startswith(".") for each in inside)
    return f"folder:{text}" if folders else f"images:{text}"


def _is_model(path: Path) -> bool:
    """Whether a folder is one of weights; pictures may lie beside the config.json of others."""
    try:
        return directory.is_ours(json_file.read(path / "config.json"))
    except UserError:  # damaged, which whoever opens the model says better
        return True
    except OSError:
        return False


def _is_demo(text: str) -> bool:
    return text == published.DEMO and published.local(text) != text


def _sized(side: Side) -> str:
    if side.resolution is not None:
        return f"{side.name} has {side.resolution} x {side.resolution} pixels"
    sizes = [f"{w} x {h}" for w, h in side.sizes[:3]]
    if not sizes:
        return f"{side.name} has images of unknown size"
    more = " and others" if len(side.sizes) > len(sizes) else ""
    return f"{side.name} has images of {', '.join(sizes)}{more} pixels"


def _shortest(sides: list[Side]) -> int:
    return min((min(size) for side in sides for size in side.sizes), default=_PROBE)


def load_statistics(side: Side, features: str | None) -> moments.Statistics:
    """The statistics of a side that has some; UserError where they are of other features."""
    found = moments.load(side.statistics)
    held = found.protocol.get("features")
    if None not in (features, held) and features != held:
        raise UserError(
            f"{side.name} is statistics of {held} features: leave out --features {features}, or "
            "give images"
        )
    return found
