"""Files of samples: a labelled picture or an .npz of images, labels and latents."""

import io
import os
import time
from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.pictures import grids
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import load
from biggan_jax.sampling.classes import parse_classes, spread
from biggan_jax.storage import networks, paths
from biggan_jax.storage import truncation_statistics as statistics

MATRIX_CLASSES = 5  # rows of one panel of the batch-norm matrix


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
    ema: bool = True,
    interpolate: bool = False,
    truncation_statistics: float | None = None,
    hf_interpolation: bool = False,
) -> dict:
    """Samples a generator into a file.

    Args:
      directory: a workdir or a model directory.
      out: `F.png` (one class a row) or `F.npz` (images uint8 [N, H, W, C], labels int32 [N], z
        float32 [N, dim_z]).
      step: see `load.load_generator`.
      classes: comma-separated class ids or ranges ('0,3' or '0-9'); None takes all, or for a
        picture 10 spread over all.
      per_class: samples of each class, or images of each interpolation.
      truncation, truncation_kind, seed: see `LoadedGenerator.sample_z`.
      bn_mode: 'running', 'batch' or 'standing'.
      standing: other arguments of `set_bn_mode`; by default its latents are truncated as those of
        the samples.
      ema: averaged weights; False takes the raw ones.
      interpolate: each row goes along the great circle from one z to another at a fixed class.
      truncation_statistics, hf_interpolation: see `load.load_generator`; by default those of
        the samples' truncation, where the directory holds them.

    Returns:
      {out, count, step, seconds}.

    Raises:
      UserError: for an unknown kind of file, a class that does not exist, or an unusable directory.
    """
    start, out, least = time.perf_counter(), paths.workdir_path(out), 2 if interpolate else 1
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"--out {out}: the name must end in .png or .npz")
    if per_class < least:
        raise UserError(f"--per-class is {per_class}; it must be at least {least}")
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
    rows = parse_classes(classes, generator.num_classes, picture=out.suffix == ".png")
    labels = np.repeat(rows, per_class)
    how = truncation, truncation_kind
    z = generator.sample_z(seed, 2 * len(rows) if interpolate else len(labels), *how)
    if interpolate:
        ends = z.reshape(len(rows), 2, -1)
        z = np.concatenate([great_circle(a, b, per_class) for a, b in ends])
    images = grids.to_uint8(generator(z, labels))
    if out.suffix == ".png":
        names = [str(c) for c in rows] if generator.num_classes > 1 else None
        picture = grids.grid(images, per_class, row_labels=names)
        paths.write_bytes(out, grids.png(picture))
    else:
        file = io.BytesIO()
        np.savez(file, images=images, labels=labels, z=z)
        paths.write_bytes(out, file.getvalue())
    seconds = time.perf_counter() - start
    return {"out": str(out), "count": len(labels), "step": generator.step, "seconds": seconds}


def bn_matrix(
    directory: str | Path,
    out: Path,
    *,
    step: int | str | None = None,
    classes: str | None = None,
    per_class: int = 5,
    truncation: float | None = None,
    truncation_kind: str = "resample",
    seed: int = 0,
    standing: dict | None = None,
) -> dict:
    """Draws the same samples with every kind of batch-norm statistics, averaged and raw weights.

    Args:
      directory: a workdir or a model directory (which may hold one of the weights alone).
      out: `F.png`.
      step, classes, per_class, truncation, truncation_kind, seed, standing: see `write`; by default
        5 classes spread over all.

    Returns:
      {out, step, modes, weights, seconds}.

    Raises:
      UserError: for a class that does not exist, or an unusable directory.
    """
    if out.suffix != ".png":
        raise UserError(f"--out {out}: the name must end in .png")
    if per_class < 1:
        raise UserError(f"--per-class is {per_class}; it must be at least 1")
    start = time.perf_counter()
    like_samples = {"truncation": truncation, "kind": truncation_kind}
    weights = networks.generator_weights(directory, step)
    rows: list[list] = [[] for _ in weights]
    for row, ema in zip(rows, weights.values(), strict=True):
        generator = load.load_generator(directory, step=step, ema=ema)
        # The other weights are those of the very step, also where a run goes on meanwhile.
        step = step if generator.step is None else generator.step
        ids = spread(generator.num_classes, MATRIX_CLASSES)
        if classes is not None:
            ids = parse_classes(classes, generator.num_classes, picture=True)
        labels = np.repeat(ids, per_class)
        z = generator.sample_z(seed, len(labels), truncation, truncation_kind)
        for mode in generator_lib.BN_MODES:
            generator.set_bn_mode(mode, **(like_samples | (standing or {})))
            row.append(grids.grid(generator(z, labels), per_class))
    picture = grids.table(rows, list(weights), generator_lib.BN_MODES)
    paths.write_bytes(out, grids.png(picture))
    return {
        "out": str(out),
        "step": generator.step,
        "modes": list(generator_lib.BN_MODES),
        "weights": list(weights),
        "seconds": time.perf_counter() - start,
    }


def great_circle(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Interpolates latents so that their norm stays typical of N(0, I), unlike a straight line.

    Args:
      a, b: latents [dim_z].
      count: at least 2; the first is a, the last b.

    Returns:
      [count, dim_z], float32.
    """
    cosine = np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    t = np.linspace(0, 1, count)[:, None]
    if np.sin(angle) < 1e-6:
        return ((1 - t) * a + t * b).astype(np.float32)
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)).astype(
        np.float32
    )
