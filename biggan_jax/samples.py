"""Files of samples: a labelled picture or an .npz of images, labels and latents."""

import time
from pathlib import Path

import numpy as np

from biggan_jax import sampling, visual
from biggan_jax.errors import UserError

PICTURE_CLASSES = 10  # rows of a picture when no classes were asked for


def write(
    directory: str | Path,
    out: Path,
    *,
    classes: str | None = None,
    per_class: int = 10,
    truncation: float | None = None,
    truncation_kind: str = "resample",
    seed: int = 0,
    bn_mode: str = "running",
    ema: bool = True,
    interpolate: bool = False,
) -> dict:
    """Samples a generator into a file.

    Args:
      directory: a workdir or a model directory.
      out: `F.png` (one class a row) or `F.npz` (images uint8 [N, H, W, C], labels int32 [N], z
        float32 [N, dim_z]).
      classes: comma-separated class ids or ranges ('0,3' or '0-9'); None takes all, or for a
        picture 10 spread over all.
      per_class: samples of each class, or images of each interpolation.
      truncation, truncation_kind, seed: see `LoadedGenerator.sample_z`.
      bn_mode: 'running', 'batch' or 'standing'.
      ema: averaged weights; False takes the raw ones.
      interpolate: each row goes along the great circle from one z to another at a fixed class.

    Returns:
      {out, count, seconds}.

    Raises:
      UserError: for an unknown kind of file, a class that does not exist, or an unusable directory.
    """
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"--out {out}: the name must end in .png or .npz")
    if per_class < (2 if interpolate else 1):
        raise UserError(
            f"--per-class is {per_class}; it must be at least {2 if interpolate else 1}"
        )
    start = time.perf_counter()
    generator = sampling.load_generator(
        directory, ema=ema, bn_mode=bn_mode, standing_truncation=truncation
    )
    rows = parse_classes(classes, generator.num_classes, picture=out.suffix == ".png")
    labels = np.repeat(rows, per_class)
    if interpolate:
        ends = generator.sample_z(seed, 2 * len(rows), truncation, truncation_kind)
        z = np.concatenate(
            [great_circle(a, b, per_class) for a, b in ends.reshape(len(rows), 2, -1)]
        )
    else:
        z = generator.sample_z(seed, len(labels), truncation, truncation_kind)
    images = visual.to_uint8(generator(z, labels))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        names = [str(c) for c in rows] if generator.num_classes > 1 else None
        visual.save_png(visual.grid(images, per_class, row_labels=names), out)
    else:
        fresh = out.with_name(out.name + ".tmp")
        with open(fresh, "wb") as f:
            np.savez(f, images=images, labels=labels, z=z)
        fresh.replace(out)
    return {"out": str(out), "count": len(labels), "seconds": time.perf_counter() - start}


def parse_classes(text: str | None, num_classes: int, *, picture: bool) -> np.ndarray:
    """Class ids of a list such as '0,3,5-7'.

    Args:
      text: what the user wrote; None asks for the default.
      num_classes: of the model.
      picture: whether the default is at most 10 classes.

    Returns:
      Class ids, int32 [K].

    Raises:
      UserError: for text that is no list of classes, or a class outside the range.
    """
    if text is None:
        count = min(num_classes, PICTURE_CLASSES) if picture else num_classes
        return np.linspace(0, num_classes - 1, count).round().astype(np.int32)
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            start, stop = int(first), int(last or first)
            sampling.check_labels(np.array([start, stop]), num_classes)  # before a list of 10**12
            ids += range(start, stop + 1)
    except UserError:
        raise
    except ValueError:
        ids = []
    if not ids:
        raise UserError(f"--classes {text!r}: write class ids such as 0,3 or 0-9")
    return sampling.check_labels(np.array(ids), num_classes)


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
