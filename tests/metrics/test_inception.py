"""The FID Inception against torch-fidelity's outputs on given weights, and its import."""

import hashlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

from biggan_jax.errors import UserError
from biggan_jax.interop import inception as interop
from biggan_jax.interop.files import Tensors
from biggan_jax.metrics import inception, network_files, resize
from biggan_jax.metrics.inception import PUBLISHED_NAME, Inception
from tests.evaluation import peer_scores
from tests.metrics import inception_recipe


@pytest.fixture(scope="module")
def peer():
    return np.load(inception_recipe.FIXTURE)


@pytest.fixture(scope="module")
def shapes():
    return inception_recipe.shapes()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The recipe's weights, imported from a file."""
    tensors = inception_recipe.tensors()
    folder = tmp_path_factory.mktemp("inception")
    save_file(tensors, folder / "recipe.safetensors")
    done = interop.import_inception(
        [folder / "recipe.safetensors"], folder / "out", any_weights=True
    )
    assert done["parameters"] == 23_885_392 and not done["published"]
    return folder / "out"


@pytest.fixture(scope="module")
def tf1(directory):
    return Inception.load(directory, batch_size=2, devices=jax.devices()[:1])


def nhwc(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6 * np.abs(want).max())


def test_features_and_logits_are_torch_fidelitys(tf1, peer):
    out = tf1(nhwc(peer["in/images_uint8_nchw"]))
    assert_close(out["features"], peer["tf1_resize/2048"])
    assert_close(out["logits"], peer["tf1_resize/logits"])
    assert_close(out["logits_unbiased"], peer["tf1_resize/logits_unbiased"])
    assert {v.dtype for v in out.values()} == {np.dtype(np.float32)}
    assert tf1.feature_dim == 2048 and tf1.resize == "tf1 bilinear to 299, float32"


def test_images_of_299_pixels_are_not_resized(tf1, peer):
    small = nhwc(peer["in299/image_uint8_23x23_repeat13_nchw"])
    out = tf1(small.repeat(13, axis=1).repeat(13, axis=2))  # one image: the batch of 2 is padded
    assert out["features"].shape == (1, 2048)
    assert_close(out["features"], peer["in299/2048"])
    assert_close(out["logits"], peer["in299/logits"])


def by_rule(directory, rule):
    return Inception.load(directory, resize=rule, batch_size=2, devices=jax.devices()[:1])


def test_the_clean_rule_is_clean_fids(directory):
    images = peer_scores.far()[0]
    with np.load(peer_scores.FIXTURE) as file:
        want = file["clean/features"]
    assert_close(by_rule(directory, "clean")(images[:2])["features"], want)


def test_the_other_resize_rule_is_pytorch_fids(directory, peer):
    out = by_rule(directory, "pytorch_fid")(nhwc(peer["in/images_uint8_nchw"]))
    assert_close(out["features"], peer["pytorchfid_resize/2048"])
    assert_close(out["logits"], peer["pytorchfid_resize/logits"])


def test_grey_images_count_as_rgb(tf1):
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    out, rgb = tf1(grey), tf1(grey.repeat(3, axis=-1)[1:])
    # The same row, in a full batch and in a padded one.
    np.testing.assert_allclose(out["features"][1:], rgb["features"], rtol=1e-5, atol=1e-6)


def test_tf1_resize(peer):
    x = nhwc(peer["in/images_uint8_nchw"]).astype(np.float32)
    got = np.asarray(resize.resized(x, 299, "tf1"))
    want = peer["tf1_resize/resized_image0_channel0_rows0_8"]
    np.testing.assert_allclose(got[0, :8, :, 0], want, atol=5e-4)
    every13 = peer["tf1_resize/resized_image1_every13"]
    np.testing.assert_allclose(got[1, ::13, ::13].transpose(2, 0, 1), every13, atol=5e-4)


