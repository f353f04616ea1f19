"""Streaming moments against numpy, and the files of statistics."""

import tracemalloc

import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.metrics import moments


def stream(x, size):
    m = moments.Moments(x.shape[1])
    for start in range(0, len(x), size):
        m.add(x[start : start + size])
    return m


def features(n=300, d=5, offset=0.0, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) * np.arange(1, d + 1) + offset).astype(dtype)


@pytest.mark.parametrize("size", [1, 7, 300, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_batches_give_numpys_moments(size, dtype, monkeypatch):
    monkeypatch.setattr(moments, "ROWS", 128)
    x = features(dtype=dtype)
    got = stream(x, size).statistics()
    assert got.count == 300 and got.mean.dtype == got.covariance.dtype == np.float64
    np.testing.assert_allclose(got.mean, x.mean(axis=0, dtype=np.float64), rtol=0, atol=1e-14)
    want = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(got.covariance, want, rtol=1e-12, atol=1e-13)


def test_a_large_offset_costs_no_digits():
    """E[x^2] - E[x]^2 would keep no digit of a variance of 1 at an offset of 1e9."""
    want = np.cov(features(), rowvar=False)
    got = stream(features(offset=2.0**30), 7).statistics()
    np.testing.assert_allclose(got.covariance, want, rtol=0, atol=1e-5)


def test_merge_is_associative_and_leaves_its_arguments():
    x = features()
    a, b, c = (stream(part, 50) for part in np.split(x, [20, 170]))
    before = (a.count, a.mean.copy(), a.scatter.copy())
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    for got in (left, right, moments.Moments(5).merge(left)):
        assert got.count == 300
        np.testing.assert_allclose(got.mean, x.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            got.scatter / 299, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-13
        )
    left.add(x)
    right.merge(c).add(x)
    assert a.count == before[0]
    np.testing.assert_array_equal(a.mean, before[1])
    np.testing.assert_array_equal(a.scatter, before[2])


def test_refusals_and_the_warning_of_few_samples():
    m = moments.Moments(5)
    m.add(features(1))
    with pytest.raises(UserError, match="1 features seen, a covariance needs at least 2"):
        m.statistics()
    m.add(features(4))
    with pytest.warns(UserWarning, match="5 samples of features for 5 dimensions"):
        m.statistics()
    with pytest.raises(UserError, match="5 and 4 feature dimensions"):
        m.add(features(d=4))
    with pytest.raises(UserError, match="5 and 4 feature dimensions"):
        m.merge(moments.Moments(4))
    bad = features(9)
    bad[6, 1] = np.nan
    with pytest.raises(UserError, match=r"1 of 9 features hold NaN or infinity \(first: row 6\)"):
        m.add(bad)
    m.add(features(0))
    assert m.count == 5 and np.isfinite(m.scatter).all()


def test_memory_does_not_grow_with_the_batch():
    """A batch of 20,000 x 64 in float32 is converted a few rows at a time."""
    x = features(20_000, 64, dtype=np.float32)
    m = moments.Moments(64)
    tracemalloc.start()
    try:
        m.add(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # In float64 the whole batch would be 10 MB; 2048 rows of it are 1 MB, held twice.
    assert peak < 4e6


# Files


def test_statistics_round_trip(tmp_path):
    protocol = {"features": "inception", "samples": 300, "resize": "tf1", "truncation": None}
    saved = stream(features(), 64).statistics(protocol)
    path = tmp_path / "real.npz"
    path.write_bytes(saved.to_bytes())
    loaded = moments.load(path, dim=5)
    assert (loaded.count, loaded.protocol) == (300, protocol)
    np.testing.assert_array_equal(loaded.mean, saved.mean)
    np.testing.assert_array_equal(loaded.covariance, saved.covariance)
    # As pytorch-fid reads it: no pickles, `mu` and `sigma`.
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["mu"], saved.mean)
        np.testing.assert_array_equal(file["sigma"], saved.covariance)


def test_files_of_pytorch_fid_are_read(tmp_path):
    x = features()
    np.savez(tmp_path / "fid.npz", mu=x.mean(axis=0).astype(np.float32), sigma=np.cov(x.T))
    got = moments.load(tmp_path / "fid.npz")
    assert got.count is None and got.protocol == {} and got.mean.dtype == np.float64
    np.testing.assert_array_equal(got.covariance, np.cov(x.T))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(5)}, "no arrays `mu` and `sigma`"),
        ({"mu": np.zeros(5), "sigma": np.eye(4)}, r"`mu` \[5\] and `sigma` \[4, 4\] do not match"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "4 feature dimensions, .* with it 5"),
        ({"mu": np.full(5, np.nan), "sigma": np.eye(5)}, "NaN or infinity"),
        ({"mu": np.array([None] * 5), "sigma": np.eye(5)}, "not a readable .npz"),
        ({"mu": np.zeros(5), "sigma": np.eye(5), "protocol": np.array("{")}, "not a readable"),
    ],
)
def test_bad_statistics_are_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        moments.load(tmp_path / "s.npz", dim=5)
    assert "\n" not in str(error.value) and "s.npz" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"a text file", None])
def test_no_statistics_file_at_all(tmp_path, content):
    path = tmp_path / "s.npz"
    if content is None:
        with pytest.raises(UserError, match="no such statistics file"):
            moments.load(path)
        np.save(tmp_path / "s.npy", np.zeros(3))
        path = tmp_path / "s.npy"
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable .npz of statistics") as error:
        moments.load(path)
    assert "\n" not in str(error.value)
