"""SAGAN's figure: images with query points, and what each point attends to.

Nothing here knows a model: images and attention maps come as plain arrays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from biggan_jax.errors import UserError
from biggan_jax.pictures import grids, sheet, text
from biggan_jax.pictures.size import DPI, SCREEN, Size, check_pixels

# Okabe and Ito's palette without black: told apart by colour-blind readers too. Ordered so that
# neighbours differ in lightness as well.
COLORS = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (213, 94, 0),  # vermilion
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
)
PAPER, INK = (255, 255, 255), (40, 40, 40)
CELL = 160  # px, the least side of a panel
BORDER, GAP, MARGIN = 6, 10, 12  # px
LEAST_FITTED = 24  # px that a panel must have in a width
DOT = 0.045  # radius of a dot over the side of a panel
SMOOTH = 4  # dots are drawn at this multiple of their size and averaged down
HEAT = "inferno"
FAINT = 0.35  # brightness of the image under a map


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Half the L1 distance of distributions over the last axis: 0 equal, 1 disjoint."""
    return 0.5 * np.abs(p - q).sum(-1)


def mean_distance(maps: np.ndarray) -> float:
    """Mean total variation distance over all pairs of maps.

    Args:
      maps: [P, K], each row a distribution.

    Returns:
      A number in [0, 1]; 0 when all are equal, or there is only one.
    """
    if len(maps) < 2:
        return 0.0
    pairs = [total_variation(maps[i + 1 :], maps[i]) for i in range(len(maps) - 1)]
    return float(np.concatenate(pairs).mean())


def choose_queries(maps: np.ndarray, count: int) -> list[int]:
    """Picks query points whose maps differ most, by farthest-point selection.

    The first is the least uniform map (of the least entropy); each further one has the largest
    distance from its nearest among those chosen. Points whose dots would overlap are left out while
    there are others.

    Args:
      maps: [Q, K] of one sample, queries of a square grid in row-major order.
      count: points to pick, at most Q.

    Returns:
      `count` different indices into Q.
    """
    side = grid_side(len(maps))
    place = np.stack(np.divmod(np.arange(len(maps)), side), -1)
    entropy = -(maps * np.log(np.maximum(maps, 1e-30))).sum(-1)
    chosen = [int(entropy.argmin())]
    nearest = np.full(len(maps), np.inf)
    clear = np.full(len(maps), np.inf)  # distance to the nearest dot, in query pixels
    while len(chosen) < count:
        last = chosen[-1]
        nearest = np.minimum(nearest, total_variation(maps, maps[last]))
        clear = np.minimum(clear, np.linalg.norm(place - place[last], axis=-1))
        # Beyond the ring around a dot as well; every free point where dots fill the image.
        apart = clear > 2.8 * DOT * side
        allowed = apart if apart.any() else clear > 0
        chosen.append(int(np.where(allowed, nearest, -1.0).argmax()))
    return chosen


def grid_side(count: int) -> int:
    """Side of the square grid of `count` queries or keys."""
    side = round(count**0.5)
    assert side * side == count, f"{count} is no square"
    return side


def draw(
    images: np.ndarray,
    queries: Sequence[Sequence[int]],
    maps: np.ndarray,
    row_labels: Sequence[str] | None = None,
    size: Size = SCREEN,
) -> Image.Image:
    """Draws a row for each image: the image with its dots, then a map for each dot.

    A map is black at 0 and brightest at its own largest value, so an even map is bright all over.

    Args:
      images: [N, S, S, 1 or 3], uint8 or floating in [-1, 1].
      queries: for each image P indices into Q, P at most 7.
      maps: [N, Q, K], queries and keys in row-major order.
      row_labels: one text a row; see `grids.grid`.
      size: of the picture; a width is met exactly.

    Returns:
      The picture, in mode 'RGB'.

    References:
      Zhang et al. 2019, "Self-Attention GANs", figure 5.
    """
    images = grids.to_uint8(images)
    columns = 1 + max(len(points) for points in queries)
    plan = _plan(images.shape[1], columns, row_labels, size)
    cell, gap, labels = plan.cell, plan.gap, plan.labels
    border = plan.border
    panel = cell + 2 * border
    # The image stands a little apart from its maps.
    x_of = [plan.left + c * (panel + gap) + (gap if c else 0) for c in range(columns + 1)]
    heading = round(1.3 * plan.letters) if plan.above and row_labels else 0
    y_of = [MARGIN + r * (panel + gap + heading) + heading for r in range(len(images) + 1)]
    height = y_of[-1] - gap - heading + MARGIN
    check_pixels(plan.width, height)
    paper = Image.new("RGB", (plan.width, height), PAPER)
    pen = ImageDraw.Draw(paper)
    for row, (image, points) in enumerate(zip(images, queries, strict=True)):
        y = y_of[row]
        if labels:
            at = (plan.left - gap, y + panel / 2)
            at = (MARGIN, y - heading / 2) if plan.above else at
            words, anchor = " ".join(labels[row].lines), "lm" if plan.above else "rm"
            pen.text(at, words, fill=INK, font=labels[row].font, anchor=anchor)
        centres = [_centre(q, grid_side(maps.shape[1]), cell) for q in points]
        picture = sheet.enlarged(image, cell)
        corner = (x_of[0] + border, y + border)
        paper.paste(picture, corner)
        for place, color in zip(centres, COLORS, strict=False):
            _dot(paper, corner, place, DOT * cell, color)
        for column, (query, place) in enumerate(zip(points, centres, strict=True)):
            x, color = x_of[column + 1], COLORS[column]
            pen.rectangle((x, y, x + panel - 1, y + panel - 1), fill=color)
            corner = (x + border, y + border)
            paper.paste(_heat(maps[row, query], picture), corner)
            _dot(paper, corner, place, DOT * cell, color)
    return paper


