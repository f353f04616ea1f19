"""Sheets: rows of images with names beside them and headings above, at any width.

A wide sheet has the labels of its rows at their left, a narrow one above them, so that images stay
as large as a phone allows. Headings of columns that are too narrow for them run from bottom to top.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from biggan_jax.errors import UserError
from biggan_jax.pictures import grids, text
from biggan_jax.pictures.size import SCREEN, Size, check_pixels

PAPER, INK, FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
FRAME, PALE = (214, 214, 214), 240  # of all images where one would be lost on the paper
LEAST_SIDE = 56  # px that an image has at least, where no width was asked for
LEAST_FITTED = 12  # px that an image must have in a width
LABEL_SHARE = 0.3  # of the width that labels may take
MOST_WORDS = 120  # px of a caption or heading up to which images grow with it
NATURAL_LABEL = 190  # px that they may take where no width was asked for
NARROW = 3.2  # images of fewer letters' heights a side have their labels above them
MOST_LINES = 3  # of a label
MOST_HEADING = 9  # letters' heights that a heading from bottom to top may take
LINE = 1.25  # height of a line of text over that of the letters


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What a sheet shows.

    Attributes:
      rows: images of each row, [S, S, C] each, uint8 or floating in [-1, 1]; all of one size.
      row_labels: one text a row; None for none.
      columns: one heading a column; None for none.
      captions: one text an image, below it; None for none.
      title: one text above all.
    """

    rows: Sequence[Sequence[np.ndarray]]
    row_labels: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    captions: Sequence[Sequence[str]] | None = None
    title: str | None = None


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Lengths of a sheet in px; `above`: labels stand above their rows."""

    width: int
    side: int
    left: int
    gap: int
    above: bool


def draw(sheet: Sheet, size: Size = SCREEN) -> Image.Image:
    """Draws a sheet.

    Args:
      sheet: what it shows, one image at least.
      size: of the picture; its width is met exactly.

    Returns:
      The picture, in mode 'RGB'.

    Raises:
      UserError: the width leaves too little for so many images, or the picture is too large.
    """
    font = size.letters
    plan = _plan(sheet, size)
    line, count = round(font * LINE), max(len(row) for row in sheet.rows)
    labels = _labels(sheet, font, plan)
    headings = _headings(sheet.columns or (), font, plan)
    captions = [_beside_images(row, font, plan) for row in sheet.captions or ()]
    title = text.drawn([sheet.title or ""], font, plan.width - 2 * plan.gap, lines=2)
    above = plan.gap  # the headings begin there
    above += line * len(title[0].lines) + plan.gap if sheet.title else 0
    high = max((heading.height for heading in headings), default=0)
    tops, y = [], above + (high + plan.gap if headings else 0)
    below = line * max(map(_most_lines, captions), default=0)
    for drawn in labels:
        y += line * len(drawn.lines) + plan.gap // 2 if plan.above and drawn.lines else 0
        tops.append(y)
        y += plan.side + below + plan.gap
    check_pixels(plan.width, y)
    paper = Image.new("RGB", (plan.width, y), PAPER)
    pen = ImageDraw.Draw(paper)
    framed = any(_is_lost_on_paper(image) for row in sheet.rows for image in row)
    lefts = [plan.left + plan.gap + c * (plan.side + plan.gap) for c in range(count)]
    _write(pen, (plan.width / 2, plan.gap + line / 2), title[0], "mm", line, first=True)
    for x, heading in zip(lefts, headings, strict=False):  # they end above the images
        paper.paste(heading, (x + (plan.side - heading.width) // 2, above + high - heading.height))
    for r, (row, top, drawn) in enumerate(zip(sheet.rows, tops, labels, strict=True)):
        if plan.above:
            at = plan.gap, top - plan.gap // 2 - line * (len(drawn.lines) - 0.5)
            _write(pen, at, drawn, "lm", line, first=True)
        else:
            _write(pen, (plan.left - plan.gap / 2, top + plan.side / 2), drawn, "rm", line)
        for c, image in enumerate(row):
            paper.paste(enlarged(image, plan.side), (lefts[c], top))
            if framed:
                corner = lefts[c] + plan.side, top + plan.side
                pen.rectangle((lefts[c] - 1, top - 1, *corner), outline=FRAME)
            if captions:
                at = lefts[c] + plan.side / 2, top + plan.side + line / 2
                _write(pen, at, captions[r][c], "mm", line, first=True, fill=FAINT)
    return paper


def enlarged(image: np.ndarray, side: int) -> Image.Image:
    """An image at another size, in mode 'RGB': its pixels stay squares where it grows.

    Args:
      image: [S, S, 1 or 3], uint8 or floating in [-1, 1].
      side: px.
    """
    image = grids.to_uint8(image)
    factor = -(-side // len(image))
    if factor > 1:
        image = image.repeat(factor, 0).repeat(factor, 1)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    if picture.width == side:
        return picture
    # Areas of the squares; smooth where many pixels become one.
    how = Image.Resampling.BOX if factor > 1 else Image.Resampling.LANCZOS
    return picture.resize((side, side), how)


def _is_lost_on_paper(image: np.ndarray) -> bool:
    """Whether most of an image's edge is white, so that nobody sees where it ends."""
    pixels = grids.to_uint8(image).min(axis=-1)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((edge >= PALE).mean() > 0.5)


