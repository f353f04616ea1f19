"""`biggan look neighbours`: the training images that are nearest to each sample."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from biggan_jax import data
from biggan_jax.data import holdout
from biggan_jax.errors import UserError
from biggan_jax.evaluation import folders, inputs
from biggan_jax.evaluation.progress import progress_bar
from biggan_jax.metrics import inception, memorisation
from biggan_jax.pictures import grids
from biggan_jax.pictures.sheet import Sheet
from biggan_jax.pictures.size import Size
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import paths

ROWS, NEAREST, MOST = 6, 5, 20
BLOCK = 1024  # images that are measured at once
SIDE = 32  # pixels of an image whose pixels are compared; larger ones are averaged down
WHAT = {
    "inception": "distance of Inception features",
    "classifier": "distance of the classifier's features",
    "pixels": "root mean square of the differences of pixels, of 256 levels",
}


def draw(
    directory: str | Path,
    out: Path,
    *,
    rows: Rows,
    size: Size,
    data: str | None = None,
    nearest: int = NEAREST,
    features: str | None = None,
    inception: Path | None = None,
    cache: Path | None = None,
) -> dict:
    """Draws each sample with the training images beside it that are nearest, distances below.

    Args:
      directory: a workdir or a model directory.
      out: a file of `pictures.formats.FORMATS`.
      rows: which samples, a row each; 6 by default.
      size: of the picture.
      data: spec of the images; those that it was trained on if absent, without the held-out ones.
      nearest: images beside each sample.
      features: what a distance is of: 'inception', 'classifier' or 'pixels'; if absent the network
        that is at hand, pixels where there is none.
      inception: directory of the Inception weights.
      cache: folder of fitted classifiers; that of the directory if absent.

    Returns:
      {step, data, images, features, rows: [{class, name, nearest: [{index, class, name,
      distance}]}]}, the nearest first.

    Raises:
      UserError: the data is missing, too few images, or an unusable directory or network.

    References:
      Brock et al. 2019, figures 10 to 13 (nearest neighbours in pixels and in features).
    """
    if not 1 <= nearest <= MOST:
        raise UserError(f"--nearest is {nearest}; it must be from 1 to {MOST}")
    generator = rows.load(directory)
    source = _source(data, generator.config)
    trained_on = _trained_on(source, generator.config)
    if trained_on.sum() < nearest:
        raise UserError(
            f"{source.spec} has {trained_on.sum()} images and --nearest is {nearest}: ask for fewer"
        )
    name, measure = _features(features, inception, source, cache, directory)
    z, labels = rows.latents(generator, ROWS)
    samples = grids.to_uint8(generator(z, labels))
    found = _nearest(measure(samples), source, trained_on, measure, nearest)
    images, classes = source.read(found.indices.ravel())
    beside = images.reshape(len(samples), nearest, *images.shape[1:])
    page = Sheet(
        np.concatenate([samples[:, None], beside], axis=1),
        rows_lib.named(labels, generator),
        columns=["sample", "nearest", *map(str, range(2, nearest + 1))],
        captions=[["", *(f"{d:.3g}" for d in row)] for row in found.distances],
        title=WHAT[name],
    )
    rows_lib.write_sheet(page, out, size)
    return {
        "step": generator.step,
        "data": source.spec,
        "images": int(trained_on.sum()),
        "features": name,
        "rows": _described(labels, found, classes.reshape(-1, nearest), generator, source),
    }


def text(result: dict) -> str:
    """What `draw` returns, for a person."""
    distances = [row["nearest"][0]["distance"] for row in result["rows"]]
    return (
        f"nearest of {result['images']:,} images of {result['data']}: {min(distances):.3g} to "
        f"{max(distances):.3g} ({WHAT[result['features']]})"
    )


def _source(spec: str | None, config) -> data.Source:
    """`--data`, or the images that the model was trained on."""
    given, spec = spec, config.data.source if spec is None else spec
    if spec is None:
        raise UserError(
            "neighbours need training images, and the config names no data.source: give them with "
            "--data SPEC"
        )
    try:
        return data.open_source(
            spec,
            resolution=config.model.resolution,
            channels=config.model.channels,
            option="data.source" if given is None else "--data",
            **data.choices(config.data),
        )
    except UserError as error:
        if given is not None:
            raise
        raise UserError(f"{error}; say where the training images are with --data SPEC") from error


def _trained_on(source: data.Source, config) -> np.ndarray:
    """Which images of a source are training images, bool [n]: all but the run's held-out ones."""
    if source.spec == config.data.source and config.data.holdout:
        return ~holdout.of_indices(len(source), config.data.holdout)
    return np.ones(len(source), bool)


