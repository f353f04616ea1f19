"""What about a data set may surprise whoever trains on it: found, and said with a remedy."""

from collections.abc import Iterator, Sequence

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
    held_out: Sequence[int] = (),
) -> list[Finding]:
    """Finds what may surprise, the pictures themselves included.

    Args:
      source: the data.
      histogram: examples of each class [num_classes].
      images_per_step: real images of one update of G, batch_size * num_d_steps, where it is known.
      thorough: decode a sample too, which takes some seconds, for pictures that look alike.
      balance: `data.balance` of the stream.
      held_out: examples of each class that are kept out of training, where they are known.

    Returns:
      The findings. Of a large set a sample is looked at, for about half a second (`looks.SECONDS`)
      unless `thorough`.
    """
    found = [*of_layout(source), *source.remarks, *of_counts(source, histogram, balance)]
    found += _of_held_out(source, histogram, held_out)
    if images_per_step is not None and len(source) < images_per_step:
        there = f"there are {len(source):,}" if len(source) > 1 else "there is 1"
        # No batch is that of one image.
        smaller = f"a smaller {source.wording.batch_size}, or " if len(source) > 1 else ""
        found.append(
            Finding(
                f"one step takes {images_per_step:,} images and {there}",
                "batch_size * num_d_steps",
                f"each repeats images; give {smaller}more images",
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
    if few.size:
        named = [f"{shown(source.class_names[i])} {histogram[i]}" for i in few]
        what = counts(few.size, "class has", "classes have")
        found.append(
            Finding(
                f"{what} fewer than {FEW} images",
                some(named, 8),
                "the model learns these images by heart; add images"
                + (", or join classes" if source.num_classes > 1 else ""),
            )
        )
    least, most = (int(histogram[present].min()), int(histogram[present].max()))
    if most >= IMBALANCE * least and most >= FEW:
        names = [source.class_names[int(i)] for i in (histogram.argmax(), _least(histogram))]
        found.append(
            Finding(
                f"the largest class has {most / least:,.3g} times the images of the smallest",
                f"{shown(names[0])} {most:,}, {shown(names[1])} {least:,}",
                _of_rare(most / least, balance, in_lanes=source.num_lanes > 0),
            )
        )
    return found


def _of_held_out(
    source: Source, histogram: np.ndarray, held_out: Sequence[int]
) -> Iterator[Finding]:
    """Classes of which `data.holdout` has taken every image."""
    gone = np.flatnonzero((histogram > 0) & (histogram == np.array(held_out or 0)))
    if gone.size:
        named = [f"{shown(source.class_names[i])} {histogram[i]}" for i in gone]
        yield Finding(
            f"{counts(gone.size, 'class has', 'classes have')} no image to train on",
            some(named, 8),
            "data.holdout keeps all of them out, and the model never sees the class; lower "
            "data.holdout, or add images",
        )


def _of_rare(ratio: float, balance: float, *, in_lanes: bool) -> str:
    """What a stream does to rare classes, and what can be done about it."""
    times = ratio**balance
    if times >= IMBALANCE:
        return (
            f"data.balance {balance:g} shows an image of the smallest about {times:,.3g} times as "
            "often as one of the largest, and the model may learn it by heart; add images of it"
        )
    again = "prepare the records again without lanes and " if in_lanes else ""
    return (
        f"rare classes are seen as rarely in training; add images of them, or {again}train with "
        "data.balance=0.5 (1: every class as often as any other)"
    )


def _least(histogram: np.ndarray) -> int:
    return int(np.where(histogram > 0, histogram, np.iinfo(np.int64).max).argmin())
