"""How large a picture is: on a phone in pixels, in a paper in inches and dots per inch."""

import dataclasses
import re

from PIL import Image

from biggan_jax.errors import UserError

DPI = 110  # of a screen
DPIS = 36, 2400
WIDTHS = 120, 16_000  # px
PIXELS = 250_000_000  # of one picture, at most
POINTS = 9  # of the letters, 1/72 inch
LEAST_LETTERS = 9  # px
UNITS = {"px": None, "in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}  # inches
_WIDTH = re.compile(r"([0-9]*\.?[0-9]+)\s*(px|in|cm|mm)?")


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of a picture.

    Attributes:
      dpi: dots per inch; letters, and pictures without a width, grow with it.
      width: px; None is what the contents ask for.
    """

    dpi: int = DPI
    width: int | None = None

    @property
    def letters(self) -> int:
        """Size of the font, px."""
        return max(LEAST_LETTERS, round(POINTS * self.dpi / 72))

    def scaled(self, pixels: float) -> int:
        """A length that is `pixels` on a screen, in px."""
        return max(1, round(pixels * self.dpi / DPI))

    def inches(self, natural: float) -> float:
        """Width in inches, `natural` where none was asked for."""
        return natural if self.width is None else self.width / self.dpi

    def fitted(self, picture: Image.Image) -> Image.Image:
        """A picture that knows no sizes, resampled to the width."""
        width = self.width or self.scaled(picture.width)
        if width == picture.width:
            return picture
        height = max(1, round(picture.height * width / picture.width))
        check_pixels(width, height)
        return picture.resize((width, height), Image.Resampling.LANCZOS)


SCREEN = Size()


def parse(width: str | None, dpi: int | None) -> Size:
    """The size that a user asks for.

    Args:
      width: '390px' (or '390'), '6.5in', '16cm' or '165mm'; None is what the contents ask for.
      dpi: dots per inch; None is that of a screen.

    Raises:
      UserError: one of them is no size, or out of range.
    """
    dpi = DPI if dpi is None else dpi
    if isinstance(dpi, bool) or not DPIS[0] <= dpi <= DPIS[1]:
        raise UserError(f"--dpi is {dpi}; it must be from {DPIS[0]} to {DPIS[1]} dots per inch")
    if width is None:
        return Size(dpi)
    found = _WIDTH.fullmatch(width.strip().lower())
    if found is None:
        raise UserError(
            f"--width {width!r} is no width: write pixels such as 390px, or 6.5in, 16cm or 165mm"
        )
    inches = UNITS[found[2] or "px"]
    pixels = round(float(found[1]) * (1 if inches is None else inches * dpi))
    if not WIDTHS[0] <= pixels <= WIDTHS[1]:
        at = "" if inches is None else f" at {dpi} dots per inch"
        raise UserError(
            f"--width {width} is {pixels:,} pixels{at}; it must be from {WIDTHS[0]} to "
            f"{WIDTHS[1]:,} pixels"
        )
    return Size(dpi, pixels)


def check_pixels(width: int, height: int) -> None:
    """Raises UserError for a picture that no program would open."""
    if width * height > PIXELS:
        raise UserError(
            f"the picture would have {width:,} x {height:,} pixels, and {PIXELS:,} is the most: "
            "ask for fewer samples, or a smaller picture"
        )
