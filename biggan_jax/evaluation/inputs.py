"""Real data and features networks by their names, with the natural defaults."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from biggan_jax.data import Source
from biggan_jax.errors import UserError
from biggan_jax.metrics import classifier, dinov2, function, inception
from biggan_jax.metrics.classifier import Classifier, cached
from biggan_jax.metrics.features import Extractor
from biggan_jax.storage import paths

INCEPTION_VARIABLE, DINOV2_VARIABLE = "BIGGAN_INCEPTION", "BIGGAN_DINOV2"
RESIZE = "tf1"  # of published FIDs
CLASSIFIER_BYTES = 2**31  # images that the classifier is fitted on, in memory


def inception_directory(given: Path | None) -> Path:
    """Where the Inception weights are: as given, $BIGGAN_INCEPTION, ~/.cache/biggan_jax/inception.

    Args:
      given: what the user named, if anything.

    Returns:
      The directory, whether or not it exists.
    """
    return _directory(given, INCEPTION_VARIABLE, "inception")


def dinov2_directory(given: Path | None) -> Path:
    """Where DINOv2's weights are: as given, $BIGGAN_DINOV2, ~/.cache/biggan_jax/dinov2."""
    return _directory(given, DINOV2_VARIABLE, "dinov2")


def _directory(given: Path | None, variable: str, name: str) -> Path:
    if given is not None:
        return given
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else Path.home() / ".cache" / "biggan_jax" / name


def features_name(
    asked: str | None,
    inception_given: Path | None,
    channels: int,
    dinov2_given: Path | None = None,
) -> str:
    """Which features network is used.

    Args:
      asked: `inception`, `dinov2`, `classifier` or `module:function`, if the user chose.
      inception_given: directory of Inception weights, if the user named one.
      channels: of the images; Inception has never seen grey ones.
      dinov2_given: directory of DINOv2's weights, if the user named one.

    Returns:
      What was asked for; otherwise `inception` or `dinov2` where its directory is named; otherwise
      `inception` where the images have colours and weights are at hand; otherwise `classifier`.

    Raises:
      UserError: weights are named that are not those of the features.
    """
    given = {"inception": inception_given, "dinov2": dinov2_given}
    named = [name for name, directory in given.items() if directory is not None]
    if asked is None and len(named) == 2:
        raise UserError("--inception and --dinov2: name one, or say which with --features")
    if dinov2_given is not None and asked not in (None, "dinov2"):
        raise UserError(f"--dinov2 {dinov2_given} and {asked} features: leave one of the two out")
    if asked is not None:
        return asked
    if dinov2_given is not None:
        return "dinov2"
    at_hand = (inception_directory(None) / inception.FILE).is_file()
    return "inception" if inception_given or (channels == 3 and at_hand) else "classifier"


def fitted_classifier(
    source: Source,
    stamp: str,
    cache: Path,
    *,
    refit: bool = False,
    progress: Callable[[int, int], None] | None = None,
    option: str = "--features {}",
) -> Classifier:
    """The classifier of a data set, fitted at its first use.

    Args:
      source: the training images.
      stamp: of the source.
      cache: folder of the fitted classifiers.
      refit: fit even if the cache has one.
      progress: called with (steps done, steps in all).
      option: how a user chooses other features, for messages.

    Returns:
      The classifier.

    Raises:
      UserError: the data has a single class, or the cached file is damaged.
    """
    if source.num_classes < 2:
        raise UserError(
            f"{source.spec} has a single class, so no classifier can be fitted: use "
            + option.format("inception")
        )

    def read() -> tuple[np.ndarray, np.ndarray]:
        room = CLASSIFIER_BYTES // (source.resolution**2 * source.channels)
        order = np.random.default_rng(0).permutation(len(source))[:room]
        return source.read(np.sort(order))

    return cached(
        cache,
        stamp,
        read,
        source.num_classes,
        write=paths.write_bytes,
        resolution=source.resolution,
        channels=source.channels,
        refit=refit,
        progress=progress,
    )


def has_classifier(source: Source, stamp: str, cache: Path) -> bool:
    """Whether `fitted_classifier`, which takes the same arguments, has been called before."""
    made = classifier.place(cache, stamp, source.num_classes, source.resolution, source.channels)
    return (made / classifier.FILE).is_file()


def open_inception(given: Path | None, resize: str | None = None) -> Extractor:
    """The FID network from where its weights are; UserError says how to get them."""
    return inception.Inception.load(inception_directory(given), resize=resize or RESIZE)


def open_network(
    name: str,
    inception_given: Path | None,
    resize: str | None,
    size: tuple[int, int],
    dinov2_given: Path | None = None,
) -> Extractor:
    """A features network that is fitted to no data: all but the classifier.

    Args:
      name: of `features_name`.
      inception_given: directory of the Inception weights, if the user named one.
      resize: how images reach Inception.
      size: side in pixels and channels of the images that it will get.
      dinov2_given: directory of DINOv2's weights, if the user named one.

    Returns:
      The network.

    Raises:
      UserError: no weights, or no such function; it says what to do.
    """
    if function.is_name(name):
        return function.Function(name, *size)
    if name == "dinov2":
        return dinov2.DINOv2.load(dinov2_directory(dinov2_given))
    return open_inception(inception_given, resize)


def check_resize(resize: str | None, features: str) -> None:
    """Raises UserError where a resize rule is given and the features network has its own."""
    if resize is not None and features != "inception":
        raise UserError(
            f"--resize {resize} and {features} features, which have a rule of their own: "
            "leave --resize out, or give --features inception"
        )
