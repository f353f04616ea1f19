"""Digits and Fashion-MNIST: the sources that lie in memory."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from biggan_jax.data import arrays, open_source
from biggan_jax.errors import UserError


def idx_bytes(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion(folder, count=20, compress=True):
    rng = np.random.default_rng(0)
    arrays_by_name = {}
    for prefix, n in (("train", count), ("t10k", count // 2)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx_bytes(array)
            path = folder / f"{prefix}-{name}-ubyte"
            if compress:
                path, data = path.with_name(path.name + ".gz"), gzip.compress(data)
            path.write_bytes(data)
            arrays_by_name[f"{prefix}-{name}"] = array
    return arrays_by_name


def open_fashion(folder, split="", resolution=28, channels=1):
    return open_source(f"fashion_mnist:{folder}{split}", resolution=resolution, channels=channels)


def refusal(folder, split=""):
    with pytest.raises(UserError) as caught:
        open_fashion(folder, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_at_their_own_size_are_the_scaled_originals():
    from sklearn.datasets import load_digits

    source = open_source("digits", resolution=8, channels=1)
    images, labels = source.read([0, 1796, 7])
    originals = load_digits()
    want = (originals.images[[0, 1796, 7]] * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(images[..., 0], want)
    np.testing.assert_array_equal(labels, originals.target[[0, 1796, 7]])
    assert (len(source), source.num_classes, source.bad_records) == (1797, 10, 0)
    assert source.class_names == tuple("0123456789")
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.max() == 255


def test_digits_are_resized_bilinearly_and_grey_fills_all_channels():
    small = open_source("digits", resolution=8, channels=1).read([5])[0][0, ..., 0]
    images, _ = open_source("digits", resolution=20, channels=3).read([5])
    want = np.asarray(Image.fromarray(small).resize((20, 20), Image.Resampling.BILINEAR))
    assert images.shape == (1, 20, 20, 3)
    for channel in range(3):
        np.testing.assert_array_equal(images[0, ..., channel], want)


def test_digits_train_and_test_partition_every_class():
    parts = {s: open_source(s, resolution=8, channels=1) for s in ("digits:train", "digits:test")}
    whole = open_source("digits", resolution=8, channels=1)
    train, test = (parts[s].histogram() for s in parts)
    np.testing.assert_array_equal(train + test, whole.histogram())
    assert np.all(np.abs(test / whole.histogram() - 0.2) < 0.01)
    pixels = [
        {image.tobytes() for image in s.read(range(len(s)))[0]} for s in (*parts.values(), whole)
    ]
    assert not pixels[0] & pixels[1]
    assert pixels[0] | pixels[1] == pixels[2]
    assert len({s.digest() for s in (*parts.values(), whole)}) == 3


def test_digits_digest_is_stable():
    digests = {open_source("digits", resolution=r, channels=1).digest() for r in (8, 8, 16)}
    assert len(digests) == 1


@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_reads_both_splits(tmp_path, compress):
    written = write_fashion(tmp_path, compress=compress)
    for split, prefix in (("", "train"), (":train", "train"), (":test", "t10k")):
        source = open_fashion(tmp_path, split)
        images, labels = source.read(range(len(source)))
        np.testing.assert_array_equal(images[..., 0], written[f"{prefix}-images-idx3"])
        np.testing.assert_array_equal(labels, written[f"{prefix}-labels-idx1"])
    assert source.class_names[0] == "T-shirt/top"
    assert source.num_classes == 10
    assert source.histogram().tolist() == [1] * 10


def test_resizing_on_reading_equals_resizing_at_once(tmp_path, monkeypatch):
    write_fashion(tmp_path)
    at_once = open_fashion(tmp_path, resolution=32, channels=3).read([3, 19])
    monkeypatch.setattr(arrays, "PRELOAD_BYTES", 0)
    on_reading = open_fashion(tmp_path, resolution=32, channels=3).read([3, 19])
    np.testing.assert_array_equal(at_once[0], on_reading[0])
    assert at_once[0].shape == (2, 32, 32, 3)


def test_indices_out_of_range_are_refused():
    source = open_source("digits", resolution=8, channels=1)
    for index in (-1, 1797):
        with pytest.raises(IndexError):
            source.read([index])


def test_fashion_mnist_missing_folder_and_file(tmp_path):
    assert str(tmp_path / "no") in refusal(tmp_path / "no")
    assert "train-images-idx3-ubyte" in refusal(tmp_path)
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte" in refusal(tmp_path, ":test")
    assert "train or FOLDER:test" in refusal(tmp_path, ":valid")


def test_fashion_mnist_damaged_files_are_named(tmp_path):
    write_fashion(tmp_path, compress=False)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    whole, whole_labels = images.read_bytes(), labels.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:10], b"", b"\0\0\x0d\3" + whole[4:]):
        images.write_bytes(damaged)
        assert str(images) in refusal(tmp_path)
    images.write_bytes(whole)
    labels.write_bytes(idx_bytes(np.zeros(19)))
    message = refusal(tmp_path)
    assert "20 images" in message and "19 labels" in message
    labels.write_bytes(whole_labels[:-1] + bytes([10]))
    assert "labels from 0 to 10" in refusal(tmp_path)


def test_fashion_mnist_truncated_gzip_is_named(tmp_path):
    write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no gzip", whole[:40] + bytes(40) + whole[80:]):
        path.write_bytes(damaged)
        assert str(path) in refusal(tmp_path)
