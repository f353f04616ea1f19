"""What a data set is like, before anything is chosen for it: counts, sizes, colours, speed."""

import dataclasses
import time

import numpy as np

from biggan_jax.data import looks, records
from biggan_jax.data.decoding import DecodingSource
from biggan_jax.data.images import BadImage, header
from biggan_jax.data.likeness import thumbnail
from biggan_jax.data.source import Source
from biggan_jax.data.spec import absolute, open_source

SECONDS = 2.0  # for headers, and again for pixels
LOOKED = 2000  # pictures whose headers are read
DECODED = 1000
SIDE = 32  # pixels at which they are decoded
LABELS = 10_000  # that are read where reading all of them takes long
COLOURED = 24  # of 255: largest less smallest of R, G and B, in the most coloured hundredth
LEAST_MIRRORED = 100  # pictures from which their mirror images can be told, if they differ
# Mean squared z of (picture - mirror image) over pixels: about 1 where nothing tells them apart.
MIRRORED = 2.0


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a data set is like.

    Attributes:
      spec: the text that opens it, from wherever.
      count: examples.
      class_names: one name per class.
      histogram: examples of each class [num_classes], int64.
      labels: of all examples, int [n]; None where reading them takes long, and the histogram is
        that of a sample, scaled, unless the source knows it.
      encoded: whether pictures are decoded at every read.
      resolution: of prepared records, which have one size; None otherwise.
      channels: of prepared records; None otherwise.
      shorter: shorter sides of the pictures looked at, in pixels, int [n].
      lost: share of each of them that the crop to the centred square loses, [n].
      grey: share of the decoded pictures that are grey.
      transparent: share of the pictures looked at with transparency.
      mirrored: whether the decoded pictures and their mirror images cannot be told apart by their
        mean; False where they are too few to tell.
      unreadable: pictures among those looked at that cannot be read.
      read_seconds: of reading one picture, all cores at work.
      num_lanes: of prepared records in lanes; 0 otherwise.
    """

    spec: str
    count: int
    class_names: tuple[str, ...]
    histogram: np.ndarray
    labels: np.ndarray | None
    encoded: bool
    resolution: int | None
    channels: int | None
    shorter: np.ndarray
    lost: np.ndarray
    grey: float
    transparent: float
    mirrored: bool
    unreadable: int
    read_seconds: float
    num_lanes: int = 0

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def survey(spec: str, option: str) -> Survey:
    """Looks at a sample of a data set, for some seconds.

    Args:
      spec: KIND:ARGUMENT, as `kinds.KINDS` lists them.
      option: where the user wrote it, for messages.

    Returns:
      What it is like.

    Raises:
      UserError: the data are missing, empty or damaged, or no picture can be read.
    """
    fixed = records.size_of(spec)
    size = fixed or {"resolution": SIDE, "channels": 3}
    source = open_source(spec, **size, on_bad_record="skip", option=option)
    found = headers(source)
    pixels = _pixels(source)
    histogram = source.histogram() if source.histogram_is_cheap else _sampled(source)
    cheap = source.labels_are_cheap or len(source) <= LABELS
    labels = source.labels_of(range(len(source))) if cheap else None
    return Survey(
        spec=absolute(spec),
        count=len(source),
        class_names=source.class_names,
        histogram=histogram,
        labels=labels,
        encoded=isinstance(source, DecodingSource),
        resolution=fixed.get("resolution"),
        channels=fixed.get("channels"),
        shorter=found.sizes.min(axis=1),
        lost=1 - found.sizes.min(axis=1) / found.sizes.max(axis=1),
        grey=_grey(pixels.images),
        transparent=found.transparent,
        mirrored=_mirrored(pixels.images),
        unreadable=max(found.unreadable, pixels.unreadable),
        read_seconds=pixels.seconds,
        num_lanes=source.num_lanes,
    )


@dataclasses.dataclass(frozen=True)
class Headers:
    """What the headers of a sample of pictures say.

    Attributes:
      sizes: width and height in pixels, int [n, 2]; of other sources than encoded pictures the one
        size that they have.
      grey: whether all of them are grey; None for other sources.
      transparent: share of them with transparency.
      unreadable: pictures among those looked at that cannot be read.
    """

    sizes: np.ndarray
    grey: bool | None
    transparent: float
    unreadable: int


def headers(source: Source) -> Headers:
    """Reads the headers of a sample, for `SECONDS` at most.

    Args:
      source: the data.

    Returns:
      What they say.

    Raises:
      UserError: no picture of the sample can be read.
    """
    if not isinstance(source, DecodingSource):
        side = getattr(source, "side", source.resolution)
        return Headers(np.array([[side, side]]), None, 0.0, 0)
    sizes, grey, transparent, unreadable = [], True, 0, 0
    for index in looks.within(SECONDS, looks.sample(len(source), LOOKED)):
        try:
            found = header(source.record(index).content, source.max_pixels)
        except BadImage:
            unreadable += 1
            continue
        sizes.append(found.size)
        grey &= found.mode in looks.GREY
        transparent += found.transparent
    if not sizes:  # all of them broken: `read` says what is wrong with one of them
        source.read([int(looks.sample(len(source), 1)[0])])
    return Headers(np.array(sizes), grey, transparent / max(1, len(sizes)), unreadable)


@dataclasses.dataclass(frozen=True)
class _Pixels:
    images: np.ndarray  # uint8 [n, R, R, C]
    unreadable: int
    seconds: float  # of one picture


def _pixels(source: Source) -> _Pixels:
    """A sample, decoded in parts for as long as there is time."""
    chosen, kept, unreadable = looks.sample(len(source), DECODED), [], 0
    start, done = time.perf_counter(), 0
    for part in np.array_split(chosen, max(1, len(chosen) // 32)):
        if isinstance(source, DecodingSource):
            images, problems = source.read_unchecked(part.tolist())
            images = np.delete(images, list(problems), axis=0)
            unreadable += len(problems)
        else:
            images = source.read(part)[0]
        kept.append(images)
        done += len(part)
        passed = time.perf_counter() - start
        if passed > SECONDS and (done >= LEAST_MIRRORED or passed > 3 * SECONDS):
            break
    seconds = (time.perf_counter() - start) / done
    return _Pixels(np.concatenate(kept), unreadable, seconds)


def _grey(images: np.ndarray) -> float:
    """Share of the pictures whose most coloured hundredth is grey; 0 of none."""
    if not len(images):
        return 0.0
    wide = images.astype(np.int16)
    apart = (wide.max(axis=-1) - wide.min(axis=-1)).reshape(len(images), -1)
    return float(np.mean(np.quantile(apart, 0.99, axis=1) < COLOURED))


def _mirrored(images: np.ndarray) -> bool:
    """Whether a set and its mirror images have the same mean, as far as its pictures can tell."""
    if len(images) < LEAST_MIRRORED:
        return False
    small = np.stack([thumbnail(image) for image in images]).astype(np.float64)
    half = small.shape[2] // 2
    difference = (small - small[:, :, ::-1])[:, :, :half]
    error = difference.std(axis=0) / np.sqrt(len(images))
    z = difference.mean(axis=0) / np.maximum(error, 1e-6)
    return bool(np.mean(z**2) < MIRRORED)


def _sampled(source: Source) -> np.ndarray:
    """Examples of each class, from a sample of the labels."""
    labels = source.labels_of(np.sort(looks.sample(len(source), LABELS)))
    found = np.bincount(labels, minlength=source.num_classes)
    return np.rint(found * (len(source) / len(labels))).astype(np.int64)
