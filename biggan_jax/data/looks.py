"""What a look at the pictures of a sample finds: sizes, colours, and pictures that are there twice.

Headers are read and few pictures decoded, so that the start of a training is not delayed.
"""

import time
from collections.abc import Iterator

import numpy as np

from biggan_jax.data.decoding import DecodingSource
from biggan_jax.data.files import shown
from biggan_jax.data.finding import Finding
from biggan_jax.data.images import BadImage, header
from biggan_jax.data.likeness import of_copies, of_likeness
from biggan_jax.data.listing import counts
from biggan_jax.data.source import Source
from biggan_jax.errors import some

SAMPLE = 512  # pictures whose headers are read
THOROUGH = 20_000
DECODED = 2000  # of a thorough look
SECONDS = 0.5  # for them, after which the rest of the sample is left out
THOROUGH_SECONDS = 3.0
LOST = 1 / 3  # of a picture, by the crop to its centred square
TINY = 8  # a picture whose side times this is below the resolution
GREY = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"))


def of_pictures(source: Source, *, thorough: bool = False) -> list[Finding]:
    """Looks at a sample of the pictures.

    Args:
      source: the data; only image files, in a folder or a data set, are looked at.
      thorough: look at more of them and decode them.

    Returns:
      The findings.
    """
    if not isinstance(source, DecodingSource):
        return []
    seconds = THOROUGH_SECONDS if thorough else SECONDS
    seen = _Headers(source)
    for index in within(seconds, sample(len(source), THOROUGH if thorough else SAMPLE)):
        seen.look(index)
    alike = []
    if thorough:
        decoded = within(seconds, sample(len(source), DECODED))
        alike = of_likeness(source, decoded, seen.note_bad)
    return [*seen.findings(), *of_copies(source, seconds), *alike]


def sample(total: int, count: int) -> np.ndarray:
    """Positions of a random sample, all of them in a small set; the same at every call."""
    return np.random.default_rng(0).permutation(total)[:count]


def within(seconds: float, indices: np.ndarray) -> Iterator[int]:
    """As many of some indices as there is time for."""
    end = time.monotonic() + seconds
    for index in indices.tolist():
        yield index
        if time.monotonic() > end:
            return


class _Headers:
    """Sizes and modes of the pictures of a sample, from their headers."""

    def __init__(self, source: DecodingSource):
        self._source = source
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._grey = 0
        self._looked = 0
        self._bad: dict[int, str] = {}

    def look(self, index: int) -> None:
        """Reads the header of one picture."""
        self._looked += 1
        record = self._source.record(index)
        try:
            size, mode, _ = header(record.content, self._source.max_pixels)
        except BadImage as error:
            if error.pixels is not None and self._source.reduced:
                return  # may be read at a reduced size
            self.note_bad(index, error)
            return
        self._names.append(record.name)
        self._sizes.append(size)
        self._grey += mode in GREY

    def note_bad(self, index: int, problem: BadImage) -> None:
        """Takes note of one that cannot be read, by its header or by its pixels."""
        self._bad.setdefault(index, f"{self._source.record(index).name}: {problem}")

    def findings(self) -> list[Finding]:
        """What the headers tell."""
        found = []
        if self._bad:
            number = counts(len(self._bad), "file is", "files are")
            skip = self._source.wording.skip
            without = self._without_readable()
            remedy = "repair or remove them" + ("" if without else f", or pass {skip}")
            found.append(
                Finding(
                    f"{number} no readable image, of {self._examined()} looked at",
                    next(iter(self._bad.values())),
                    f"they are skipped, by {skip}" if self._source.skips else remedy,
                    stops=not self._source.skips,
                )
            )
            if without:
                have = "class has" if len(without) == 1 else "classes have"
                found.append(
                    Finding(
                        f"{len(without):,} {have} no readable image",
                        some(map(shown, without)),
                        "repair one image of it, or take the class out of the data",
                        stops=True,
                    )
                )
        if not self._sizes:
            return found
        sides = np.array(self._sizes)
        return found + [*self._cropped(sides), *self._small(sides), *self._colours()]

    def _without_readable(self) -> list[str]:
        """Names of the classes of which all images are unreadable."""
        of_label = {self._source.record(index).label: index for index in self._bad}
        names = self._source.class_names
        lacking = [y for y, i in sorted(of_label.items()) if self._source.lacks_readable(i)]
        return [names[y] if 0 <= y < len(names) else str(y) for y in lacking]

    def _examined(self) -> str:
        return f"{self._looked:,}"

    def _cropped(self, sides: np.ndarray) -> Iterator[Finding]:
        lost = 1 - sides.min(axis=1) / sides.max(axis=1)
        many, worst = int((lost > LOST).sum()), int(lost.argmax())
        if many:
            width, height = self._sizes[worst]
            number = counts(many, "image", "images")
            yield Finding(
                f"the crop to the centred square loses more than a third of {number}, of "
                f"{self._examined()} looked at",
                f"worst: {self._names[worst]}, {width} x {height}, loses {lost[worst]:.0%}",
                "crop such images yourself around what matters, or leave them out",
            )

    def _small(self, sides: np.ndarray) -> Iterator[Finding]:
        shorter, resolution = sides.min(axis=1), self._source.resolution
        tiny, least = shorter * TINY < resolution, int(shorter.argmin())
        width, height = self._sizes[least]
        where = f"smallest: {self._names[least]}, {width} x {height}"
        if tiny.any():
            number = counts(int(tiny.sum()), "image has", "images have")
            yield Finding(
                f"{number} less than 1/{TINY} of the {resolution} pixels that are trained on, of "
                f"{self._examined()} looked at",
                where,
                "they become coloured blots; leave them out",
            )
        small = int(((shorter < resolution) & ~tiny).sum())
        if small:
            number = counts(small, "image is", "images are")
            yield Finding(
                f"{number} smaller than {resolution} pixels and enlarged, of {self._examined()} "
                "looked at",
                where,
                "the model learns their blur; train at a lower resolution, or leave them out",
            )

    def _colours(self) -> Iterator[Finding]:
        if self._source.channels == 3 and self._grey:
            every = self._grey == len(self._sizes)
            number = counts(self._grey, "image is", "images are")
            words = self._source.wording.channels.format(1)
            yield Finding(
                f"{'all images looked at are' if every else number} grey in a set of colours"
                + ("" if every else f", of {self._examined()} looked at"),
                "channels is 3",
                f"give {words} for a grey model"
                if every and words
                else "some samples will be grey too; leave them out if they shall not",
            )
