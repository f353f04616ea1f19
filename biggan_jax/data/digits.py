"""scikit-learn's 1,797 handwritten digits, which need no download."""

import numpy as np

from biggan_jax.data.arrays import ArraySource
from biggan_jax.errors import UserError

# Of each class every fifth image is a test image: stratified, and free of any library's generator.
TEST_EVERY = 5


def open_spec(
    spec: str, argument: str, *, resolution: int, channels: int, on_bad_record: str
) -> ArraySource:
    """Opens the digits, or their fixed stratified split.

    Args:
      spec: the text that asked for it.
      argument: empty (all 1,797 images), `train` (about 80%) or `test` (the rest).
      resolution: side of the images in pixels; the originals have 8.
      channels: 1 or 3.
      on_bad_record: means nothing here, since there is nothing to decode.

    Returns:
      A source in memory with classes '0' to '9'.

    Raises:
      UserError: there is no such split.
    """
    if argument not in ("", "train", "test"):
        raise UserError(
            f"digits has no split {argument!r}; write digits, digits:train or digits:test"
        )
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 255 / 16).astype(np.uint8)  # stored as 0..16
    labels = bunch.target.astype(np.int32)
    if argument:
        keep = _in_test(labels) == (argument == "test")
        images, labels = images[keep], labels[keep]
    names = [str(digit) for digit in range(10)]
    return ArraySource(spec, images, labels, names, resolution=resolution, channels=channels)


def _in_test(labels: np.ndarray) -> np.ndarray:
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return chosen
