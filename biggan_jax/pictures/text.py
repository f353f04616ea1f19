"""Text in pictures: labels of any script, shortened so that a picture keeps its shape."""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont, features

SHIPPED = "fonts/ttf/DejaVuSans.ttf"  # of matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew
# Names of fonts with the scripts that it lacks, where the system has one of them.
WIDE = ("CJK", "Noto Sans", "Droid Sans Fallback", "WenQuanYi", "Unifont", "Arial Unicode",
        "PingFang", "Hiragino", "YaHei", "SimSun", "Malgun", "MS Gothic")  # fmt: skip
EAST_ASIAN = (["CJK"], ["HIRAGANA"], ["KATAKANA"], ["HANGUL"], ["BOPOMOFO"])  # names begin so
ELLIPSIS = "\u2026"
BREAKS = "/-_"  # a line may end behind them
ARROW, COLON = " \u2192 ", ": "
JOINTS = (ARROW, COLON)  # between two parts of a label, each of which is shortened by itself
MOST_FONTS = 500  # that are opened for a letter which no other has
# Unicode categories of what a name does without: symbols such as emoji, joiners, marks behind them.
ORNAMENTS = ("So", "Sk", "Cf", "Co", "Cn", "Mn")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A label as it is drawn.

    Attributes:
      lines: texts from top to bottom.
      font: of all of them.
      direction: 'ltr' where parts of any script stand from left to right (`JOINTS`).
    """

    lines: tuple[str, ...]
    font: ImageFont.FreeTypeFont | None
    direction: str | None = None

    @property
    def width(self) -> float:
        """Of the longest line, px."""
        return max((self.font.getlength(line) for line in self.lines), default=0.0)

    def is_whole(self, label: str) -> bool:
        """Whether the lines are all of a label (or what is drawn of it), torn only where it may be.

        Args:
          label: from which they were made.
        """
        rest = known_part(label) or " ".join(self.lines)
        for line in self.lines[:-1]:
            rest = rest.strip()
            if not rest.startswith(line) or not (line[-1] in BREAKS or rest[len(line)] == " "):
                return False
            rest = rest[len(line) :]
        return not self.lines or rest.strip() == self.lines[-1]


def drawn(
    labels: Sequence[str],
    size: int,
    width: float,
    fallbacks: Sequence[str] | None = None,
    *,
    lines: int = 1,
) -> list[Drawn]:
    """Makes labels that can be drawn, each with a font that has its letters.

    Args:
      labels: texts in any script.
      size: of the fonts, px.
      width: px that a line may take.
      fallbacks: what is written in the place of a label that no font at hand can draw; '#i' for
        label i where absent.
      lines: that a label may take; one that needs more loses its middle to an ellipsis.
    """
    found = []
    for i, label in enumerate(map(_line, labels)):
        known = known_part(label)
        if known is None:
            known = f"#{i}" if fallbacks is None else fallbacks[i]
        plain = ImageFont.load_default(size=size)
        font = plain if known.isascii() else ImageFont.truetype(_path_for(known), size)
        joined = font is not plain and any(joint in known for joint in JOINTS)
        direction = "ltr" if joined and features.check("raqm") else None
        found.append(Drawn(tuple(_wrapped(known, font, width, lines)), font, direction))
    return found


def known_part(label: str) -> str | None:
    """What a font at hand can draw of a label: all, or all but emoji; None without its letters.

    Args:
      label: a text in any script.
    """
    label = _line(label)
    if label.isascii() or _is_drawable(label, _characters(_path_for(label))):
        return label
    bare = "".join(c for c in label if unicodedata.category(c) not in ORNAMENTS or c.isascii())
    bare = " ".join(bare.split())
    if any(c.isalnum() for c in bare) and bare != label:
        return bare if bare.isascii() or _is_drawable(bare, _characters(_path_for(bare))) else None
    return None


def advice(labels: Sequence[str]) -> str:
    """What to do about labels that no font at hand can draw.

    Args:
      labels: of which `known_part` is None.
    """
    letters = {c for label in labels for c in label if unicodedata.category(c)[0] in "LN"}
    unknown = [c for c in sorted(letters) if not _is_drawable(c, _characters(_path_for(c)))]
    if not unknown:
        return "emoji alone are not drawn"
    wide = any(unicodedata.name(c, "").split()[0:1] in EAST_ASIAN for c in unknown)
    package = "fonts-noto-cjk" if wide else "fonts-noto-core"
    return f"install a font that has them, such as Debian's {package}"


def _wrapped(label: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Lines of a label, broken between words, or inside one that is longer than a line."""
    done, rest = [], label.strip()
    while rest and len(done) < lines - 1 and font.getlength(rest) > width:
        fits = len(rest)
        while fits > 1 and font.getlength(rest[:fits]) > width:
            fits -= 1
        breaks = [rest.rfind(" ", 1, fits + 1), *(rest.rfind(c, 1, fits) + 1 for c in BREAKS)]
        cut = max(breaks) if max(breaks) > 0 else fits
        done.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*done, _shortened(rest, font, width)] if rest else done


