"""Sheets of any width, labels in any script, and moving pictures."""

import io
import types

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from biggan_jax.errors import UserError
from biggan_jax.pictures import formats, sheet, size, text


def page(rows=2, across=3, side=8, **more):
    images = np.arange(rows * across, dtype=np.uint8).reshape(rows, across, 1, 1, 1) * 20
    return sheet.Sheet(np.broadcast_to(images, (rows, across, side, side, 1)), **more)


@pytest.mark.parametrize("width", [None, 120, 390, 1001])
@pytest.mark.parametrize("dpi", [72, 300])
def test_width_is_met_and_nothing_overlaps(width, dpi):
    labels = ["cat", "a name of forty characters, which is long"]
    shown, asked = page(row_labels=labels, columns=list("abc")), size.Size(dpi, width)
    drawn, plan = sheet.draw(shown, asked), sheet._plan(shown, asked)
    if width is not None:
        assert drawn.width == width
    pixels = np.asarray(drawn.convert("L"))
    # The images of the last row are whole, with gaps between them.
    for back, value in enumerate((100, 80, 60)):
        right = drawn.width - plan.gap - back * (plan.side + plan.gap)
        cell = pixels[-plan.gap - plan.side : -plan.gap, right - plan.side : right]
        assert cell.shape == (plan.side, plan.side) and (cell == value).all()
        assert (pixels[-plan.gap - plan.side :, right : right + plan.gap] == 255).all()
    if not plan.above:  # names end before the images begin
        assert (pixels[:, plan.left - 1 : plan.left + 1] == 255).all()
    assert (pixels[-1] == 255).all() and (pixels[:, -1] == 255).all()


def test_letters_grow_with_dpi_and_natural_pictures_too():
    small, large = (sheet.draw(page(), size.Size(dpi)) for dpi in (110, 220))
    assert large.width == pytest.approx(2 * small.width, abs=4)
    assert size.Size(300).letters == 38 and size.Size(36).letters == 9


@pytest.mark.parametrize(
    ("width", "dpi", "pixels"),
    [("390px", None, 390), ("390", 300, 390), ("6.5in", 300, 1950), ("2.54cm", 200, 200),
     ("25.4 mm", 200, 200), (None, 100, None)],
)  # fmt: skip
def test_widths(width, dpi, pixels):
    assert size.parse(width, dpi).width == pixels


def test_too_large_and_too_narrow():
    with pytest.raises(UserError, match="ask for 1?[0-9]{3} pixels at least"):
        sheet.draw(page(across=40), size.Size(110, 200))
    with pytest.raises(UserError, match="250,000,000 is the most"):
        sheet.draw(page(across=1, rows=200), size.Size(110, 16_000))


def test_enlarged_images_keep_their_mean():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for side in (16, 24, 48, 50):
        drawn = np.asarray(sheet.enlarged(image, side))
        assert drawn.shape == (side, side, 3)
        assert drawn.mean() == pytest.approx(image.mean(), abs=1)
    np.testing.assert_array_equal(
        np.asarray(sheet.enlarged(image, 48)), image.repeat(3, 0).repeat(3, 1)
    )


def test_labels_wrap_and_keep_their_ends():
    long = "a name of forty characters, all of them!"
    one = text.drawn([long], 14, 120)[0]
    assert len(one.lines) == 1 and text.ELLIPSIS in one.lines[0] and one.width <= 120
    assert one.lines[0].startswith("a name") and one.lines[0].endswith("!")
    three = text.drawn([long], 14, 120, lines=3)[0]
    assert 2 <= len(three.lines) <= 3 and three.width <= 120
    assert " ".join(three.lines) == long


def test_every_label_has_a_font_of_its_own():
    lacking = "\U000120d0"  # cuneiform
    labels = ["cat", "кошка", "قطة", "\U0001f431 cat", lacking]
    drawn = text.drawn(labels, 14, 500, [f"class {i}" for i in range(5)])
    words = [d.lines[0] for d in drawn]
    assert words[:2] == ["cat", "кошка"] and words[3].endswith("cat") and words[4] == "class 4"
    assert words[2] in ("قطة", "class 2")  # where there is no engine that joins Arabic letters
    for d in drawn:
        assert d.font.getmask(d.lines[0]).getbbox() is not None


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_moving(suffix, mode):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(3):
        pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
        pixels = pixels[..., :1].repeat(3, -1) if mode == "grey" else pixels
        frames.append(Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST))
    data = formats.animate(frames, f"x{suffix}", [100, 100, 400])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.n_frames == 3 and picture.size == (48, 48)
        for i, frame in enumerate(frames):
            picture.seek(i)
            got = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(got - np.asarray(frame)).mean() < 12


