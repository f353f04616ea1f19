"""TFDS data sets, really prepared and really read, without TensorFlow."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import downloader

from biggan_jax.data import Batches, buckets, data_report, open_source
from biggan_jax.data.tfds_prepare import no_retries_when_offline
from biggan_jax.data.tfds_source import TfdsSource
from biggan_jax.errors import UserError
from biggan_jax.storage.label_counts import cached_report
from launch.fake_bucket import FakeBucket, install


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


class _Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    NAMES = {"image": tfds.features.Image(shape=(None, None, 3))}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({**self.NAMES, **self.LABEL})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(i), next(iter(self.LABEL)): i % 3}


class BigganTiny(_Tiny):
    LABEL = {"label": tfds.features.ClassLabel(names=["ant", "bee", "cat"])}

    def _generate_examples(self, count):
        # Shuffling by key hides the order, so the test split carries an unknown label instead.
        for i in range(count):
            yield i, {"image": png(i), "label": i % 3 if count == 10 else -1}


class BigganTinyNoLabel(_Tiny):
    LABEL = {"species": tfds.features.ClassLabel(num_classes=3)}


class BigganTinyScalar(_Tiny):
    LABEL = {"label": np.int64}


class BigganTinyBroken(_Tiny):
    LABEL = BigganTiny.LABEL

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(i) if i else b"no image", "label": i % 3}


class BigganTinyUnpreparable(_Tiny):
    LABEL = BigganTiny.LABEL

    def _split_generators(self, dl_manager):
        raise OSError("no route\nto host")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(autouse=True)
def _use_data_dir(data_dir, monkeypatch):
    # TFDS_DATA_DIR is read once, when TFDS is imported.
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(data_dir))


def open_tfds(rest, **settings):
    return open_source(f"tfds:{rest}", **{"resolution": 8, "channels": 3, **settings})


def refusal(rest):
    with pytest.raises(UserError) as caught:
        open_tfds(rest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unprepared_data_set_is_prepared_and_read(capsys):
    source = open_tfds("biggan_tiny")
    assert capsys.readouterr().out == ""
    images, labels = source.read(range(10))
    assert images.shape == (10, 8, 8, 3) and images.dtype == np.uint8
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(10))
    np.testing.assert_array_equal(images[:, 0, 0, 0] % 3, labels)
    assert (len(source), source.class_names) == (10, ("ant", "bee", "cat"))
    assert open_tfds("biggan_tiny", channels=1).read([0])[0].shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("rest", "count"),
    [
        ("biggan_tiny:train", 10),
        ("biggan_tiny:test", 4),
        ("biggan_tiny:1.0.0", 10),
        ("biggan_tiny:1.0.0:test", 4),
        ("biggan_tiny:train[:50%]", 5),
        ("biggan_tiny:train[2:]+test", 12),
    ],
)
def test_versions_and_splits(rest, count):
    assert len(open_tfds(rest)) == count


def test_the_digest_tells_splits_apart_and_is_stable():
    rests = ("biggan_tiny", "biggan_tiny:train", "biggan_tiny:test", "biggan_tiny:train[:5]")
    digests = [open_tfds(rest).digest() for rest in rests]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_labels_are_scanned_once_without_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(TfdsSource, "_decode", None)
    first = cached_report(open_tfds("biggan_tiny"), tmp_path)
    assert first.histogram == (4, 3, 3)
    monkeypatch.setattr(TfdsSource, "histogram", None)
    assert cached_report(open_tfds("biggan_tiny"), tmp_path) == first


def test_unknown_labels_are_refused():
    source = open_tfds("biggan_tiny:test")
    with pytest.raises(UserError, match="from -1 to -1"):
        data_report(source)
    batches = Batches(source, seed=0, batch_size=2)
    with pytest.raises(UserError, match="label -1, outside 0 to 2"):
        next(batches)
    batches.close()


def test_an_unknown_name_gives_the_nearest():
    message = refusal("cifar1")
    assert "cifar10" in message and "TFDS_DATA_DIR" in message


def test_an_unknown_split_gives_the_splits():
    open_tfds("biggan_tiny")
    message = refusal("biggan_tiny:validation")
    assert "'validation'" in message and "test, train" in message
    assert "biggan_tiny" in refusal("biggan_tiny:train[:5")


@pytest.mark.parametrize("rest", ["biggan_tiny:9.9.9", "biggan_tiny/no_config", "no!name"])
def test_a_name_that_does_not_open_is_one_line(rest):
    assert rest in refusal(rest)


def test_features_that_are_absent_are_named_before_any_download(data_dir):
    message = refusal("biggan_tiny_no_label")
    assert not (data_dir / "biggan_tiny_no_label").exists()
    assert "'label'" in message and "species (ClassLabel)" in message
    assert "'label' of type ClassLabel" in refusal("biggan_tiny_scalar")


def test_a_data_set_that_cannot_be_prepared_says_why():
    message = refusal("biggan_tiny_unpreparable")
    assert "no route" in message and "TFDS_DATA_DIR" in message


def test_a_builder_that_needs_tensorflow_says_how_to_get_it(monkeypatch):
    """As TFDS's lazy import fails inside a builder where TensorFlow is not installed."""

    def prepare(self, **_):
        try:
            raise ModuleNotFoundError("No module named 'tensorflow'")
        except ImportError as error:
            raise RuntimeError("Failed to construct dataset") from error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    message = refusal("biggan_tiny_unpreparable")
    assert "pip install 'biggan_jax[tensorflow]'" in message and "TFDS_DATA_DIR" in message