def fitted(
    labels: Sequence[str], size: int, width: float, fallbacks: Sequence[str] | None = None
) -> tuple[list[str], ImageFont.FreeTypeFont]:
    """Makes labels that can be drawn, and finds the font to draw them in.

    Args:
      labels: texts in any script.
      size: of the font, px.
      width: px that a label may take; a longer one loses its middle to an ellipsis.
      fallbacks: what is written in the place of a label that no font at hand can draw; '#i' for
        label i where absent.

    Returns:
      (labels, font).
    """
    labels = [_line(label) for label in labels]
    plain = ImageFont.load_default(size=size)
    if all(label.isascii() and plain.getlength(label) <= width for label in labels):
        return labels, plain
    path = _path_for("".join(labels))
    known = _characters(path)
    drawn = []
    for i, label in enumerate(labels):
        other = f"#{i}" if fallbacks is None else fallbacks[i]
        drawn.append(label if _is_drawable(label, known) else other)
    font = ImageFont.truetype(path, size)
    return [_shortened(label, font, width) for label in drawn], font


def _line(text: str) -> str:
    """A text on one line, its accents composed: a layout engine may not place them."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() else " " for c in text)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The longest head and tail that fit: names that begin alike still differ at their ends."""
    if font.getlength(text) <= width:
        return text
    for joint in JOINTS:
        one, found, other = text.partition(joint)
        if found and one and other:
            room = width - font.getlength(joint)
            first = min(font.getlength(one), max(room / 2, room - font.getlength(other)))
            return _shortened(one, font, first) + joint + _shortened(other, font, room - first)
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 3
        short = text[: kept - tail].rstrip() + ELLIPSIS + (text[-tail:].lstrip() if tail else "")
        if font.getlength(short) <= width:
            return short
    return ELLIPSIS


def _is_drawable(text: str, known: frozenset[int]) -> bool:
    # Without this engine letters that run from the right stand in the wrong order and form.
    from_right = any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)
    return (features.check("raqm") or not from_right) and all(ord(c) in known for c in text)


def _path_for(text: str) -> str:
    """The font file that has most of a text: matplotlib's own, else one of the system."""
    import matplotlib

    own = str(Path(matplotlib.get_data_path()) / SHIPPED)
    needed = frozenset(map(ord, text))
    return own if needed <= _characters(own) else _most_of(needed, own)


@functools.lru_cache(maxsize=4096)  # the same labels are drawn many times
def _most_of(needed: frozenset[int], own: str) -> str:
    """The first font of the system that has all of these letters, else the one with most."""
    best = own
    for path in _system_fonts():
        if needed <= _characters(path):
            return path
        best = max(best, path, key=lambda one: len(needed & _characters(one)))
    return best


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    """Upright ones, those of `WIDE` and of usual weight first.

    Of matplotlib's own files some have other glyphs at the code points of letters, or boxes.
    """
    import matplotlib
    from matplotlib import font_manager

    own = matplotlib.get_data_path()
    found = {e.fname: e for e in font_manager.fontManager.ttflist if e.style == "normal"}
    found = {path: e for path, e in found.items() if not path.startswith(own)}

    def rank(path: str) -> tuple[int, bool]:
        named = (i for i, part in enumerate(WIDE) if part in found[path].name)
        return next(named, len(WIDE)), found[path].weight not in (400, "normal", "regular")

    return tuple(sorted(found, key=rank)[:MOST_FONTS])


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font file has glyphs for."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