def test_headings_of_narrow_columns_are_turned():
    """All of them, from the bottom to the top; those that fit stay as they are."""

    def height(name):
        columns = [name, *"1234567"]
        return sheet.draw(page(across=8, columns=columns), size.Size(width=390)).height

    letters = size.SCREEN.letters
    level, line = height("Dress"), round(letters * sheet.LINE)
    assert height("Big boot") == level + line  # in two lines, torn at the space
    for name in ("Pullover", "Sweatshirts", "one two three"):
        assert level + line < height(name), name
    assert (
        height("a name of forty characters, which is long") < level + sheet.MOST_HEADING * letters
    )
    plan = sheet._Plan(width=390, side=40, left=0, gap=3, above=False)
    (fits,), (torn,) = (sheet._headings([name], letters, plan) for name in ("Dress", "Pullover"))
    assert fits.width > fits.height and torn.height > torn.width
    level = sheet._heading(text.drawn(["Pullover"], letters, 99)[0], line, turned=False)
    back = np.asarray(torn.transpose(Image.Transpose.ROTATE_270))
    rows = [(pixels.min(axis=2) < 128).sum(axis=1) for pixels in (np.asarray(level), back)]
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize(
    ("label", "width", "whole"),
    [
        ("Trouser", 99, True),
        ("Trouser", 20, False),
        ("Ankle boot", 45, True),
        ("Ankle boot", 15, False),
        ("T-shirt/top", 50, True),
        ("one two three four five", 40, False),
        ("", 20, True),
        ("猫" * 9, 20, True),  # no letter of it can be drawn: '#0' stands there
    ],
)
def test_labels_that_are_torn_or_shortened(label, width, whole):
    assert text.drawn([label], 14, width, lines=2)[0].is_whole(label) == whole


LONG = "a name of forty characters, all of them!"


@pytest.mark.parametrize("joint", text.JOINTS)
@pytest.mark.parametrize(
    ("one", "other"), [(LONG, LONG), ("cat", LONG), (LONG, "block to 8 px"), ("кошка", "dog")]
)
def test_both_parts_of_a_label_are_shortened_and_not_what_joins_them(joint, one, other):
    (drawn,) = text.drawn([f"{one}{joint}{other}"], 14, 220)
    parts = drawn.lines[0].split(joint)
    assert drawn.width <= 220 and len(parts) == 2
    for part, whole in zip(parts, (one, other), strict=True):
        assert (part == whole) == (len(whole) < 20)
        assert (part[0], part[-1]) == (whole[0], whole[-1])


def test_the_first_part_of_a_label_stands_left_in_any_script():
    """Arabic alone begins at the right, and what follows it would stand at its left."""
    if not features.check("raqm"):
        pytest.skip("Pillow has no engine that joins Arabic letters")
    name, other = "قطة", "кошка"
    (drawn,) = text.drawn([f"{name}{text.ARROW}{other}"], 14, 500)
    paper = Image.new("RGB", (300, 20), "white")
    sheet._write(ImageDraw.Draw(paper), (0, 10), drawn, "lm", 17)
    alone = Image.new("RGB", (300, 20), "white")
    sheet._write(ImageDraw.Draw(alone), (0, 10), text.drawn([name], 14, 500)[0], "lm", 17)
    width = int(drawn.font.getlength(name)) - 1
    left = [np.asarray(picture)[:, :width] for picture in (paper, alone)]
    np.testing.assert_array_equal(*left)


def test_what_to_do_about_letters_that_no_font_has(monkeypatch):
    for letters, package in (
        ("北京", "fonts-noto-cjk"),
        ("한국", "cjk"),
        ("ไทย", "fonts-noto-core"),
    ):
        if text.known_part(letters) is None:
            assert package in text.advice(["cat", letters])
    assert text.advice(["\U0001fae8"]) == "emoji alone are not drawn"
    # Whatever font of the system has them, also behind eight others that rank before it.
    entry = types.SimpleNamespace(style="normal", weight=400)
    names = {**{f"/f/{i}": "Noto Sans Other" for i in range(20)}, "/f/thai": "Loma"}
    fonts = [types.SimpleNamespace(**vars(entry), fname=f, name=n) for f, n in names.items()]
    manager = types.SimpleNamespace(ttflist=fonts)
    known = lambda path: frozenset(map(ord, "ไทย")) if path == "/f/thai" else frozenset()
    for cached in (text._system_fonts, text._most_of):
        cached.cache_clear()
    try:
        monkeypatch.setattr("matplotlib.font_manager.fontManager", manager)
        monkeypatch.setattr(text, "_characters", known)
        assert text._path_for("ไทย") == "/f/thai"
    finally:
        for cached in (text._system_fonts, text._most_of):
            cached.cache_clear()


def test_white_images_have_a_frame():
    """Where one of them would be lost on the paper, all have it; their pixels stay."""
    images = np.full((1, 2, 8, 8, 3), 255, np.uint8)
    images[0, 1] = 7
    dark = np.full_like(images, 7)
    for rows, frame in ((images, sheet.FRAME[0]), (dark, 255)):
        shown = sheet.Sheet(rows)
        pixels, plan = np.asarray(sheet.draw(shown)), sheet._plan(shown, size.SCREEN)
        for left, value in ((plan.gap, rows[0, 0, 0, 0, 0]), (2 * plan.gap + plan.side, 7)):
            cell = pixels[-plan.gap - plan.side : -plan.gap, left : left + plan.side]
            assert cell.shape == (plan.side, plan.side, 3) and (cell == value).all()
            around = pixels[
                -plan.gap - plan.side - 1 : -plan.gap + 1, left - 1 : left + plan.side + 1
            ]
            edges = around[0], around[-1], around[:, 0], around[:, -1]
            assert all((edge == frame).all() for edge in edges)
