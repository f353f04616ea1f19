"""The classifier's features: accuracy, determinism, files, devices and bad input."""

import json

import jax
import numpy as np
import pytest

from biggan_jax.data import open_source
from biggan_jax.errors import UserError
from biggan_jax.metrics import classifier
from biggan_jax.metrics.classifier import Classifier
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.storage import paths

SHORT = Recipe(epochs=4, batch_size=64)
ONE_STEP = Recipe(max_images=10, holdout=0.5)
ONE = jax.devices()[:1]


def read(split):
    source = open_source(f"digits:{split}", resolution=8, channels=1)
    return source.read(range(len(source)))


@pytest.fixture(scope="module")
def digits():
    return read("train")


@pytest.fixture(scope="module")
def fitted(digits):
    return classifier.fit(*digits, 10, recipe=SHORT, devices=ONE)


@pytest.fixture
def tiny(digits):
    """One image of each class."""
    images, labels = digits
    _, first = np.unique(labels, return_index=True)
    return images[first], labels[first]


def test_learns_digits(fitted):
    images, labels = read("test")
    _, logits = fitted.features(images)
    accuracy = (logits.argmax(-1) == labels).mean()
    assert accuracy > 0.93
    assert abs(fitted.meta["holdout_accuracy"] - accuracy) < 0.05
    assert fitted.meta["holdout_count"] == pytest.approx(0.1 * 1442, abs=6)


def test_features_tell_classes_apart(fitted):
    images, labels = read("test")
    features, logits = fitted.features(images)
    assert features.shape == (len(images), fitted.feature_dim) and logits.shape[1] == 10
    assert features.dtype == logits.dtype == np.float32
    centre = np.stack([features[labels == k].mean(0) for k in range(10)])
    nearest = ((features[:, None] - centre) ** 2).sum(-1).argmin(1)
    assert (nearest == labels).mean() > 0.9


@pytest.mark.full
def test_the_same_seed_gives_the_same_weights(fitted, digits):
    again = classifier.fit(*digits, 10, recipe=SHORT, devices=ONE)
    assert again.digest == fitted.digest and again.meta == fitted.meta
    other = classifier.fit(*digits, 10, recipe=SHORT, devices=ONE, seed=1)
    assert other.digest != fitted.digest


def test_eight_devices_and_any_batch_give_what_one_does(fitted):
    images = read("test")[0][:53]
    want, want_logits = fitted.features(images)
    eight = Classifier(fitted.variables, fitted.meta, batch_size=20)
    assert len(jax.devices()) == 8 and eight._run.batch_size == 24
    got, got_logits = eight.features(images)
    assert got.shape == want.shape  # three batches, the last one padded
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got_logits, want_logits, atol=1e-4)


def test_save_and_load(fitted, tmp_path):
    paths.write_bytes(tmp_path / "c" / classifier.FILE, fitted.to_bytes())
    loaded = Classifier.load(tmp_path / "c", devices=ONE)
    assert loaded.digest == fitted.digest and loaded.meta == fitted.meta
    images = read("test")[0][:5]
    np.testing.assert_array_equal(loaded.features(images)[1], fitted.features(images)[1])
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["classifier.npz"]


def test_damage_is_noticed(fitted, tmp_path):
    with pytest.raises(UserError, match="no classifier in .*: fit one and save it there"):
        Classifier.load(tmp_path)
    paths.write_bytes(tmp_path / classifier.FILE, fitted.to_bytes())
    path = tmp_path / "classifier.npz"
    with np.load(path) as file:
        arrays = dict(file)
    name = "params/Dense_0/bias"
    np.savez(path, **(arrays | {name: arrays[name] + 1}))
    with pytest.raises(UserError, match="is damaged: delete it, and it is fitted again"):
        Classifier.load(tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read"):
        Classifier.load(tmp_path)


def test_the_cache_knows_the_data_and_the_settings(tiny, tmp_path):
    reads = []

    def fit(data_digest="a", **settings):
        def read():
            reads.append(data_digest)
            return tiny

        return classifier.cached(
            tmp_path, data_digest, read, 10, write=paths.write_bytes,
            resolution=8, channels=1, recipe=ONE_STEP, devices=ONE, **settings,
        )  # fmt: skip

    first = fit()
    assert fit().digest == first.digest and reads == ["a"]
    assert first.meta["data_digest"] == fit().meta["data_digest"] == "a"
    fit("b")
    assert reads == ["a", "b"]
    assert fit(seed=1).digest != first.digest and reads == ["a", "b", "a"]
    assert fit(refit=True).digest == first.digest and len(reads) == 4


def test_the_last_image_of_a_class_is_not_held_out(tiny):
    fitted = classifier.fit(*tiny, 10, recipe=ONE_STEP, devices=ONE)
    assert fitted.meta["holdout_accuracy"] is None and fitted.meta["train_count"] == 10
    assert json.loads(json.dumps(fitted.meta, allow_nan=False)) == fitted.meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(np.float32) * np.nan, y), "640 values that are NaN"),
        (lambda x, y: (x[..., 0], y), r"these are \[10, 8, 8\]"),
        (lambda x, y: (x[:, :4], y), r"square images of at least 4 pixels, these are \[4, 8\]"),
        (lambda x, y: (x, y[:-1]), r"labels must be integers \[10\]"),
        (lambda x, y: (x, y.astype(np.float32)), "these are float32"),
        (lambda x, y: (x, y + 1), "labels range from 1 to 10, but 10 classes allow 0 to 9"),
    ],
)
def test_bad_data(tiny, change, message):
    with pytest.raises(UserError, match=message):
        classifier.fit(*change(*tiny), 10, recipe=ONE_STEP)


def test_images_of_another_shape(fitted):
    with pytest.raises(UserError, match=r"fitted on images \[8, 8, 1\], these are \[16, 16, 1\]"):
        fitted.features(np.zeros((2, 16, 16, 1), np.uint8))
