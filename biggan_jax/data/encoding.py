"""How the image of a record is stored: raw pixels, lossless WebP or JPEG."""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, WebPImagePlugin

from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError, did_you_mean

FORMATS = ("raw", "webp", "jpeg")
QUALITY = 95  # of JPEG where nobody says; Pillow's scale of 1 to 100
# Colours at full resolution: halving them is what a generator would learn first of a JPEG.
_SUBSAMPLING = 0
_WEBP_EFFORT = 4  # Pillow's method of 0 to 6: 6 is 2% smaller and takes three times as long
LABEL_BYTES = 4  # little-endian int32 behind the image, in every encoding


class DamagedRecord(Exception):
    """The bytes of a record are no image of its size."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How images are stored.

    Attributes:
      format: one of `FORMATS`. WebP is lossless, so that its records hold the pixels of raw ones.
      quality: of JPEG, 1 to 100, `QUALITY` unless given; None elsewhere.
    """

    format: str = "raw"
    quality: int | None = None

    def __post_init__(self):
        if self.format == "jpeg" and self.quality is None:
            object.__setattr__(self, "quality", QUALITY)

    @property
    def is_lossless(self) -> bool:
        """Whether what is read is what was written."""
        return self.format != "jpeg"

    @property
    def info(self) -> dict[str, Any]:
        """What info.json says of it."""
        if self.format == "jpeg":
            return {"format": "jpeg", "quality": self.quality, "subsampling": "4:4:4"}
        return {"format": self.format}

    @classmethod
    def of_info(cls, info: dict[str, Any]) -> "Encoding":
        """That of an info.json; raw where it says nothing, UserError for one that is not known."""
        found = info.get("encoding", {"format": "raw"})
        name = found.get("format") if isinstance(found, dict) else None
        if name not in FORMATS:
            raise UserError(
                f"the records are encoded as {name!r}, and this program reads "
                f"{', '.join(FORMATS)}: run `biggan prepare` again, or install the version of "
                "biggan_jax that wrote them"
            )
        return cls(name, found.get("quality") if name == "jpeg" else None)

    def record(self, image: np.ndarray, label: int) -> bytes:
        """One image and its label as they are stored; arguments as of `encode`."""
        return self.encode(image) + int(label).to_bytes(LABEL_BYTES, "little", signed=True)

    def encode(self, image: np.ndarray) -> bytes:
        """The bytes of one image.

        Args:
          image: uint8 [resolution, resolution, channels], channels 1 or 3.

        Returns:
          Its pixels, or a file of the format.
        """
        if self.format == "raw":
            return image.tobytes()
        file = io.BytesIO()
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        if self.format == "webp":
            picture.save(file, "WEBP", lossless=True, quality=50, method=_WEBP_EFFORT, exact=True)
        else:
            picture.save(file, "JPEG", quality=self.quality, subsampling=_SUBSAMPLING)
        return file.getvalue()

    def decode(self, data: bytes | memoryview, out: np.ndarray) -> None:
        """Decodes one image.

        Args:
          data: what `encode` has made.
          out: uint8 [resolution, resolution, channels], which is filled.

        Raises:
          DamagedRecord: the bytes are no such image.
        """
        try:
            pixels = _DECODERS[self.format](data, out.shape)
        except (MemoryError, DamagedRecord):
            raise
        except Exception as error:  # decoders raise nearly every type on damaged bytes
            raise DamagedRecord(f"no {self.format} image: {one_line(error)}") from error
        if pixels.size != out.size or pixels.shape[:2] != out.shape[:2]:
            raise DamagedRecord(f"an image of {pixels.shape}, not {out.shape}")
        out[...] = pixels.reshape(out.shape)


def asked(format: str, quality: int | None) -> Encoding:
    """The encoding that a user asks for.

    Args:
      format: one of `FORMATS`.
      quality: of JPEG, `QUALITY` if absent.

    Returns:
      The encoding.

    Raises:
      UserError: an unknown format, a quality out of its range, or one of a lossless format.
    """
    if format not in FORMATS:
        raise UserError(
            f"--encode {format}{did_you_mean(format, FORMATS)}: choose one of {', '.join(FORMATS)}"
        )
    if format != "jpeg" and quality is not None:
        raise UserError(
            f"--quality {quality} is of JPEG, and {format} is lossless: add --encode jpeg, or "
            "leave --quality out"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise UserError(f"--quality is {quality}; set it to 1 to 100")
    return Encoding(format, quality)


def _of_raw(data: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(shape)


def _of_webp(data: Any, shape: tuple[int, ...]) -> np.ndarray:
    with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
        if shape[-1] == 1:  # a WebP has no grey: all three channels hold it
            return np.asarray(image)[..., :1]
        return np.asarray(image)


def _of_jpeg(data: Any, shape: tuple[int, ...]) -> np.ndarray:
    # Pillow's pixels with fewer copies.
    return simplejpeg.decode_jpeg(data, colorspace="GRAY" if shape[-1] == 1 else "RGB")


_DECODERS: dict[str, Callable[[Any, tuple[int, ...]], np.ndarray]] = {
    "raw": _of_raw,
    "webp": _of_webp,
    "jpeg": _of_jpeg,
}


def labels(records: Sequence[bytes]) -> np.ndarray:
    """The labels behind the images of some records, int32 [n]."""
    ends = b"".join(record[-LABEL_BYTES:] for record in records)
    return np.frombuffer(ends, "<i4").astype(np.int32)


class Decoder:
    """Decodes the images of records in threads; Pillow and simplejpeg release the interpreter lock.

    Args:
      encoding: of the records.
    """

    def __init__(self, encoding: Encoding):
        self._encoding = encoding
        self._workers = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")

    def __call__(self, records: Sequence[bytes], out: np.ndarray) -> int | None:
        """Decodes some records.

        Args:
          records: as `Encoding.record` makes them.
          out: uint8 [n, resolution, resolution, channels], which is filled.

        Returns:
          The position of the first that is damaged; None where none is.
        """
        # A few slices for each worker: a future for each image would cost as much as a small one.
        stride = max(1, -(-len(records) // (4 * self._workers)))
        starts = range(0, len(records), stride)

        def decode(start: int) -> int | None:
            for i in range(start, min(start + stride, len(records))):
                try:
                    self._encoding.decode(memoryview(records[i])[:-LABEL_BYTES], out[i])
                except DamagedRecord:
                    return i
            return None

        if len(starts) == 1:
            return decode(0)
        return next((i for i in self._pool.map(decode, starts) if i is not None), None)
