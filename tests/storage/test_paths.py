"""Workdirs in a bucket, on a stand-in for one: a folder behind epath's and tensorstore's gs://."""

import contextlib
import json
import os
import sys
import time
import types
import uuid
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils

from biggan_jax import cli
from biggan_jax.data import buckets
from biggan_jax.errors import UserError
from biggan_jax.evaluation import report
from biggan_jax.pictures import grids
from biggan_jax.storage import bucket_file, integrity, metric_lines, paths, writers
from tests import runs

URL = "gs://bucket/run"


class Objects:
    """epath's backend of a bucket: no append; every write is recorded."""

    def __init__(self, root: Path):
        self.root, self.writes = root, []

    def local(self, path) -> str:
        return os.fspath(path).replace("gs://", f"{self.root}/")

    def __getattr__(self, name):
        method = getattr(backend.os_backend, name)

        def call(path, *args, **options):
            if name == "open" and "w" in (mode := options.get("mode") or args[0]):
                self.writes.append(os.fspath(path))
                os.makedirs(os.path.dirname(self.local(path)), exist_ok=True)
                return _whole(self.local(path), mode, self.root.parent)
            if name == "open":
                assert mode in ("r", "rb"), f"a bucket cannot open {path} by {mode!r}"
            args = [self.local(a) if "gs://" in str(a) else a for a in args]
            found = method(self.local(path), *args, **options)
            urls = lambda: [x.replace(f"{self.root}/", "gs://") for x in found]
            return urls() if name == "glob" else found

        return call


@contextlib.contextmanager
def _whole(path: str, mode: str, beside: Path):
    """A file that is there when all of it is written, as an object is."""
    partial = beside / uuid.uuid4().hex  # where no listing sees it
    with open(partial, mode) as file:
        yield file
    os.replace(partial, path)


class GoogleError(Exception):
    def __init__(self, text: str, code: int | None = None):
        super().__init__(text)
        self.code = code


@pytest.fixture
def google(monkeypatch):
    """A stand-in for google.cloud.storage; a test sets what its bucket grants, or raises."""
    storage = types.ModuleType("google.cloud.storage")
    storage.granted, storage.asked = buckets.WRITE, []

    class Client:
        _credentials = types.SimpleNamespace(service_account_email="pod@mine")

        def bucket(self, name):
            return self

        def get_bucket(self, name):
            return types.SimpleNamespace(hierarchical_namespace_enabled=False)

        def test_iam_permissions(self, permissions, timeout, retry):
            storage.asked.append(permissions)
            if isinstance(storage.granted, Exception):
                raise storage.granted
            if isinstance(storage.granted, float):
                time.sleep(storage.granted)
            return [p for p in permissions if p in storage.granted]

    storage.Client = Client
    cloud = types.ModuleType("google.cloud")
    cloud.storage = storage
    monkeypatch.setitem(sys.modules, "google.cloud", cloud)
    monkeypatch.setitem(sys.modules, "google.cloud.storage", storage)
    return storage


@pytest.fixture
def bucket(google, monkeypatch, tmp_path):
    """gs:// is a folder of this test."""
    objects = Objects(tmp_path / "gs")
    (objects.root / "bucket").mkdir(parents=True)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", objects)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(buckets, "_has_file_system", lambda: True)
    driver = lambda path: {"driver": "file", "path": f"{objects.local(path)}"}
    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", driver)
    monkeypatch.setattr(gcs_utils, "get_bucket", google.Client().get_bucket)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return objects