def test_offline_downloads_are_not_retried(monkeypatch):
    def no_address(*_):
        raise OSError("no address")

    builder = tfds.builder("cifar10")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    for resolve, retried in ((no_address, False), (lambda *_: [], True)):
        monkeypatch.setattr("socket.getaddrinfo", resolve)
        with no_retries_when_offline(builder):
            assert bool(downloader.MAX_RETRIES) == retried
        assert downloader.MAX_RETRIES > 0


def test_a_format_without_random_access_is_named(data_dir, monkeypatch, tmp_path):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    folder = tmp_path / "biggan_tiny" / "1.0.0"
    prepared = data_dir / "biggan_tiny" / "1.0.0"
    builder = tfds.builder("biggan_tiny", data_dir=data_dir)
    builder.download_and_prepare(file_format="array_record")
    folder.mkdir(parents=True)
    for path in prepared.iterdir():
        text = path.name.replace("array_record", "tfrecord")
        content = path.read_bytes()
        if path.suffix == ".json":
            content = content.replace(b"array_record", b"tfrecord")
        (folder / text).write_bytes(content)
    message = refusal("biggan_tiny")
    assert "tfrecord" in message and "file_format='array_record'" in message


def test_bad_records_are_errors_or_skipped():
    strict = open_tfds("biggan_tiny_broken")
    with pytest.raises(UserError, match=r"record \d+ of tfds:biggan_tiny_broken.*on_bad_record"):
        strict.read(range(10))
    source = open_tfds("biggan_tiny_broken", on_bad_record="skip")
    images, labels = source.read(range(10))
    assert source.bad_records == 1
    values = images[:, 0, 0, 0].tolist()
    assert len(set(values)) == 9
    # The image in its place is one of its own class, wherever the next of that class is.
    assert len(set(zip(values, labels.tolist(), strict=True))) == 9
    for index in range(10):
        others = source._others_of_class(index, int(labels[index]))
        found = [i for i, _ in others]
        own = [(index + k) % 10 for k in range(1, 10) if labels[(index + k) % 10] == labels[index]]
        assert found == own


def test_no_tensorflow_in_the_reading_pipeline(data_dir):
    open_tfds("biggan_tiny")
    code = (
        "import sys\n"
        "from biggan_jax.data import Batches, data_report, open_source\n"
        "source = open_source('tfds:biggan_tiny', resolution=8, channels=3)\n"
        "batches = Batches(source, seed=0, batch_size=4, num_d_steps=2, flip=True)\n"
        "assert next(batches)['image'].shape == (2, 4, 8, 8, 3)\n"
        "batches.close()\n"
        "assert data_report(source).examples == 10\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_data_set_in_a_bucket_is_staged_and_read_like_a_local_one(
    data_dir, tmp_path, monkeypatch
):
    local = open_tfds("biggan_tiny")
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", "gs://bucket/tfds")
    monkeypatch.setattr(buckets, "FIRST_WAIT", 1e-3)
    (tmp_path / "gs" / "bucket").mkdir(parents=True)
    (tmp_path / "gs" / "bucket" / "tfds").symlink_to(data_dir)
    bucket = FakeBucket(tmp_path / "gs")
    install(bucket, monkeypatch.setattr, monkeypatch.setitem)
    assert "set --config.data.stage=FOLDER, to which they are copied" in refusal("biggan_tiny")
    staged = open_tfds("biggan_tiny", stage=str(tmp_path / "stage"))
    assert not [name for name in bucket.reads if "array_record" in name]
    streams = [Batches(s, seed=1, batch_size=4, flip=True) for s in (local, staged)]
    for _ in range(6):
        here, there = map(next, streams)
        assert all(np.array_equal(here[key], there[key]) for key in here)
    shards = {name for name in bucket.reads if "array_record" in name}
    assert shards and all("-train." in name and bucket.reads[name] == 1 for name in shards)
    assert staged.digest() == staged.stamp() == local.digest()
    for stream in streams:
        stream.close()
    part = [open_tfds("biggan_tiny:train[4:9]", stage=str(tmp_path / s)) for s in ("stage", "part")]
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(data_dir))
    part.append(open_tfds("biggan_tiny:train[4:9]"))
    assert len({source.read(range(5))[0].tobytes() for source in part}) == 1
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", "gs://bucket/tfds")
    with pytest.raises(UserError, match="has no split 'no'"):
        open_tfds("biggan_tiny:no", stage=str(tmp_path / "stage"))
    bucket.missing |= shards
    with pytest.raises(UserError, match="cannot be staged .* prepare biggan_tiny/1.0.0 in the"):
        open_tfds("biggan_tiny", stage=str(tmp_path / "other")).read([0])
