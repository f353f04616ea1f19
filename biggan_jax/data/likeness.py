"""Pictures that are in a data set twice: the same files, and pictures that look the same."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from biggan_jax.data.decoding import DecodingSource
from biggan_jax.data.files import shown
from biggan_jax.data.finding import Finding
from biggan_jax.data.images import BadImage
from biggan_jax.data.listing import counts
from biggan_jax.data.source import Source

SECONDS = 0.5  # for reading what the files that begin alike hold
SIDE = 16  # pixels of the thumbnails that are compared
BITS = 3  # of 64 in which the hashes of two pictures may differ
ALIKE = 6.0  # root mean square difference of two thumbnails, of 255
PLAIN = 8.0  # standard deviation of a thumbnail below which it shows nothing to compare

Pairs = list[tuple[int, int]]


def of_copies(source: DecodingSource, seconds: float) -> list[Finding]:
    """Finds files with the same contents, among those whose beginnings the digest has read.

    Args:
      source: the data.
      seconds: for reading the rest of files that begin alike.

    Returns:
      The findings.
    """
    pairs = source.copies(seconds)
    return _told(source, pairs, "a copy", "copies") if pairs else []


def of_likeness(
    source: DecodingSource,
    indices: Iterable[int],
    note_bad: Callable[[int, BadImage], None] = lambda index, problem: None,
) -> list[Finding]:
    """Finds pictures that look the same though their files differ.

    Two pictures look the same where their 64-bit difference hashes (signs of the differences of
    neighbouring pixels of an 9 x 8 thumbnail) agree in all but `BITS` bits and their thumbnails of
    `SIDE` pixels in all but `ALIKE` grey levels.

    Args:
      source: the data.
      indices: of the pictures to decode.
      note_bad: gets the index of each unreadable one, and what is wrong with it.

    Returns:
      The findings.
    """
    copied = {later for _, later in source.copies(SECONDS)}  # told by `of_copies`
    kept, thumbnails = [], []
    for part in _chunks(indices, 32):
        images, problems = source.read_unchecked(part)
        for position, (index, image) in enumerate(zip(part, images, strict=True)):
            if position in problems:
                note_bad(index, problems[position])
                continue
            small = thumbnail(image)
            if index not in copied and small.std() >= PLAIN:
                kept.append(index)
                thumbnails.append(small)
    pairs = [(kept[a], kept[b]) for a, b in alike(np.array(thumbnails))] if thumbnails else []
    return _told(source, pairs, "a near-duplicate", "near-duplicates") if pairs else []


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The grey values of a picture at `SIDE` pixels, float32 [SIDE, SIDE]."""
    grey = Image.fromarray(image.squeeze()).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def alike(thumbnails: np.ndarray) -> Pairs:
    """Pairs of thumbnails that look the same.

    Args:
      thumbnails: float32 [N, SIDE, SIDE].

    Returns:
      (earlier, later) positions; each later one once, with the first that it resembles.
    """
    hashes = np.array([_hash(image) for image in thumbnails], np.uint64)
    flat = thumbnails.reshape(len(thumbnails), -1)
    pairs = []
    for later in range(1, len(hashes)):
        near = np.bitwise_count(hashes[:later] ^ hashes[later]) <= BITS
        for earlier in np.flatnonzero(near).tolist():
            difference = flat[earlier] - flat[later]
            if float(np.sqrt(np.mean(difference**2))) < ALIKE:
                pairs.append((earlier, later))
                break
    return pairs


def _hash(image: np.ndarray) -> int:
    """The difference hash of a thumbnail: 8 rows of 8 signs."""
    small = Image.fromarray(image).resize((9, 8), Image.Resampling.BOX)
    signs = np.diff(np.asarray(small), axis=1) > 0
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def _told(source: Source, pairs: Pairs, one: str, many: str) -> list[Finding]:
    """What pairs of pictures are told as: those of two labels by themselves."""
    groups: dict[bool, Pairs] = defaultdict(list)
    for a, b in pairs:
        first, second = source.record(a), source.record(b)
        groups[first.label != second.label].append((a, b))
    found = []
    for crossed, group in sorted(groups.items(), reverse=True):
        first, second = (source.record(i) for i in group[0])
        number = counts(len(group), f"image is {one}", f"images are {many}")
        if crossed:
            names = [shown(source.class_names[record.label]) for record in (first, second)]
            what = f"{number} of an image of another class"
            remedy = f"such as {names[0]} and {names[1]}: keep each image in one class"
        else:
            what, remedy = f"{number} of another", "they are seen more often; remove them"
        found.append(Finding(what, f"{first.name} and {second.name}", remedy))
    return found


def _chunks(indices: Iterable[int], size: int) -> Iterator[list[int]]:
    part: list[int] = []
    for index in indices:
        part.append(index)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