def _plan(sheet: Sheet, size: Size) -> _Plan:
    count, source = max(len(row) for row in sheet.rows), len(sheet.rows[0][0])
    gap = size.scaled(5)
    labelled = any(sheet.row_labels or ())
    if size.width is None:
        words = [*(sheet.columns or ()), *(w for row in sheet.captions or () for w in row)]
        needed = max((d.width for d in text.drawn(words, SCREEN.letters, MOST_WORDS)), default=0)
        side = size.scaled(source * -(-max(LEAST_SIDE, int(needed) - 4) // source))
        room = size.scaled(NATURAL_LABEL)
        left = _label_width(sheet, size.letters, room, side) + gap if labelled else 0
        return _Plan(left + gap + count * (side + gap), side, left, gap, above=False)
    gap = min(gap, max(1, size.width // (12 * count)))

    def side_beside(left: int) -> int:
        return (size.width - left - gap) // count - gap

    left = 0
    if labelled:
        room = int(LABEL_SHARE * size.width)
        left = _label_width(sheet, size.letters, room, side_beside(room)) + 2 * gap
    above = labelled and side_beside(left) < NARROW * size.letters
    left = 0 if above else left
    side = side_beside(left)
    if side < LEAST_FITTED:
        needed = left + gap + count * (LEAST_FITTED + gap)
        raise UserError(
            f"--width leaves {max(side, 0)} pixels for each of {count} images in a row: ask for "
            f"{needed} pixels at least, or for fewer images"
        )
    # What the whole pixels of the images leave over stands at the left.
    left += size.width - (left + gap + count * (side + gap))
    return _Plan(size.width, side, left, gap, above)


def _label_width(sheet: Sheet, font: int, room: int, side: int) -> int:
    lines = max(1, min(MOST_LINES, int(side / (font * LINE))))
    drawn = text.drawn(sheet.row_labels, font, room, lines=lines)
    return -(-max(int(d.width) for d in drawn) // 1) + 1


def _labels(sheet: Sheet, font: int, plan: _Plan) -> list[text.Drawn]:
    if not any(sheet.row_labels or ()):
        return [text.Drawn((), None)] * len(sheet.rows)
    room = plan.width - 2 * plan.gap if plan.above else plan.left - plan.gap
    lines = 1 if plan.above else max(1, min(MOST_LINES, int(plan.side / (font * LINE))))
    return text.drawn(sheet.row_labels, font, room, lines=lines)


def _beside_images(words: Sequence[str], font: int, plan: _Plan) -> list[text.Drawn]:
    """Headings and captions, at most two lines as wide as an image."""
    return text.drawn(words, font, plan.side + plan.gap - 2, lines=2)


def _headings(words: Sequence[str], font: int, plan: _Plan) -> list[Image.Image]:
    """Pictures of the headings: all of them from bottom to top where one would be torn."""
    line = round(font * LINE)
    drawn = _beside_images(words, font, plan)
    turned = not all(d.is_whole(word) for d, word in zip(drawn, words, strict=True))
    if turned:
        lines = max(1, min(MOST_LINES, plan.side // line))
        drawn = text.drawn(words, font, MOST_HEADING * font, lines=lines)
    return [_heading(one, line, turned) for one in drawn]


def _heading(drawn: text.Drawn, line: int, turned: bool) -> Image.Image:
    size = math.ceil(drawn.width) + 2, line * max(1, len(drawn.lines))
    picture = Image.new("RGB", size, PAPER)
    at, anchor = ((0, line / 2), "lm") if turned else ((size[0] / 2, line / 2), "mm")
    _write(ImageDraw.Draw(picture), at, drawn, anchor, line, first=True)
    return picture.transpose(Image.Transpose.ROTATE_90) if turned else picture


def _most_lines(drawn: Sequence[text.Drawn]) -> int:
    return max((len(d.lines) for d in drawn), default=0)


def _write(pen, at, drawn: text.Drawn, anchor: str, line: int, first=False, fill=INK) -> None:
    """Writes lines around a point, or from it downwards."""
    x, y = at
    y -= 0 if first else line * (len(drawn.lines) - 1) / 2
    for i, words in enumerate(drawn.lines):
        how = {"fill": fill, "font": drawn.font, "direction": drawn.direction}
        pen.text((x, y + i * line), words, anchor=anchor, **how)
