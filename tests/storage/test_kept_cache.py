"""The real side of a run in a bucket: measured by one machine, found by the next."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from biggan_jax import data
from biggan_jax.data import buckets
from biggan_jax.evaluation import folders, reference
from biggan_jax.metrics import archives
from biggan_jax.parallel import processes
from biggan_jax.storage import kept_cache, paths
from tests.storage.test_paths import URL, bucket, google  # noqa: F401


class Means:
    """A features network that counts the images it sees."""

    name, digest, resize, resolution, feature_dim, has_logits = "means", "0", "none", 16, 2, False

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        x = images.reshape(len(images), -1).astype(np.float32)
        return {"features": np.stack([x.mean(1), x.std(1)], 1)}


def measure(extractor, directory=URL, given=None):
    source = data.open_source("digits:test", resolution=16, channels=1)
    cache = folders.cache(directory, given)
    with kept_cache.kept(directory, cache):
        return reference.measure(source, source.digest(), extractor, cache, keep=100)


def new_machine():
    shutil.rmtree(paths.cache_folder(URL))


def test_the_real_side_is_measured_once_for_all_machines(bucket):  # noqa: F811
    extractor = Means()
    first = measure(extractor)
    assert extractor.seen == 355
    new_machine()
    again = measure(extractor)
    assert extractor.seen == 355
    np.testing.assert_array_equal(again.statistics.mean, first.statistics.mean)
    np.testing.assert_array_equal(again.features, first.features)
    written = len(bucket.writes)
    measure(extractor)
    assert len(bucket.writes) == written == 2  # nothing is sent twice
    damaged = Path(bucket.local(next(iter(bucket.writes))))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    new_machine()
    measure(extractor)
    assert extractor.seen == 2 * 355


def test_a_classifier_is_kept_and_other_files_are_not(bucket):  # noqa: F811
    cache = paths.cache_folder(URL)
    names = ("classifier-1/classifier.npz", "classifier-1/notes", "labels-1.json")
    with kept_cache.kept(URL, cache):
        for name in names:
            content = archives.to_bytes({"a": np.ones(3)})
            buckets.write_bytes(cache / name, content)
    assert bucket.writes == [f"{URL}/cache/{names[0]}"]
    new_machine()
    with kept_cache.kept(URL, cache):
        assert sorted(p.name for p in cache.rglob("*") if p.is_file()) == ["classifier.npz"]


def test_a_bucket_that_refuses_costs_a_line(bucket, monkeypatch, capsys):  # noqa: F811
    def refuse(*_):
        raise PermissionError("403 no")

    extractor = Means()
    with monkeypatch.context() as patch:
        patch.setattr(kept_cache, "_send", refuse)
        measure(extractor)
    err = capsys.readouterr().err
    assert f"{URL}/cache cannot be written (403 no): going on without" in err
    assert bucket.writes == [] and extractor.seen == 355
    new_machine()
    monkeypatch.setattr(kept_cache, "_fetch", refuse)
    measure(extractor)
    assert f"{URL}/cache cannot be read (403 no)" in capsys.readouterr().err
    assert extractor.seen == 2 * 355 and len(bucket.writes) == 2


@pytest.mark.parametrize("why", ["local", "given", "not the main process"])
def test_nothing_is_sent(bucket, tmp_path, monkeypatch, why):  # noqa: F811
    if why == "not the main process":
        with kept_cache.kept(URL, paths.cache_folder(URL)):
            path = paths.cache_folder(URL) / "reference-1.npz"
            buckets.write_bytes(path, archives.to_bytes({"a": np.ones(3)}))
            monkeypatch.setattr(processes, "is_main", lambda: False)
    else:
        where = (tmp_path / "run", None) if why == "local" else (URL, tmp_path / "own")
        measure(Means(), *where)
    assert bucket.writes == []