def _features(
    asked: str | None,
    weights: Path | None,
    source: data.Source,
    given: Path | None,
    directory: str | Path,
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """(name, features [N, d] of images uint8 [N, H, W, C])."""
    own = given or paths.cache_folder(directory)
    if asked is None:
        asked = "inception" if weights is not None else "pixels"
        at_hand = (inputs.inception_directory(None) / inception.FILE).is_file()
        if source.channels == 3 and at_hand:
            asked = "inception"
        elif asked == "pixels" and inputs.has_classifier(source, source.stamp(), own):
            asked = "classifier"
    if asked == "pixels":
        return asked, pixels
    if asked == "inception":
        extractor = inputs.open_inception(weights)
    else:
        cache = folders.cache(directory, given)
        with progress_bar("step", "fitting the classifier") as progress:
            extractor = inputs.fitted_classifier(source, source.stamp(), cache, progress=progress)
    return asked, lambda images: extractor(images)["features"]


def pixels(images: np.ndarray) -> np.ndarray:
    """Pixels as features whose distance is the root mean square of their differences.

    Args:
      images: uint8 [N, S, S, C]; averaged down to 32 pixels where S is a multiple.

    Returns:
      float32 [N, d], in 256 levels over the root of d.
    """
    n, side, _, channels = images.shape
    factor = side // SIDE if side > SIDE and side % SIDE == 0 else 1
    small = side // factor
    x = images.reshape(n, small, factor, small, factor, channels).mean((2, 4), dtype=np.float32)
    x = x.reshape(n, -1)
    return x / np.float32(np.sqrt(x.shape[1]))


def _nearest(
    queries: np.ndarray,
    source: data.Source,
    allowed: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    k: int,
) -> memorisation.Neighbours:
    """The nearest images of a source, read block by block; indices are those of the source."""
    indices = np.zeros((len(queries), 0), np.int64)
    distances = np.zeros((len(queries), 0))
    with progress_bar("image", "comparing with") as progress:
        for start in range(0, len(source), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(source)))
            images, _, good = source.read_good(block)
            keep = good & allowed[block]
            if keep.any():
                near = memorisation.nearest_neighbours(
                    queries, measure(images[keep]), min(k, int(keep.sum()))
                )
                indices = np.concatenate([indices, block[keep][near.indices]], axis=1)
                distances = np.concatenate([distances, near.distances], axis=1)
            order = np.lexsort((indices, distances), axis=1)[:, :k]
            indices = np.take_along_axis(indices, order, axis=1)
            distances = np.take_along_axis(distances, order, axis=1)
            progress(int(block[-1]) + 1, len(source))
    if indices.shape[1] < k:
        raise UserError(f"{source.spec} has {indices.shape[1]} readable images; --nearest is {k}")
    return memorisation.Neighbours(indices, distances)


def _described(labels, found, classes, generator, source) -> list[dict]:
    """`rows` of the JSON object."""
    rows = []
    for label, near, distances, own in zip(labels, *found, classes, strict=True):
        beside = [
            {"index": int(i), "class": int(c), "name": source.class_names[c], "distance": float(d)}
            for i, d, c in zip(near, distances, own, strict=True)
        ]
        of = rows_lib.classes_of([label], generator)
        rows.append((of[0] if of else {}) | {"nearest": beside})
    return rows
