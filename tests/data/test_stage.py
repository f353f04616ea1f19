"""Data in a bucket: staged whole and right, or one line, on a stand-in for the bucket."""

import errno
import json
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.data import Batches, buckets, open_source, prepare, stage
from biggan_jax.data.stage_progress import File
from biggan_jax.errors import UserError
from launch.fake_bucket import FakeBucket, install
from tests import runs
from tests.data.test_batches import equal, take
from tests.data.test_records import change_info, make_source

URL = "gs://bucket/records"
SIZE = {"resolution": 4, "channels": 3}
LANES = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """200 records in 8 lanes, 40 shards of 5 records at most."""
    root = tmp_path_factory.mktemp("gs")
    prepare(make_source(200), root / "bucket" / "records", shard_bytes=5 * 52, lanes=LANES)
    return root


@pytest.fixture
def bucket(written, monkeypatch):
    for name, value in (("FIRST_WAIT", 1e-3), ("ANSWER_SECONDS", 5.0)):
        monkeypatch.setattr(buckets, name, value)
    yield (found := install(FakeBucket(written), monkeypatch.setattr, monkeypatch.setitem))
    found.woken.set()
    end = time.monotonic() + 30
    while any(thread.name == stage.THREAD for thread in threading.enumerate()):
        assert time.monotonic() < end  # else what they say is read by the next test
        time.sleep(0.01)


def opened(folder, spec=f"records:{URL}", **settings):
    return open_source(spec, stage=str(folder), **{**SIZE, **settings})


def shards_read(bucket):
    return {name for name in bucket.reads if name.endswith(".array_record")}


def batches_of(source, steps=26, **settings):
    """Of two epochs."""
    return take(Batches(source, seed=0, batch_size=16, flip=True, **settings), steps)


def refused(*words, **settings):
    with pytest.raises(UserError) as caught:
        batches_of(opened(**settings))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(written):
    local = open_source(f"records:{written / 'bucket' / 'records'}", **SIZE)
    return batches_of(local)