class _Plan(NamedTuple):
    """Lengths of the figure in px, and its labels; `above`: they stand above their rows."""

    width: int
    cell: int
    left: int
    gap: int
    border: int
    letters: int
    labels: list[text.Drawn]
    above: bool


def _plan(source: int, columns: int, row_labels, size: Size) -> _Plan:
    letters = 22 if size == SCREEN else size.letters
    factor = size.dpi / DPI if size.width is None else min(1.0, size.width / 1000)
    gap, border = max(3, round(GAP * factor)), max(2, round(BORDER * factor))
    around = 2 * MARGIN - gap + columns * (2 * border + gap) + (gap if columns > 1 else 0)

    def labelled(room: float) -> list[text.Drawn]:
        return text.drawn(row_labels or [], letters, room)

    labels = labelled(2 * CELL * factor if size.width is None else 0.25 * size.width)
    beside = round(max((d.width for d in labels), default=-gap)) + gap
    if size.width is None:
        cell = round(factor * source * max(1, -(-CELL // source)))
        width = MARGIN + beside + columns * (cell + 2 * border + gap) - gap + MARGIN
        width += gap if columns > 1 else 0
        return _Plan(width, cell, MARGIN + beside, gap, border, letters, labels, False)
    cell = (size.width - around - beside) // columns
    above = bool(labels) and cell < 5 * letters
    if above:
        labels, beside = labelled(size.width - 2 * MARGIN), 0
        cell = (size.width - around) // columns
    if cell < LEAST_FITTED:
        raise UserError(
            f"--width leaves {max(0, cell)} pixels for each of {columns} images in a row: ask for "
            f"{around + beside + columns * LEAST_FITTED} at least, or for fewer --num-points"
        )
    left = MARGIN + beside + (size.width - around - beside - columns * cell)
    return _Plan(size.width, cell, left, gap, border, letters, labels, above)


def _centre(query: int, side: int, cell: int) -> tuple[float, float]:
    """(x, y) in px of the middle of a query pixel."""
    row, column = divmod(query, side)
    return (column + 0.5) * cell / side, (row + 0.5) * cell / side


def _heat(weights: np.ndarray, picture: Image.Image) -> Image.Image:
    """A map [K], enlarged smoothly and coloured, with the image shining through faintly."""
    side = grid_side(len(weights))
    relative = (weights / weights.max()).reshape(side, side).astype(np.float32)
    # Bicubic: bilinear turns each key into a star.
    smooth = Image.fromarray(relative).resize(picture.size, Image.Resampling.BICUBIC)
    heat = matplotlib.colormaps[HEAT](np.clip(smooth, 0, 1))[..., :3]
    grey = np.asarray(picture.convert("L"))[..., None] / 255
    screen = 1 - (1 - heat) * (1 - FAINT * grey)
    return Image.fromarray(np.rint(screen * 255).astype(np.uint8))


def _dot(paper: Image.Image, corner, place, radius: float, color) -> None:
    """Draws a dot at `place` (x, y) from the `corner` of a panel.

    A white ring in a dark one: seen on black, on white and on its own colour.
    """
    centre = [c + p for c, p in zip(corner, place, strict=True)]
    reach = int(radius * 1.5) + 2
    start = [int(v) - reach for v in centre]
    side = 2 * reach
    patch = paper.crop((*start, start[0] + side, start[1] + side))
    patch = patch.resize((side * SMOOTH,) * 2, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(patch)
    x, y = ((v - s) * SMOOTH for v, s in zip(centre, start, strict=True))
    for scale, fill in ((1.45, INK), (1.3, PAPER), (1.0, color)):
        r = radius * scale * SMOOTH
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    paper.paste(patch.resize((side, side), Image.Resampling.BOX), tuple(start))
