"""What the kinds of `biggan look` have in common: which samples, under which names."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.errors import some
from biggan_jax.pictures import formats, sheet, text
from biggan_jax.pictures.size import Size
from biggan_jax.sampling import files, load
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling.classes import row_labels, spread
from biggan_jax.storage import paths
from biggan_jax.storage import truncation_statistics as statistics


@dataclasses.dataclass(frozen=True)
class Rows:
    """The samples that a picture shows.

    Attributes:
      step: see `load.load_generator`.
      classes: a list such as 'cat,dog' or '0,3,5-7', taken in turn; None spreads the samples over
        all classes.
      count: how many; None is what the kind shows unless it is told.
      seed, truncation, truncation_kind: see `LoadedGenerator.sample_z`.
      ema: averaged weights; False takes the raw ones, a name another average.
      bn_mode: see `LoadedGenerator.set_bn_mode`.
    """

    step: int | str | None = None
    classes: str | None = None
    count: int | None = None
    seed: int = 0
    truncation: float | None = None
    truncation_kind: str = "resample"
    ema: bool | str = True
    bn_mode: str = "running"

    def load(self, directory: str | Path) -> generator_lib.LoadedGenerator:
        """The generator, with the batch-norm statistics of these samples."""
        return load.load_generator(
            directory,
            step=self.step,
            ema=self.ema,
            bn_mode=self.bn_mode,
            standing_truncation=self.truncation,
            standing_kind=self.truncation_kind,
            truncation_statistics=statistics.default(directory, self.truncation),
        )

    def number(self, default: int) -> int:
        """How many samples; UserError where none are asked for."""
        if self.count is None:
            return default
        files.checked_count(self.count, "--count", 1)
        return self.count

    def ids(self, generator: generator_lib.LoadedGenerator, most: int) -> np.ndarray:
        """Class ids [K], int32: those asked for, or at most `most` spread over all."""
        if self.classes is None:
            return spread(generator.num_classes, most)
        return generator.labels(self.classes, option="--classes")

    def latents(
        self, generator: generator_lib.LoadedGenerator, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(z [N, dim_z], labels [N]), by default one of each class asked for, or `most`."""
        number = self.number(most)
        ids = self.ids(generator, number)
        labels = np.resize(ids, len(ids) if self.classes and self.count is None else number)
        return self.draw(generator, len(labels)), labels

    def draw(self, generator: generator_lib.LoadedGenerator, count: int) -> np.ndarray:
        """Latents [count, dim_z] of these samples' seed and truncation."""
        return generator.sample_z(self.seed, count, self.truncation, self.truncation_kind)


def named(ids: Sequence[int], network: Any) -> list[str] | None:
    """Names of rows of a sheet; ids, and a note on stderr, where no font has their letters.

    Args:
      ids: class ids.
      network: a loaded network.

    Returns:
      One text an id; None for a model with one class.
    """
    found = row_labels(ids, network)
    if not found:
        return None
    drawable = {label: text.known_part(label) for label in set(found["row_labels"])}
    if lacking := [label for label in drawable if drawable[label] is None]:
        print(
            f"no font at hand has the letters of {some(sorted(lacking))}: ids stand in their "
            f"place; {text.advice(lacking)}",
            file=sys.stderr,
        )
    return [drawable[name] or other for name, other in zip(*found.values(), strict=True)]


def joined(one: str, joint: str, other: str, ids: Sequence[int | None]) -> str:
    """Two texts as one label of a sheet, which one font draws.

    Args:
      one, other: names as `named` gives them, or any other text.
      joint: of `text.JOINTS`.
      ids: of the classes that these are names of, None for another text; they stand in place of
        the names where no font has the letters of both.
    """
    whole = f"{one}{joint}{other}"
    if text.known_part(whole) is None:
        parts = zip((one, other), ids, strict=True)
        whole = joint.join(part if i is None else f"class {i}" for part, i in parts)
    return whole


def alone(name: str, label: int) -> str:
    """A name as `named` gives it, for a title: not a bare number."""
    return f"class {label}" if name == str(label) else name


def class_of(label: int, network: Any) -> dict[str, Any]:
    """{class, name} for the JSON object; no name where it is not known."""
    names = network.class_names
    return {"class": int(label)} | ({"name": names[label]} if names else {})


def classes_of(labels: Sequence[int], network: Any) -> list[dict[str, Any]]:
    """`class_of` of all rows; [] for a model without classes."""
    return [class_of(c, network) for c in labels] if network.num_classes > 1 else []


def write_sheet(page: sheet.Sheet, out: Path, size: Size) -> None:
    """Draws a sheet and writes it."""
    picture = sheet.draw(page, size)
    paths.write_bytes(out, formats.encode(picture, out, size.dpi))


def cut(images: np.ndarray, columns: int) -> list[np.ndarray]:
    """Images [R * columns, H, W, C] as rows of `columns`."""
    return [images[i : i + columns] for i in range(0, len(images), columns)]