@pytest.mark.parametrize("processes", [1, 4, 8])
def test_each_process_fetches_its_share_of_the_shards_once(bucket, whole, tmp_path, processes):
    for p in range(processes):
        bucket.reads.clear()
        source = opened(tmp_path / str(p))
        part = batches_of(source, process_index=p, process_count=processes)
        own = slice(p * 16 // processes, (p + 1) * 16 // processes)
        for got, want in zip(part, whole, strict=True):
            assert equal(got, {key: value[:, own] for key, value in want.items()})
        fetched = shards_read(bucket)
        assert len(fetched) == 40 / processes == len(list((tmp_path / str(p)).glob("*/lane*")))
        assert {bucket.reads[name] for name in fetched} == {1}


def test_failures_and_a_truncated_shard_change_nothing(bucket, whole, tmp_path, capsys):
    bucket.failures, bucket.latency = 0.1, 1e-3
    bucket.random.seed(1)
    bucket.truncated.add("lane-00003-of-00008-00002-of-00005.array_record")
    got = batches_of(opened(tmp_path))
    assert all(equal(a, b) for a, b in zip(got, whole, strict=True))
    assert bucket.failed > 2 and not bucket.truncated
    time.sleep(0.05)
    err = capsys.readouterr().err
    assert "staging 40 files" in err and "asked for again" in err


def test_what_is_staged_is_kept_and_what_is_wrong_of_it_fetched_again(bucket, whole, tmp_path):
    batches_of(opened(tmp_path))
    (folder,) = tmp_path.iterdir()
    names = sorted(path.name for path in folder.iterdir())
    for k, damage in enumerate((lambda b: b[:-9], lambda b: b[:7000] + b"?" + b[7001:])):
        path = folder / names[k]
        path.write_bytes(damage(path.read_bytes()))
    (folder / names[2]).unlink()
    left = folder / f".{names[3]}.0{stage._UNFINISHED}"  # by a process that was killed long ago
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    bucket.reads.clear()
    got = batches_of(opened(tmp_path))
    assert all(equal(a, b) for a, b in zip(got, whole, strict=True))
    assert shards_read(bucket) == set(names[:3]) and not left.exists()


def test_the_first_batches_wait_for_their_own_shards_alone(bucket, whole, tmp_path):
    """Batches of 2 read a lane in four rows: that of the last ones may come late."""
    wanted = opened(tmp_path / "a")
    first = Batches(wanted, seed=0, batch_size=2)._first(0)
    needed = {wanted.info["shards"][n]["name"] for n in wanted._shards.of(wanted._placed(first))}
    late = {shard["name"] for shard in wanted.info["shards"]} - needed
    assert 0 < len(late) < 40
    bucket.silent |= late
    try:
        take(Batches(opened(tmp_path / "b"), seed=0, batch_size=2), 1)
    finally:
        bucket.woken.set()


def test_a_shard_that_stalls_is_asked_for_again_a_few_times(bucket, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "STALL_SECONDS", 0.1)
    name = "lane-00001-of-00008-00000-of-00005.array_record"
    bucket.silent.add(name)
    got = batches_of(opened(tmp_path / "once"))
    assert all(equal(a, b) for a, b in zip(got, whole, strict=True))
    assert bucket.reads[name] == 2
    monkeypatch.setattr(bucket, "silent", _Always(name))
    words = (f"{URL}/{name} sent no byte for 0.1 s, asked 6 times", "Start again to go on")
    refused(*words, folder=tmp_path / "always")
    bucket.woken.set()


class _Always(set):
    def __init__(self, name):
        super().__init__([name])

    def remove(self, name):
        pass


def test_a_shard_that_vanished_or_is_another_one_is_named(bucket, tmp_path, monkeypatch):
    name = "lane-00005-of-00008-00001-of-00005.array_record"
    again = "put the file there that `biggan prepare` wrote, or run `biggan prepare` again"
    bucket.missing.add(name)
    refused(f"{URL}/{name} cannot be staged (", "no such object", "6 times", again, folder=tmp_path)
    bucket.missing.clear()

    class Always(set):
        discard = lambda self, name: None

    bucket.truncated = Always([name])
    refused(name, "bytes, not 131,072, 6 times", again, folder=tmp_path)
    bucket.truncated = set()
    path = bucket.root / "bucket" / "records" / name
    right = path.read_bytes()
    path.write_bytes(right[:70_000] + b"?" + right[70_001:])
    refused(name, "another digest than info.json has, 6 times", again, folder=tmp_path)
    path.write_bytes(right)


def test_a_full_disk_is_one_line_and_costs_no_retries(bucket, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, mode):
            self._file = Path(path).open(mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    fake = lambda path, mode, **_: Full(path, mode) if mode == "wb" else path.open(mode)
    monkeypatch.setattr(stage, "open", fake, raising=False)
    line = f"cannot write {tmp_path}/.*No space left on device; set data.stage to a folder"
    with pytest.raises(OSError, match=line) as caught:
        batches_of(opened(tmp_path))
    assert "\n" not in str(caught.value) and max(bucket.reads.values()) == 1
    end = time.monotonic() + 10  # other threads may be on their way to the same end
    while list(tmp_path.glob("*/*")) and time.monotonic() < end:
        time.sleep(0.01)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(("room", "block"), [(100_000, 1 << 20), (131_000, 1000)])
def test_a_disk_that_takes_a_part_of_a_file_is_one_line(
    bucket, whole, tmp_path, monkeypatch, room, block
):
    """The system's own refusal within a shard of 131,072 bytes; in the end there is room."""
    monkeypatch.setattr(stage, "BLOCK_BYTES", block)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="cannot write .*File too large; set data.stage to"):
            batches_of(opened(tmp_path))
        assert max(bucket.reads.values()) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    got = batches_of(opened(tmp_path))
    assert all(equal(a, b) for a, b in zip(got, whole, strict=True))


def test_a_place_where_nothing_can_be_staged_is_one_line(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    words = "cannot be made to stage data in (Not a directory): set data.stage to a folder"
    refused(str(tmp_path / "file"), words, folder=tmp_path / "file")


def test_too_little_room_is_said_before_anything_is_fetched(
    bucket, whole, tmp_path, monkeypatch, capsys
):
    line = refused("data.stage_gb is 0.001: set data.stage_gb=", folder=tmp_path, stage_gb=0.001)
    advised = float(line.split("set data.stage_gb=")[1].split(",")[0])
    got = batches_of(opened(tmp_path / "advised", stage_gb=advised))
    assert all(equal(a, b) for a, b in zip(got, whole, strict=True))
    bucket.reads.clear()
    usage = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: usage)
    words = ("0.00524 GB of gs://bucket/records", "0.001 GB are free", "a folder of another disk")
    refused(*words, folder=tmp_path / "full")
    assert not shards_read(bucket)
    kept = opened(tmp_path / "advised")
    batches_of(kept)  # nothing of it is still to be fetched
    capsys.readouterr()
    batches_of(kept)
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_a_bucket_is_one_line(bucket, tmp_path, monkeypatch):
    source = lambda text, **more: opened(tmp_path, f"records:{text}", **more)
    for text, words in (
        ("gs://none/records", "there is no bucket gs://none: correct the name"),
        ("gs://bucket/no", "no gs://bucket/no/info.json: no prepared records; correct the path"),
        ("gs://bucket", "no gs://bucket/info.json: .* give the folder that `biggan prepare` wrote"),
        ("s3://bucket/a", "give a path, or gs://BUCKET/FOLDER"),
    ):
        with pytest.raises(UserError, match=words):
            source(text)
    with pytest.raises(UserError, match="data.stage_gb is 0; set --config.data.stage_gb"):
        source(URL, stage_gb=0)
    unset = "is in a bucket, and data are read from a disk: set --config.data.stage=FOLDER"
    for empty in (None, ""):
        with pytest.raises(UserError, match=unset):
            open_source(f"records:{URL}", stage=empty, **SIZE)
    with pytest.raises(UserError, match=f"gcloud storage cp -r {URL} .` and give records:records"):
        open_source(f"records:{URL}", option="--source", **SIZE)
    bucket.denied = True
    with pytest.raises(UserError, match="no permission for gs://bucket .*storage.objectViewer"):
        source(URL)
    bucket.denied = False
    bucket.forbidden = {"info.json"}
    with pytest.raises(UserError, match="info.json cannot be read .*storage.objectViewer"):
        source(URL)
    name = "lane-00005-of-00008-00001-of-00005.array_record"
    bucket.forbidden = {name}
    refused(f"{name} cannot be staged (", "give this account the right to", folder=tmp_path)
    assert bucket.reads[name] == 1
    bucket.forbidden = set()
    bucket.missing.add("info.json")
    with pytest.raises(UserError, match="no prepared records"):
        source(URL)


def test_records_of_another_version_in_a_bucket(bucket, tmp_path, monkeypatch):
    (tmp_path / "b" / "r").mkdir(parents=True)
    for name in ("info.json", "labels.npy"):
        content = (bucket.root / "bucket" / "records" / name).read_bytes()
        (tmp_path / "b" / "r" / name).write_bytes(content)
    monkeypatch.setattr(bucket, "root", tmp_path)
    change_info(tmp_path / "b" / "r", format_version=9)
    with pytest.raises(UserError, match="gs://b/r/info.json has format version 9, .* 1 and 2"):
        opened(tmp_path / "stage", "records:gs://b/r")
    change_info(tmp_path / "b" / "r", format_version=2)
    source = opened(tmp_path / "stage", "records:gs://b/r")
    np.testing.assert_array_equal(source.labels_of(range(200)), make_source(200).labels)


def test_workers_write_to_a_bucket_that_fails(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bucket, "root", tmp_path / "gs")
    (tmp_path / "gs" / "b").mkdir(parents=True)
    bucket.failures = 0.1
    bucket.random.seed(1)
    digits = ["prepare", "--source=digits:test", "--resolution=8", "--channels=1", "--lanes=4"]
    assert cli.main([*digits, f"--out={tmp_path / 'local'}"]) == 0
    for i in (1, 0, 1):  # the second one once more
        assert cli.main([*digits, "--out=gs://b/out", f"--worker={i}/2"]) == 0
    assert bucket.failed > 0 and bucket.writes["info.json"] == 1
    here, there = tmp_path / "local", tmp_path / "gs" / "b" / "out"
    assert sorted(p.name for p in here.iterdir()) == sorted(
        p.name for p in there.iterdir() if p.name != "parts"
    )
    for path in here.iterdir():
        assert path.read_bytes() == (there / path.name).read_bytes()
    assert not list((there / "parts").iterdir())
    capsys.readouterr()
    assert cli.main([*digits, "--out=gs://b/out"]) == 2
    runs.assert_one_error(capsys.readouterr(), "gs://b/out exists already; choose another --out")
    assert cli.main([*digits, "--out=gs://none/out"]) == 2
    runs.assert_one_error(capsys.readouterr(), "there is no bucket gs://none")


def test_a_run_from_a_bucket_is_the_run_from_its_source(bucket, trained, tmp_path, monkeypatch):
    """Without lanes the order stays that of the source, to the last bit of the state."""
    monkeypatch.setattr(bucket, "root", tmp_path / "gs")
    (tmp_path / "gs" / "b").mkdir(parents=True)
    config = runs.tiny_config()
    size = [f"--resolution={config.model.resolution}", f"--channels={config.model.channels}"]
    prepared = ["prepare", f"--source={config.data.source}", *size, "--out=gs://b/digits"]
    assert cli.main(prepared) == 0
    assert json.loads((tmp_path / "gs" / "b" / "digits" / "info.json").read_text())["count"] > 1000
    where = ["--config.data.source=records:gs://b/digits", f"--config.data.stage={tmp_path / 's'}"]
    assert runs.train(tmp_path / "run", *where) == 0
    runs.assert_same_state(tmp_path / "run", trained, 4)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data"]["source"] == "records:gs://b/digits"


def test_what_lanes_refuse_leaves_no_config_behind(tmp_path, capsys):
    digits = ["prepare", "--source=digits:test", "--resolution=16", "--channels=1", "--lanes=4"]
    assert cli.main([*digits, f"--out={tmp_path / 'laned'}"]) == 0
    capsys.readouterr()
    source = f"--config.data.source=records:{tmp_path / 'laned'}"
    assert runs.train(tmp_path / "run", source, "--config.data.balance=0.5") == 2
    runs.assert_one_error(capsys.readouterr(), "balance=0.5 .* 4 lanes: set --config.data.bal")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_local_folder_may_be_staged_too(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"12345")
    found = stage.Stage(tmp_path / "from", [File("a", 5)], tmp_path / "to")
    threads = [threading.Thread(target=found.wait, args=([0],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (tmp_path / "to" / "a").read_bytes() == b"12345"
    assert os.listdir(tmp_path / "to") == ["a"]
