"""Files of arrays that were damaged: refused in one line, whatever was done to them."""

import functools
import io

import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.evaluation import reference
from biggan_jax.metrics import archives, moments, network_files
from tests import mutations
from tests.mutations import archived


def ours() -> bytes:
    stream = moments.Moments(5)
    stream.add(np.random.default_rng(0).normal(size=(300, 5)))
    return stream.statistics({"features": "classifier"}).to_bytes()


def theirs(save=np.savez) -> bytes:
    x = np.random.default_rng(0).normal(size=(300, 5))
    file = io.BytesIO()
    save(file, mu=x.mean(axis=0), sigma=np.cov(x.T))
    return file.getvalue()


def network() -> bytes:
    layers = {"a": {"kernel": np.ones((8, 3), np.float32)}, "b": np.zeros(3, np.float32)}
    return network_files.to_bytes({"params": layers}, {"version": 1})


def statistics_of(path) -> list:
    found = moments.load(path)
    return [found.mean.tolist(), found.covariance.tolist(), found.count, found.protocol]


def network_of(path) -> list:
    variables, meta = network_files.load(path, "fit it again")
    return [network_files.weights_digest(variables), meta]


FILES = {
    "ours": (ours, statistics_of),
    "theirs": (theirs, statistics_of),
    "compressed": (functools.partial(theirs, np.savez_compressed), statistics_of),
    "network": (network, network_of),
}


@pytest.mark.parametrize(("make", "read"), FILES.values(), ids=FILES)
def test_200_mutations(tmp_path, make, read):
    """A file of ours is what was written or refused; of others every array is at least sound."""
    path, data, seen = tmp_path / "s.npz", make(), {"refused": 0, "equal": 0, "other": 0}
    path.write_bytes(data)
    whole = read(path)
    for seed in range(mutations.COUNT):
        path.write_bytes(mutations.mutated("npz", data, seed))
        try:
            seen["equal" if (found := read(path)) == whole else "other"] += 1
        except UserError as error:
            seen["refused"] += 1
            assert "\n" not in str(error) and str(path) in str(error), seed
        else:
            if read is statistics_of:
                covariance = np.array(found[1])
                assert np.isfinite(found[0]).all() and np.allclose(covariance, covariance.T), seed
                assert np.linalg.eigvalsh(covariance).min() >= -1e-5 * np.trace(covariance), seed
    assert seen["refused"] > 160 and seen["equal"] < 30, seen
    # What a file without a digest cannot tell: another mean, say.
    assert seen["other"] == 0 or make in (FILES["theirs"][0], FILES["compressed"][0]), seen


def with_arrays(**changes) -> bytes:
    """Our statistics with other arrays, the digest left as it was."""
    with np.load(io.BytesIO(ours())) as file:
        arrays = {name: file[name] for name in file.files} | changes
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


SIGMA = np.eye(5)
SKEW, NEGATIVE, INDEFINITE, SMALL = SIGMA.copy(), SIGMA.copy(), SIGMA.copy(), SIGMA.copy()
SKEW[0, 1] = 0.1
NEGATIVE[2, 2] = -1.0
INDEFINITE[0, 1] = INDEFINITE[1, 0] = 3.0
SMALL[0, 0] = -1e-12  # rounding


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"sigma": SKEW}, "not symmetric"),
        ({"sigma": NEGATIVE}, "a negative variance"),
        ({"sigma": INDEFINITE}, "not positive semi-definite"),
        ({"sigma": SIGMA * 1e200}, "values that no features have"),
        ({"mu": np.full(5, 1e300)}, "values that no features have"),
        ({"mu": np.zeros(5, complex)}, "no real numbers"),
        ({"mu": np.array(["a"] * 5)}, "no real numbers"),
        ({"count": np.array(-4)}, "`count` is no number of samples"),
        ({"count": np.array([300])}, "`count` is no number of samples"),
        ({"protocol": np.array("[1]")}, "`protocol` is no object"),
        ({"protocol": np.array("[" * 100_000)}, "not a readable .npz"),
        ({"sigma": np.zeros((0, 0)), "mu": np.zeros(0)}, "do not match"),
    ],
)
def test_statistics_that_are_none(tmp_path, arrays, words):
    path = tmp_path / "s.npz"
    np.savez(path, **({"mu": np.zeros(5), "sigma": SIGMA} | arrays))
    with pytest.raises(UserError, match=words) as error:
        moments.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_rounding_is_no_damage(tmp_path):
    """A covariance of fewer samples than dimensions, kept as float32, and one near zero."""
    few = np.random.default_rng(0).normal(size=(9, 40)) * 7
    for sigma in (np.cov(few.T).astype(np.float32), SMALL, np.zeros((4, 4))):
        np.savez(tmp_path / "s.npz", mu=np.zeros(len(sigma)), sigma=sigma)
        np.testing.assert_array_equal(moments.load(tmp_path / "s.npz").covariance, sigma)


def test_one_changed_value_of_our_own_files_is_seen(tmp_path, capsys):
    """In an archive whose own sums are right; a file of before, without the digest, is read."""
    path = tmp_path / "s.npz"
    path.write_bytes(with_arrays(mu=np.arange(5.0)))
    with pytest.raises(UserError, match="its arrays are not those that were written"):
        moments.load(path)
    path.write_bytes(ours())
    assert moments.load(path).checked
    with np.load(path) as file:
        before = {name: file[name] for name in file.files if name != archives.CHECK}
    np.savez(path, **before)
    assert not moments.load(path).checked
    kept = archives.to_bytes(
        {"features": np.ones((3, 5), np.float32), "labels": np.arange(3, dtype=np.int32)}
    )
    (tmp_path / "k.npz").write_bytes(kept)
    path.write_bytes(ours())
    assert reference._cached(path, tmp_path / "k.npz", 5, {}) is not None
    wrong = {"features": np.ones((3, 5), np.float32), "labels": np.arange(2, dtype=np.int32)}
    for data in (mutations.mutated("npz", kept, 0), archives.to_bytes(wrong), b""):
        (tmp_path / "k.npz").write_bytes(data)
        assert reference._cached(path, tmp_path / "k.npz", 5, {}) is None  # measured again


def test_what_an_archive_claims_is_not_believed(tmp_path):
    """Sizes are looked at before memory is taken, and a pickle is never loaded."""
    path, claimed = tmp_path / "s.npz", {}
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(118)
    )
    claimed["has not the size"] = archived({"mu.npy": header})
    many = archived({f"{i}.npy": b"" for i in range(3)})
    at = many.index(b"PK\x01\x02") + 24  # of the directory: the size of the first one
    claimed["more than 2,147,483,648"] = many[:at] + b"\xf0\xff\xff\xff" + many[at + 4 :]
    objects = io.BytesIO()
    np.savez(objects, mu=np.array([print, {}], object))
    claimed["neither numbers nor text"] = objects.getvalue()
    claimed["twice"] = None
    for words, data in claimed.items():
        if data is None:
            with pytest.warns(UserWarning, match="Duplicate"):
                data = archived_twice()
        path.write_bytes(data)
        with pytest.raises(archives.DamagedError, match=words):
            archives.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="it is no file"):
        moments.load(path)


def archived_twice() -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for content in (b"", b"1"):
            archive.writestr("mu.npy", content)
    return file.getvalue()
