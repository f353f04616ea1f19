"""`biggan look directions`: what the strongest directions of the first layer change.

References:
  Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (SeFa); Haerkoenen et
  al. 2020, "GANSpace: Discovering Interpretable GAN Controls".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.models import layers, walk
from biggan_jax.pictures.sheet import Sheet
from biggan_jax.pictures.size import Size
from biggan_jax.pictures.text import COLON
from biggan_jax.sampling import latents
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows

METHODS = ("sefa", "ganspace")
TITLES = {"sefa": "steps along singular vectors of the first layer"}
TITLES["ganspace"] = "standard deviations of principal components"
NUMBER, POINTS, REACH = 6, 7, 3.0
SAMPLES = 8192  # latents behind GANSpace's principal components


class Found(NamedTuple):
    """Directions in the space of z, the strongest first.

    Attributes:
      vectors: [K, dim_z]; a step of 1 along one is the unit that `draw` counts in.
      strengths: [K], descending: singular values of the layer (SeFa), or the share of the variance
        of its outputs (GANSpace).
    """

    vectors: np.ndarray
    strengths: np.ndarray


def draw(
    directory: str | Path,
    out: Path,
    *,
    rows: Rows,
    size: Size,
    method: str = "sefa",
    number: int | None = None,
    points: int = POINTS,
) -> dict:
    """Draws a row for each direction and sample: z goes along it from -3 to 3.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples, one by default; they stand in the middle of their rows.
      size: of the picture.
      method: 'sefa' or 'ganspace'.
      number: of directions; 6 at most by default.
      points: images of a row, an odd number.

    Returns:
      {step, method, samples: [{class, name}], directions: [{strength, change}]}: how much a pixel
      differs between both ends on average, of 256 levels.

    Raises:
      UserError: more directions than the first layer has, a class that does not exist, or an
        unusable directory.
    """
    if not 3 <= points <= 63 or points % 2 == 0:
        raise UserError(f"--points is {points}; it must be an odd number from 3 to 63")
    generator = rows.load(directory)
    seen = first_layer(generator)[1]
    most = seen.stop - seen.start
    number = min(NUMBER, most) if number is None else number
    if not 1 <= number <= most:
        raise UserError(f"--directions is {number}; the first layer of this model has {most}")
    find = sefa if method == "sefa" else ganspace
    found = find(generator, number, rows)
    z, labels = rows.latents(generator, 1)
    steps = np.linspace(-REACH, REACH, points, dtype=np.float32)
    moves = steps[None, None, :, None] * found.vectors.astype(np.float32)[:, None, None, :]
    walked = z[None, :, None, :] + moves  # direction, sample, point, dim_z
    repeated = np.broadcast_to(labels[None, :, None], walked.shape[:3])
    images = generator(walked.reshape(-1, generator.dim_z), repeated.reshape(-1))
    shown = images.reshape(number * len(z), points, *images.shape[1:])
    columns = [f"{step:+g}" if step else "0" for step in np.round(steps, 2).tolist()]
    names = rows_lib.named(labels, generator)
    title = TITLES[method]
    if names and len(z) == 1:
        name = rows_lib.alone(names[0], int(labels[0]))
        title = rows_lib.joined(name, COLON, title, (int(labels[0]), None))
    page = Sheet(shown, _labels(names, labels, number), columns=columns, title=title)
    rows_lib.write_sheet(page, out, size)
    changes = np.abs(shown[:, -1] - shown[:, 0]).mean(axis=(1, 2, 3)) * 127.5
    changes = changes.reshape(number, -1).mean(axis=1)
    return {
        "step": generator.step,
        "method": method,
        "samples": rows_lib.classes_of(labels, generator),
        "directions": [
            {"strength": float(s), "change": float(c)}
            for s, c in zip(found.strengths, changes, strict=True)
        ],
    }


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    what = "singular value" if result["method"] == "sefa" else "share of the variance"
    return "\n".join(
        f"direction {i}: {what} {d['strength']:.3g}; from -3 to 3 a pixel changes by "
        f"{d['change']:.1f} of 256 levels"
        for i, d in enumerate(result["directions"], start=1)
    )


def first_layer(generator) -> tuple[np.ndarray, slice, slice]:
    """The first linear layer of a generator.

    Args:
      generator: a `LoadedGenerator`.

    Returns:
      (kernel [inputs, outputs] in float64, the entries of z that it sees, where among its inputs
      they stand).
    """
    module, variables = generator.applied
    calls = walk.of_generator(module).calls
    first = next(call for call in calls if isinstance(call.module, layers.Dense))
    tree = variables["params"]
    for name in first.path:
        tree = tree[name]
    kernel = np.asarray(tree["kernel"], np.float64)
    width = kernel.shape[0]
    if width <= generator.dim_z:  # all of z, or its first chunk
        return kernel, slice(0, width), slice(0, width)
    before = generator.config.model.cond_order == "embedding_z"
    start = width - generator.dim_z if before else 0
    return kernel, slice(0, generator.dim_z), slice(start, start + generator.dim_z)


def sefa(generator, number: int, rows: Rows | None = None) -> Found:
    """Directions that the first layer stretches most: eigenvectors of A^T A of unit length.

    Args:
      generator: a `LoadedGenerator`.
      number: of directions.
      rows: not needed.

    Returns:
      Unit vectors and the singular values of the layer's weight without spectral norm.

    References:
      Shen and Zhou 2021, equations 5 to 8.
    """
    kernel, seen, place = first_layer(generator)
    vectors, values, _ = np.linalg.svd(kernel[place], full_matrices=False)
    return Found(_in_z(vectors.T[:number], seen, generator.dim_z), values[:number])


def ganspace(generator, number: int, rows: Rows | None = None) -> Found:
    """Principal components of the first layer's outputs, carried over to z by least squares.

    Args:
      generator: a `LoadedGenerator`.
      number: of directions.
      rows: whose seed, truncation and classes the latents behind them have.

    Returns:
      What one standard deviation of each component is in z, and the shares of the variance.

    References:
      Haerkoenen et al. 2020, section 3.2 and equation 3.
    """
    rows = rows or Rows()
    kernel, seen, place = first_layer(generator)
    z = generator.sample_z(rows.seed, SAMPLES, rows.truncation, rows.truncation_kind)
    z = z[:, seen].astype(np.float64)
    inputs = np.zeros((len(z), len(kernel)))
    inputs[:, place] = z
    if len(kernel) > place.stop - place.start:
        table = np.asarray(generator.applied[1]["params"]["shared"]["embedding"], np.float64)
        ids = rows.ids(generator, generator.num_classes)
        labels = ids[latents.labels(rows.seed, len(z), len(ids))]
        other = np.r_[0 : place.start, place.stop : len(kernel)]
        inputs[:, other] = table[labels]
    # Outputs in an orthonormal basis of the space that they span: same components, far fewer axes.
    outputs = inputs @ np.linalg.qr(kernel.T, mode="r").T
    outputs -= outputs.mean(axis=0)
    left, values, _ = np.linalg.svd(outputs, full_matrices=False)
    coordinates = left[:, :number] * np.sqrt(len(z))  # of the components, in standard deviations
    # U minimises the sum of |U x - z|^2.
    vectors = np.linalg.lstsq(coordinates, z - z.mean(axis=0), rcond=None)[0]
    shares = values**2 / max(float((values**2).sum()), 1e-300)
    return Found(_in_z(vectors, seen, generator.dim_z), shares[:number])


def _in_z(vectors: np.ndarray, seen: slice, dim_z: int) -> np.ndarray:
    """Rows as directions of the whole z, their largest entry positive: a sign means nothing."""
    full = np.zeros((len(vectors), dim_z))
    full[:, seen] = vectors
    largest = full[np.arange(len(full)), np.abs(full).argmax(axis=1)]
    return full * np.where(largest < 0, -1, 1)[:, None]


def _labels(names: list[str] | None, ids: np.ndarray, number: int) -> list[str]:
    """Labels of rows; the name of the sample stands behind them where there are several.

    Of one sample it is in the title.
    """
    where = [str(i + 1) for i in range(number)]
    if len(ids) == 1 or names is None:
        return [at for at in where for _ in ids]
    named = [*zip(names, ids.tolist(), strict=True)]
    return [rows_lib.joined(at, COLON, name, (None, i)) for at in where for name, i in named]
