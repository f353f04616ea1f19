"""What about a data set may surprise whoever trains on it: found, and said with a remedy."""

import numpy as np

from biggan_jax.data import looks
from biggan_jax.data.files import shown
from biggan_jax.data.finding import Finding
from biggan_jax.data.layout import of_layout
from biggan_jax.data.listing import counts
from biggan_jax.data.source import Source
from biggan_jax.errors import some

__all__ = ["Finding", "find", "of_counts", "of_layout"]

FEW = 10  # images of a class with which it is worth a word
IMBALANCE = 10  # the largest class has so many times the images of the smallest


def find(
    source: Source,
    histogram: np.ndarray,
    *,
    images_per_step: int | None = None,
    thorough: bool = False,
    balance: float = 0.0,
) -> list[Finding]:
    """Finds what may surprise, the pictures themselves included.

    Args:
      source: the data.
      histogram: examples of each class [num_classes].
      images_per_step: real images of one update of G, batch_size * num_d_steps, where it is known.
      thorough: decode a sample too, which takes some seconds, for pictures that look alike.
      balance: `data.balance` of the stream.

    Returns:
      The findings. Of a large set a sample is looked at, for about half a second (`looks.SECONDS`)
      unless `thorough`.
    """
    found = [*of_layout(source), *source.remarks, *of_counts(source, histogram, balance)]
    if images_per_step is not None and len(source) < images_per_step:
        found.append(
            Finding(
                f"one step takes {images_per_step:,} images and there are {len(source):,}",
                "batch_size * num_d_steps",
                f"each repeats images; give a smaller {source.wording.batch_size}, or more images",
            )
        )
    return found + looks.of_pictures(source, thorough=thorough)


def of_counts(source: Source, histogram: np.ndarray, balance: float = 0.0) -> list[Finding]:
    """Finds classes with few images, and classes with many more than others.

    Args:
      source: the data.
      histogram: examples of each class [num_classes].
      balance: `data.balance` of the stream.

    Returns:
      The findings.
    """
    found = []
    present = np.flatnonzero(histogram)
    few = present[histogram[present] < FEW]
    if few.size and source.num_classes > 1:
        named = [f"{shown(source.class_names[i])} {histogram[i]}" for i in few]
        what = counts(few.size, "class has", "classes have")
        found.append(
            Finding(
                f"{what} fewer than {FEW} images",
                some(named, 8),
                "the model learns these images by heart; add images, or join classes",
            )
        )
    least, most = (int(histogram[present].min()), int(histogram[present].max()))
    if most >= IMBALANCE * least and most >= FEW:
        names = [source.class_names[int(i)] for i in (histogram.argmax(), _least(histogram))]
        found.append(
            Finding(
                f"the largest class has {most / least:,.3g} times the images of the smallest",
                f"{shown(names[0])} {most:,}, {shown(names[1])} {least:,}",
                _of_rare(most / least, balance),
            )
        )
    return found


def _of_rare(ratio: float, balance: float) -> str:
    """What a stream does to rare classes, and what can be done about it."""
    times = ratio**balance
    if times >= IMBALANCE:
        return (
            f"data.balance {balance:g} shows an image of the smallest about {times:,.3g} times as "
            "often as one of the largest, and the model may learn it by heart; add images of it"
        )
    return (
        "rare classes are seen as rarely in training; add images of them, or train with "
        "data.balance=0.5 (1: every class as often as any other)"
    )


def _least(histogram: np.ndarray) -> int:
    return int(np.where(histogram > 0, histogram, np.iinfo(np.int64).max).argmin())
