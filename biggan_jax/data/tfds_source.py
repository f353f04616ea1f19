"""TensorFlow Datasets read at random, without TensorFlow.

`import tensorflow_datasets` and its data_source load no TensorFlow; preparing a data set may.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from biggan_jax.data import buckets, tfds_prepare
from biggan_jax.data.decoding import DecodingSource, Encoded
from biggan_jax.data.files import stamp_of_files
from biggan_jax.data.source import count_labels, one_line
from biggan_jax.data.tfds_stage import StagedBuilder
from biggan_jax.errors import UserError, did_you_mean

logger = logging.getLogger(__name__)

_SCAN_SIZE = 1024  # examples per read when only labels are wanted
# A version looks like 1.2.3 or 1.*.*; a split may hold a colon itself, as in train[:10%].
_ARGUMENT = re.compile(
    r"(?P<name>[^:\s]+(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(?P<split>[^\s:].*))?", re.ASCII
)


def open_spec(
    spec: str,
    argument: str,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str,
    stage: str | None = None,
    stage_gb: float | None = None,
) -> "TfdsSource":
    """Opens the data set that `tfds:NAME[:SPLIT]` names; see `TfdsSource`.

    NAME may go on with /config and :version; the split is `train` unless given. UserError for an
    argument that is not of this form.
    """
    match = _ARGUMENT.fullmatch(argument)
    if match is None:
        raise UserError("malformed; write tfds:NAME or tfds:NAME:SPLIT")
    return TfdsSource(
        spec,
        match["name"],
        match["split"] or "train",
        resolution=resolution,
        channels=channels,
        on_bad_record=on_bad_record,
        stage=stage,
        stage_gb=stage_gb,
    )


def to_prepare(argument: str) -> str | None:
    """What opening a data set would have to do first.

    Args:
      argument: what follows `tfds:`.

    Returns:
      A line about the download, or None where the data set is prepared.

    Raises:
      UserError: there is no such data set, or it wants files that are not there.
    """
    match = _ARGUMENT.fullmatch(argument)
    builder = _find_builder(match["name"]) if match else None
    if builder is None or tfds_prepare.is_prepared(builder):
        return None
    tfds_prepare.check_manual_files(builder, match["name"])
    return f"TFDS data set {match['name']!r} is not prepared in {builder.data_dir}"


class TfdsSource(DecodingSource):
    """One split of a TFDS data set with the features `image` and `label`.

    Args:
      spec: the text that opened this source.
      name: TFDS name, with an optional /config and :version.
      split: a split, such as `train`, `test` or `train[:10%]`.
      resolution: side of the images in pixels.
      channels: 1 or 3.
      on_bad_record: `error` or `skip`.
      stage: a folder of a local disk, to which the split is copied where it lies in a bucket.
      stage_gb: how much of it this process may take, in 10**9 bytes.

    Raises:
      UserError: the data set or split is unknown, cannot be prepared or read at random, or lacks
        an image and a class label.
    """

    histogram_is_cheap = False

    def __init__(
        self,
        spec: str,
        name: str,
        split: str,
        *,
        resolution: int,
        channels: int,
        on_bad_record: str,
        stage: str | None = None,
        stage_gb: float | None = None,
    ):
        buckets.reach(tfds.core.constants.DATA_DIR, write=False)
        builder = _find_builder(name)
        features = _check_features(name, builder.info.features)  # before any download
        tfds_prepare.make_readable(builder, name)
        super().__init__(
            spec,
            resolution=resolution,
            channels=channels,
            class_names=features["label"].names,
            on_bad_record=on_bad_record,
        )
        self._records = _open_split(builder, name, split, features)
        self._staged = None
        if buckets.is_remote(builder.data_dir):
            self._staged = StagedBuilder(builder, split, stage, stage_gb)
            builder = self._staged.builder
            self._records = self._staged.waiting(_open_split(builder, name, split, features))
        self._full_name, self._split = builder.info.full_name, split
        self._data_dir = str(builder.data_dir)

    def __len__(self) -> int:
        return len(self._records)

    def expect(self, first: np.ndarray, others: np.ndarray, *, tell: bool) -> None:
        if self._staged is not None:
            self._staged.expect(first, others, tell=tell)

    def _encoded(self, indices: Sequence[int]) -> list[Encoded]:
        return [
            Encoded(f"record {i} of {self.spec}", record["image"], int(record["label"]))
            for i, record in zip(indices, self._fetch(indices), strict=True)
        ]

    def histogram(self) -> np.ndarray:
        """Counts the examples of each class by reading all labels, which takes a while."""
        if len(self) > 100_000:
            logger.warning("counting the labels of %s once: %d examples", self.spec, len(self))
        labels = np.empty(len(self), np.int64)
        for part in np.array_split(np.arange(len(self)), -(-len(self) // _SCAN_SIZE)):
            labels[part] = [record["label"] for record in self._fetch(part)]
        return count_labels(labels, self.num_classes, self.spec)

    def digest(self) -> str:
        """Hash of name, configuration, version, split and count.

        These are what identifies a data set of TFDS; its files differ with the version of TFDS
        that prepared them.
        """
        identity = [self._full_name, self._split, len(self), list(self.class_names)]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def stamp(self) -> str:
        """Hash of the digest and of the names, sizes and times of the prepared files."""
        return self.digest() if self._staged else stamp_of_files(self.digest(), self._data_dir)

    def _fetch(self, indices: Sequence[int]) -> Sequence[dict]:
        if not len(indices):
            return []
        try:
            return self._records.__getitems__([int(i) for i in indices])
        except RuntimeError as error:
            raise UserError(
                f"{self.spec}: a file of {self._full_name} is damaged ({one_line(error)}); delete "
                f"{self._data_dir} and prepare it again"
            ) from error


def _find_builder(name: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        hint = did_you_mean(name.split("/")[0].split(":")[0], known)
        raise UserError(
            f"TFDS knows no data set {name!r}{hint}; correct the name, or set TFDS_DATA_DIR to the "
            "folder where it was prepared"
        ) from error
    except Exception as error:  # builders raise what they like
        raise UserError(
            f"TFDS cannot open {name!r} ({one_line(error)}); choose another data set"
        ) from error


def _check_features(name: str, features) -> dict:
    """The features by name, of which `image` and `label` are what they must be."""
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    found = dict(features.items()) if is_dict else {}
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in kinds.items():
        if not isinstance(found.get(key), kind):
            there = ", ".join(f"{k} ({type(f).__name__})" for k, f in found.items()) or "no names"
            raise UserError(
                f"TFDS data set {name!r} has no feature {key!r} of type {kind.__name__}; "
                f"there are: {there}; choose another data set"
            )
    if found["image"].np_dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"TFDS data set {name!r} has images of type {found['image'].np_dtype}; only uint8 and "
            "uint16 are read"
        )
    if not found["label"].num_classes:
        raise UserError(f"TFDS data set {name!r} does not say how many classes it has")
    return found


def _open_split(builder, name: str, split: str, features: dict) -> Sequence[dict]:
    # Images arrive as their file's bytes: they are decoded in threads, and not for a label scan.
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in images}
    try:
        records = builder.as_data_source(split=split, decoders=decoders)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"TFDS data set {name!r} has no split {split!r} ({one_line(error)}); its splits: "
            f"{', '.join(sorted(builder.info.splits))}; write tfds:{name}:SPLIT"
        ) from error
    if not len(records):
        raise UserError(f"split {split!r} of TFDS data set {name!r} is empty; choose another")
    return records