@pytest.mark.parametrize("rule", resize.RULES)
def test_resize_weights(rule):
    for size in (1, 3, 64, 512):
        weights = resize.matrix(size, 299, rule)
        np.testing.assert_allclose(weights.sum(1), 1)
        if rule == "clean":
            assert (weights != 0).sum(1).max() <= np.ceil(4 * max(1, size / 299))
        else:
            assert weights.min() >= 0 and (weights > 0).sum(1).max() <= 2
    # Half-pixel centres are symmetric, TensorFlow 1's rule hangs to the upper left.
    weights = resize.matrix(7, 5, rule)
    assert np.allclose(weights, weights[::-1, ::-1]) == (rule != "tf1")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((1, 4, 4, 3), np.nan, np.float32), "48 values that are NaN"),
        (np.zeros((1, 4, 4, 3), np.float32), r"must be uint8, these are float32 \[1, 4, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), np.int64), "must be uint8, these are int64"),
        (np.zeros((4, 4, 3), np.uint8), r"these are \[4, 4, 3\]"),
        (np.zeros((1, 4, 4, 4), np.uint8), r"these are \[1, 4, 4, 4\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"these are \[0, 4, 4, 3\]"),
    ],
)
def test_bad_images(tf1, images, message):
    with pytest.raises(UserError, match=message):
        tf1(images)


def test_a_file_with_another_digest_is_refused(tmp_path):
    path = tmp_path / PUBLISHED_NAME
    path.write_bytes(b"not the weights")
    digest = hashlib.sha256(b"not the weights").hexdigest()
    with pytest.raises(UserError, match=f"has sha256 {digest}, .* begins with 6726825d"):
        interop.import_inception([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_weights_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match="download https://.*6726825d.pth .*biggan import --format"):
        Inception.load(tmp_path)
    with pytest.raises(UserError, match="no file .*6726825d.pth: download https://"):
        interop.import_inception([tmp_path], tmp_path / "out")
    with pytest.raises(UserError, match="one file, got 2"):
        interop.import_inception([tmp_path, tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.weight": (1000, 2048)}, r"fc.weight is \[1000, 2048\] .* has \[1008, 2048\]"),
        ({"Mixed_7c.branch_pool.bn.bias": None}, "no tensor Mixed_7c.branch_pool.bn.bias"),
        ({"AuxLogits.fc.bias": (1000,)}, "has AuxLogits.fc.bias"),
        ({"Conv2d_1a_3x3.bn.num_batches_tracked": ()}, None),
    ],
)
def test_only_this_network_is_taken(shapes, change, message):
    changed = {k: v for k, v in {**shapes, **change}.items() if v is not None}
    tensors = Tensors(Path("f.pth"), changed, lambda key: np.zeros(changed[key], np.float32))
    if message is None:
        assert set(interop.convert(tensors)["fc"]) == {"kernel"}
    else:
        with pytest.raises(UserError, match=message):
            interop.convert(tensors)


def test_weights_with_nan_are_refused(shapes):
    tensors = Tensors(Path("f.pth"), shapes, lambda key: np.full(shapes[key], np.nan, np.float32))
    with pytest.raises(UserError, match="in f.pth holds NaN"):
        interop.convert(tensors)


def test_damaged_weights_are_noticed(tmp_path):
    path = tmp_path / "inception.npz"
    weights = {"fc": {"kernel": np.ones(3, np.float32)}}
    path.write_bytes(network_files.to_bytes(weights, {"digest": "d"}))
    with np.load(path) as file:
        record = file["record"]
    np.savez(path, record=record, **{"fc/kernel": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="is damaged: import the weights again"):
        Inception.load(tmp_path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read"):
        Inception.load(tmp_path)


def test_an_unknown_resize_rule_is_refused():
    with pytest.raises(UserError, match="no resize rule 'cubic': choose one of"):
        Inception({}, "digest", resize="cubic")


@pytest.mark.full
def test_every_device_computes_its_own_images_one_by_one(tf1, directory):
    images = np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), np.uint8)
    two = Inception.load(directory, batch_size=4, devices=jax.devices()[:2])
    got, expected = two(images), tf1(images)
    for name in ("features", "logits"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-4)
    place = NamedSharding(two._run.mesh, P("batch"))
    x = jax.ShapeDtypeStruct((4, 299, 299, 3), np.float32, sharding=place)
    program = inception._network.lower(two._run._variables, x, "float32", 2).compile().as_text()
    assert "while(" in program
    assert not re.search(r"all-gather|all-to-all|all-reduce|collective-permute", program)


@pytest.mark.full
def test_batches_computed_at_the_same_time_keep_their_order(tf1):
    images = np.random.default_rng(4).integers(0, 256, (7, 16, 16, 3), np.uint8)
    threads, tf1._run._threads = tf1._run._threads, 1
    try:
        expected = tf1(images)["features"]
        tf1._run._threads = 3
        np.testing.assert_array_equal(tf1(images)["features"], expected)
    finally:
        tf1._run._threads = threads