def test_local_paths_stay_pathlib(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert type(paths.workdir_path("a")) is type(Path("a"))
    assert paths.absolute("a") == tmp_path / "a"
    assert paths.cache_folder("a") == Path("a") / "cache"
    assert paths.same("a", tmp_path / "b" / ".." / "a") and not paths.same("a", "b")
    buckets.reach("nowhere", write=True)


def test_remote_paths():
    path = paths.absolute(URL)
    assert isinstance(path, epath.Path) and str(path / "a") == URL + "/a"
    assert paths.workdir_path(path) == path and paths.is_remote(path)
    assert paths.cache_folder(path).is_relative_to(Path.home())
    assert paths.cache_folder(path) != paths.cache_folder("gs://bucket/other")
    assert paths.same(URL, path) and paths.same(URL + "/", URL) and not paths.same(URL, "run")
    for text in ("s3://bucket/run", "gs://", "https://host/run"):
        with pytest.raises(UserError, match="give a path, or gs://BUCKET/FOLDER"):
            paths.workdir_path(text)


@pytest.mark.parametrize(
    ("granted", "words"),
    [
        (GoogleError("not found", 404), ["no bucket gs://bucket", "buckets create"]),
        (GoogleError("forbidden", 403), ["storage.objects.create", "roles/storage.objectAdmin"]),
        (GoogleError("unauthorized", 401), ["pod@mine has no permission for gs://bucket"]),
        (buckets.READ, ["pod@mine", r"\(storage.objects.create, storage.objects.delete\)"]),
        (GoogleError("no route\nmore"), [r"gs://bucket cannot be reached \(no route\)", "network"]),
        (
            GoogleError("(Caused by X(Failed to resolve 'a.b' (-2)))"),
            [r"\(Failed to resolve 'a.b'\)"],
        ),
        (
            type("DefaultCredentialsError", (Exception,), {})("none"),
            ["gs://bucket", "gcloud auth application-default login"],
        ),
        (0.5, ["gs://bucket did not answer in 0.1 s", "network"]),
    ],
)
def test_training_in_an_unusable_bucket_is_one_line(
    bucket, google, monkeypatch, capfd, granted, words
):
    google.granted = granted
    monkeypatch.setattr(buckets, "ANSWER_SECONDS", 0.1 if isinstance(granted, float) else 20.0)
    assert runs.train(URL) == 2
    runs.assert_one_error(capfd.readouterr(), *words)
    assert len(google.asked) == 1 and not bucket.writes


def test_sampling_needs_to_read_alone(bucket, google, capfd):
    google.granted = buckets.READ
    assert cli.main(["sample", f"--from={URL}", "--out=a.png"]) == 2
    runs.assert_one_error(capfd.readouterr(), "gs://bucket/run is no workdir", "no such directory")
    google.granted = buckets.READ - {"storage.buckets.get"}
    assert cli.main(["sample", f"--from={URL}", "--out=a.png"]) == 2
    runs.assert_one_error(capfd.readouterr(), r"\(storage.buckets.get\)", "objectViewer")


def test_without_googles_client(bucket, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    assert runs.train(URL) == 2
    runs.assert_one_error(capfd.readouterr(), "google-cloud-storage", r"biggan_jax\[gcs\]")


def test_without_a_file_system_for_buckets(bucket, monkeypatch, capfd):
    monkeypatch.setattr(buckets, "_has_file_system", lambda: False)
    assert runs.train(URL) == 2
    runs.assert_one_error(capfd.readouterr(), "TensorFlow", r"biggan_jax\[gcs\]")


def test_a_run_in_a_bucket_equals_a_local_one(bucket, trained, capfd):
    """Stopped after two steps, resumed, sampled: the same bits, and nothing on the local disk."""
    assert runs.train(URL, "--config.num_steps=2") == 0
    assert runs.train(URL) == 0
    assert "resuming gs://bucket/run after step 2 of 4" in capfd.readouterr().err
    workdir = epath.Path(URL)
    runs.assert_same_state(workdir, trained, 4)
    assert runs.metric_lines(workdir) == runs.metric_lines(trained)
    both = ("config.json", "samples/real.png", "samples/step_00000004.png")
    same = {name: (workdir / name).read_bytes() == (trained / name).read_bytes() for name in both}
    assert all(same.values()), same
    sample = ["sample", f"--from={URL}", f"--out={URL}/a.npz", "--classes=3", "--per-class=2"]
    assert cli.main(sample) == 0
    with np.load(bucket.local(f"{URL}/a.npz")) as samples:
        assert samples["images"].shape == (2, 16, 16, 1)
    assert [name for name in os.listdir() if name not in ("gs", "home")] == []


def test_metrics_are_uploaded_now_and_then(bucket, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bucket_file.time, "monotonic", lambda: now[0])
    read = lambda: [x["step"] for x in map(json.loads, path.read_text().splitlines())]
    path = epath.Path(URL) / "metrics.jsonl"
    writer = writers.Writers(URL, ("jsonl",))
    for step in (1, 2, 3):
        writer.write(step, step, {"x": step})
    assert read() == [1] and len(bucket.writes) == 1
    writer.flush()
    writer.flush()
    assert read() == [1, 2, 3] and len(bucket.writes) == 2
    writer.write(4, 4, {})
    now[0] += metric_lines.UPLOAD_SECONDS
    writer.write(5, 5, {})
    assert read() == [1, 2, 3, 4, 5]
    writer.write(6, 6, {})
    writer.close()
    assert read() == [1, 2, 3, 4, 5, 6]
    writer = writers.Writers(URL, ("jsonl",))
    writer.cut_after(3)
    assert read() == [1, 2, 3]
    writer.write(4, 4, {"x": -4})
    writer.close()
    assert read() == [1, 2, 3, 4]


def test_other_files_in_a_bucket(bucket):
    text = epath.Path(URL) / "lines"
    paths.append_text(text, "a\n")
    paths.append_text(text, "b\n")
    assert text.read_text() == "a\nb\n"
    grey = np.zeros((1, 8, 8, 1), np.uint8)
    paths.write_bytes(f"{URL}/deep/a.png", grids.png(grids.grid(grey, 1)))
    assert (epath.Path(URL) / "deep" / "a.png").read_bytes()[1:4] == b"PNG"
    result = {"scores": {"fid": 1.0}, "protocol": {}}
    assert report.write(result, epath.Path(URL) / "report", "evaluation") == [
        f"{URL}/report/evaluation.json"
    ]
    assert json.loads((epath.Path(URL) / "report" / "evaluation.json").read_text()) == result


def test_errors_of_a_bucket_are_one_line(bucket):
    refusal = type("UnavailableError", (Exception,), {"__module__": "tensorflow.python.errors"})
    with pytest.raises(OSError, match=r"^gs://bucket/run: libcurl code 6$"):  # noqa: SIM117
        with buckets.bucket_errors(URL):
            raise refusal("libcurl code 6\n\t when reading")
    with pytest.raises(refusal), buckets.bucket_errors("/local"):
        raise refusal("not of a bucket")
    path = epath.Path(URL)
    with pytest.raises(OSError, match=r"was not saved: gs://bucket/run: ValueError: PERMISSION"):
        integrity.raise_as_os_error(ValueError("PERMISSION_DENIED: no"), "5 was not saved", path)
    # A refusal says nothing about what is stored: a checkpoint behind it is not corrupt.
    for error in (ValueError("UNAVAILABLE: try again"), refusal("")):
        with pytest.raises(OSError, match="cannot be read"):
            integrity._raise_environment(error, path)
    integrity._raise_environment(ValueError("DATA_LOSS"), path)


def test_local_writes_are_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a"
    paths.write_bytes(path, b"old")

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        paths.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["a"]
