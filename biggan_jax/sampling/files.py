"""Files of samples: a labelled picture, an .npz of images, labels and latents, or single files."""

import dataclasses
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.pictures import formats, grids
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import image_folder, latents, load
from biggan_jax.sampling.classes import parse_classes, row_labels
from biggan_jax.storage import paths
from biggan_jax.storage import truncation_statistics as statistics

FOLDER = "folder"  # in the place of a suffix
FOLDER_BATCH = 512  # samples made before they are written as single files


def write(
    directory: str | Path,
    out: str | os.PathLike,
    *,
    step: int | str | None = None,
    classes: str | None = None,
    per_class: int = 10,
    truncation: float | None = None,
    truncation_kind: str = "resample",
    seed: int = 0,
    bn_mode: str = "running",
    standing: dict | None = None,
    ema: bool | str = True,
    interpolate: bool = False,
    truncation_statistics: float | None = None,
    hf_interpolation: bool = False,
) -> dict:
    """Samples a generator into a file or a folder.

    Args:
      directory: a workdir or a model directory.
      out: `F.png`, `.jpg`, `.jpeg` or `.webp` (one class a row), `F.npz` (images uint8
        [N, H, W, C], labels int32 [N], z float32 [N, dim_z]), or a new or empty folder (ending in
        '/', or there already), which gets single files `CLASS/00001.png` as they are made.
      step: see `load.load_generator`.
      classes: a list of class names or ids ('cat,dog' or '0-9'; see `classes.parse_classes`); None
        takes all, or for a picture 10 spread over all.
      per_class: samples of each class, or images of each interpolation.
      truncation, truncation_kind, seed: see `LoadedGenerator.sample_z`.
      bn_mode: 'running', 'batch' or 'standing'.
      standing: other arguments of `set_bn_mode`; by default its latents are truncated as those of
        the samples.
      ema: averaged weights; False takes the raw ones, a name another average.
      interpolate: each row goes along the great circle from one z to another at a fixed class.
      truncation_statistics, hf_interpolation: see `load.load_generator`; by default those of
        the samples' truncation, where the directory holds them.

    Returns:
      {out, count, step, seconds}.

    Raises:
      UserError: for an unknown kind of file, a folder that is not empty, a class that does not
        exist, or an unusable directory.
    """
    start = time.perf_counter()
    out, kind = _target(out)
    checked_count(per_class, "--per-class", 2 if interpolate else 1)
    if truncation_statistics is None:
        truncation_statistics = statistics.default(directory, truncation)
    generator = load.load_generator(
        directory,
        step=step,
        ema=ema,
        truncation_statistics=truncation_statistics,
        hf_interpolation=hf_interpolation,
    )
    like_samples = {"truncation": truncation, "kind": truncation_kind}
    generator.set_bn_mode(bn_mode, **(like_samples | (standing or {})))
    picture = kind in formats.FORMATS
    rows = parse_classes(
        classes, generator.num_classes, picture=picture, names=generator.class_names
    )
    samples = Samples(generator, rows, per_class, seed, (truncation, truncation_kind), interpolate)
    if kind == FOLDER:
        names = image_folder.class_folders(
            rows.tolist(), generator.class_names, generator.num_classes
        )
        count = image_folder.write(out, samples.batches(mixed=bn_mode == "batch"), names)
    else:
        count = _write_file(out, kind, samples)
    seconds = time.perf_counter() - start
    return {"out": str(out), "count": count, "step": generator.step, "seconds": seconds}


def _target(out: str | os.PathLike) -> tuple[Path, str]:
    """(path, suffix or `FOLDER`) of what `write` is to write."""
    text = os.fspath(out)
    path = paths.workdir_path(out)
    if image_folder.is_folder(text):
        image_folder.check(path)
        return path, FOLDER
    return path, formats.suffix(text, (".npz",), more=", or be a folder: FOLDER/")


def checked_count(value: Any, option: str, least: int) -> None:
    """Raises UserError unless a number is an integer from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UserError(f"{option} is {value}; it must be an integer, at least {least}")


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of some classes, a class a row.

    Attributes:
      generator: of them.
      rows: class ids [R].
      per_class: samples of each row.
      seed, how: of the latents; `how` is (truncation, kind).
      interpolate: whether a row goes from one latent to another.
    """

    generator: generator_lib.LoadedGenerator
    rows: np.ndarray
    per_class: int
    seed: int
    how: tuple[float | None, str]
    interpolate: bool

    @property
    def labels(self) -> np.ndarray:
        """Class ids [R * per_class]."""
        return np.repeat(self.rows, self.per_class)

    def latents(self, start: int, stop: int) -> np.ndarray:
        """z of some samples, as if all were made at once."""
        if not self.interpolate:
            return self.generator.sample_z(self.seed, stop - start, *self.how, first=start)
        first, last = start // self.per_class, -(-stop // self.per_class)
        ends = self.generator.sample_z(self.seed, 2 * (last - first), *self.how, first=2 * first)
        pairs = ends.reshape(last - first, 2, -1)
        z = np.concatenate([great_circle(a, b, self.per_class) for a, b in pairs])
        return z[start - first * self.per_class : stop - first * self.per_class]

    def batches(self, *, mixed: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Makes (images uint8, labels) a few at a time.

        Args:
          mixed: each batch has samples of all rows, as statistics of the batch ask for; sample i is
            then of row i mod R.
        """
        count = len(self.rows) * self.per_class
        for start in range(0, count, FOLDER_BATCH):
            numbers = np.arange(start, min(start + FOLDER_BATCH, count))
            mixed_rows = mixed and not self.interpolate
            rows = numbers % len(self.rows) if mixed_rows else numbers // self.per_class
            labels = self.rows[rows]
            z = self.latents(start, int(numbers[-1]) + 1)
            yield grids.to_uint8(self.generator(z, labels)), labels


def _write_file(out: Path, kind: str, samples: Samples) -> int:
    """Writes a picture or an .npz of all samples; their number."""
    labels = samples.labels
    z = samples.latents(0, len(labels))
    images = grids.to_uint8(samples.generator(z, labels))
    if kind == ".npz":
        file = io.BytesIO()
        np.savez(file, images=images, labels=labels, z=z)
        paths.write_bytes(out, file.getvalue())
    else:
        named = row_labels(samples.rows, samples.generator)
        picture = grids.grid(images, samples.per_class, **named)
        paths.write_bytes(out, formats.encode(picture, out))
    return len(labels)


def great_circle(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Interpolates latents so that their norm stays typical of N(0, I), unlike a straight line.

    Args:
      a, b: latents [dim_z].
      count: at least 2; the first is a, the last b.

    Returns:
      [count, dim_z], float32.
    """
    return latents.great_circle(a, b, np.linspace(0, 1, count))
