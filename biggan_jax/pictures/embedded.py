"""Pictures inside a page, whatever the size of their files."""

import base64
import io
import warnings

from PIL import Image

SIDE = 960  # px of the longer side, at most
LIMIT = 170_000  # bytes of one, at most
LARGEST = 120_000_000  # px that are decoded: a grid of 10 x 10 images of 1,024 px
QUALITIES = (85, 70, 55, 40, 25)  # of JPEG, the first that is small enough


def data_uri(data: bytes) -> tuple[str, tuple[int, int]]:
    """Makes a picture small enough to stand inside a page.

    Args:
      data: a file that Pillow reads, such as a PNG.

    Returns:
      ('data:image/...;base64,...', (width, height)): a PNG where that is small enough, else a JPEG.

    Raises:
      ValueError: it is damaged or no picture, or too large to be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > LARGEST:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels")
            picture.verify()  # the checksums of a PNG, which loading it passes over
            picture = Image.open(io.BytesIO(data))
            picture.load()
    except ValueError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds at damage
        raise ValueError(f"it is no whole picture ({type(error).__name__})") from error
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    kind, content = "png", _encoded(picture, format="PNG")
    for quality in QUALITIES:
        if len(content) <= LIMIT:
            break
        kind, content = "jpeg", _encoded(picture, format="JPEG", quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}", picture.size


def _encoded(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()
