"""What the bytes of an unreadable image are, for a person who can see the file but not why."""

import struct

_LFS = b"version https://git-lfs.github.com/spec"
# What a file starts with -> what it is; the first that fits.
_OTHERS = (
    (_LFS, "a git-lfs pointer in the place of the picture: run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
)
# A box of type ftyp and one of these brands starts a HEIC picture; of others a video.
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG"),
    (b"\xff\xd8\xff", "a JPEG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
)
_SHOWN = 24  # characters of a text


def describe(data: bytes, reason: str) -> str:
    """Says why bytes are no readable image.

    Args:
      data: the whole file.
      reason: what the decoder said.

    Returns:
      One line, such as 'an HTML page' or 'a PNG, truncated at byte 70 of at least 120'.
    """
    if not data:
        return "the file is empty"
    if not any(data[:4096]):
        return f"only zeros in its first {min(len(data), 4096)} bytes"
    for start, what in _OTHERS:
        if data.startswith(start):
            return what
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        return _boxes(data)
    kind = _picture(data)
    if kind is not None:
        return f"{kind}{_truncated(data)}" if _truncated(data) else f"{kind}: {_clean(reason)}"
    return _text(data) or f"an unknown format, its first bytes are {data[:8].hex(' ')}"


def _boxes(data: bytes) -> str:
    if data[8:12] in _HEIC:
        return "a HEIC picture: `pip install pillow-heif`, or convert it to JPEG or PNG"
    return "a video"


def _picture(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    if data[4:8] == b"ftyp":
        return "an AVIF"
    return next((what for start, what in _PICTURES if data.startswith(start)), None)


def _clean(reason: str) -> str:
    """The decoder's words without the address in memory that Pillow puts into some of them."""
    return "damaged" if "cannot identify image file" in reason else reason


def _truncated(data: bytes) -> str:
    """', truncated at byte n of m' where the file says that it should be longer; '' otherwise."""
    if data.startswith(_PICTURES[0][0]):
        needed, exact = _png_end(data)
    elif data[:4] == b"RIFF" and len(data) >= 8:
        needed, exact = 8 + struct.unpack("<I", data[4:8])[0], True
    elif data.startswith(b"BM") and len(data) >= 6:
        needed, exact = struct.unpack("<I", data[2:6])[0], True
    elif data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" not in data[-1024:]:
        return f", truncated at byte {len(data)} (it has no end marker)"
    else:
        return ""
    if len(data) >= needed:
        return ""
    return f", truncated at byte {len(data)} of {'' if exact else 'at least '}{needed}"


def _png_end(data: bytes) -> tuple[int, bool]:
    """(where a PNG ends as far as its chunks tell, whether that is exact)."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if not kind.isalpha():
            return 0, False  # damaged, not cut short
        at += 12 + length
        if kind == b"IEND":
            return at, True
    return at + 12, False  # of IEND


def _text(data: bytes) -> str | None:
    """What a text is, or None where the bytes are none."""
    head = data[:512]
    try:
        text = head.decode("utf-8", "strict" if len(data) <= 512 else "ignore")
    except UnicodeDecodeError:
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html")) or "<html" in start:
        return "an HTML page, as a failed download leaves it"
    if "<svg" in start:
        return "an SVG drawing: convert it to PNG"
    if start.startswith("<?xml"):
        return "an XML document"
    if any(not c.isprintable() and c not in "\t\r\n\f\ufeff" for c in text):
        return None
    return f"a text that starts with {text.strip()[:_SHOWN]!r}"
