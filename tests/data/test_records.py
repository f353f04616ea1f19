"""Prepared records: written whole or not at all, and read back exactly."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import Source, data_report, open_source, prepare
from biggan_jax.errors import UserError
from tests import runs


class ArraysAsSource(Source):
    """Given pixels and labels, unchecked, as a source."""

    def __init__(self, images, labels, num_classes=3):
        names = [f"class {i}" for i in range(num_classes)]
        super().__init__("arrays", images.shape[1], images.shape[3], names)
        self.images, self.labels = images, labels.astype(np.int32)

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        index_n = np.asarray(indices)
        return self.images[index_n], self.labels[index_n]

    def digest(self):
        return "arrays"


def make_source(count=50, resolution=4, channels=3, num_classes=3):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, resolution, resolution, channels), dtype=np.uint8)
    return ArraysAsSource(images, rng.integers(0, num_classes, count), num_classes)


@pytest.fixture
def records(tmp_path):
    """50 records of 4 px in shards of 20, 20 and 10."""
    prepare(make_source(), tmp_path / "out", shard_bytes=20 * 52)
    return tmp_path / "out"


def open_records(folder, resolution=4, channels=3):
    return open_source(f"records:{folder}", resolution=resolution, channels=channels)


def refusal(folder, **size):
    with pytest.raises(UserError) as caught:
        open_records(folder, **size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_info(folder, **changes):
    path = folder / "info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, **changes}))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shard_bytes", [1, 700, 1 << 20])
def test_round_trip(tmp_path, channels, shard_bytes):
    source = make_source(channels=channels)
    progress = []
    info = prepare(
        source,
        tmp_path / "deep" / "out",
        shard_bytes=shard_bytes,
        progress=lambda *done: progress.append(done),
    )
    read = open_records(tmp_path / "deep" / "out", channels=channels)
    order = np.random.default_rng(0).permutation(50)
    images, labels = read.read(order)
    np.testing.assert_array_equal(images, source.images[order])
    np.testing.assert_array_equal(labels, source.labels[order])
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    for own in (images, read.read([3])[0]):
        assert own.flags.writeable and own.flags.c_contiguous
    assert read.class_names == source.class_names and len(read) == 50
    np.testing.assert_array_equal(read.histogram(), np.bincount(source.labels, minlength=3))
    assert info == json.loads((tmp_path / "deep" / "out" / "info.json").read_text())
    assert info["source"] == "arrays" and progress[-1] == (50, 50)
    assert sum(shard["count"] for shard in info["shards"]) == 50
    assert os.listdir(tmp_path / "deep") == ["out"]


def test_shards_are_no_larger_than_asked(records):
    info = json.loads((records / "info.json").read_text())
    assert [shard["count"] for shard in info["shards"]] == [20, 20, 10]


def test_a_prepared_source_reads_like_the_original(tmp_path):
    digits = open_source("digits:test", resolution=8, channels=1)
    prepare(digits, tmp_path / "out")
    read = open_records(tmp_path / "out", resolution=8, channels=1)
    for got, want in zip(read.read(range(len(read))), digits.read(range(len(digits))), strict=True):
        np.testing.assert_array_equal(got, want)


def test_digest_is_that_of_the_contents(tmp_path):
    source = make_source()
    digests = []
    for i, shard_bytes in enumerate((1 << 20, 500)):
        digests.append(prepare(source, tmp_path / str(i), shard_bytes=shard_bytes)["digest"])
    assert open_records(tmp_path / "0").digest() == digests[0] == digests[1]
    source.images[7, 0, 0, 0] ^= 1
    assert prepare(source, tmp_path / "pixel")["digest"] != digests[0]
    source.images[7, 0, 0, 0] ^= 1
    source.labels[7] = (source.labels[7] + 1) % 3
    assert prepare(source, tmp_path / "label")["digest"] != digests[0]


def test_report_comes_from_the_info_file(records):
    report = data_report(open_records(records))
    assert report.examples == 50 and sum(report.histogram) == 50
    assert report.digest == json.loads((records / "info.json").read_text())["digest"]


def test_out_must_be_absent_or_empty(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(UserError, match=name):
            prepare(make_source(), tmp_path / name)
    (tmp_path / "empty").mkdir()
    prepare(make_source(), tmp_path / "empty")
    assert len(open_records(tmp_path / "empty")) == 50


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused_and_nothing_stays(tmp_path, label):
    source = make_source()
    source.labels[33] = label
    with pytest.raises(UserError, match=f"{label}.*3 classes allow 0 to 2"):
        prepare(source, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_failure_in_the_middle_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(make_source(), tmp_path / "out", shard_bytes=20 * 52, progress=stop)
    assert os.listdir(tmp_path) == []


def test_a_killed_run_leaves_nothing_finished_and_the_next_succeeds(tmp_path):
    code = (
        "import os, signal, sys, pathlib\n"
        "from biggan_jax.data import open_source, prepare\n"
        "source = open_source('digits', resolution=8, channels=1)\n"
        "def die(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(source, pathlib.Path(sys.argv[1]), shard_bytes=6800, progress=die)\n"
    )
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(os.listdir(tmp_path)) == 1  # the hidden remains
    assert "no prepared records" in refusal(next(tmp_path.iterdir()))
    prepare(make_source(), out)
    assert os.listdir(tmp_path) == ["out"]


def test_two_at_once_do_not_take_one_another_for_remains(tmp_path):
    out, refused = tmp_path / "out", []

    def second(done, total):
        with pytest.raises(UserError, match="another process is writing .*; wait for it") as caught:
            prepare(make_source(), out)
        refused.append(caught)

    info = prepare(make_source(), out, progress=second)
    assert refused and os.listdir(tmp_path) == ["out"]
    assert open_records(out).info == info
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="link exists already; choose another --out"):
        prepare(make_source(), tmp_path / "link")


def test_a_full_disk_is_an_os_error(tmp_path):
    code = (
        "import pathlib, resource, signal, sys\n"
        "from biggan_jax.data import open_source, prepare\n"
        "source = open_source('digits', resolution=16, channels=3)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: prepare(source, pathlib.Path(sys.argv[1]))\n"
        "except OSError as error: print(error)\n"
    )
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "-c", code, str(out)], check=True, capture_output=True, text=True
    )
    assert "cannot write" in run.stdout and "File too large" in run.stdout
    assert os.listdir(tmp_path) == []


def test_missing_or_damaged_info(records, tmp_path):
    assert "no prepared records" in refusal(tmp_path / "no")
    assert str(tmp_path / "info.json") in refusal(tmp_path)
    path = records / "info.json"
    whole = path.read_text()
    for damaged in (whole[:100], "[]", "{}", "\0"):
        path.write_text(damaged)
        assert str(path) in refusal(records)
    path.write_text(whole)
    for key in ("count", "class_names", "shards", "digest"):
        change_info(records, **{key: None})
        assert repr(key) in refusal(records)
        path.write_text(whole)


def test_another_format_version(records):
    change_info(records, format_version=3)
    message = refusal(records)
    assert "version 3" in message and "versions 1 and 2" in message


def test_counts_that_disagree(records):
    whole = (records / "info.json").read_text()
    for key, value in (("count", 49), ("histogram", [1, 2, 3])):
        change_info(records, **{key: value})
        assert "sum to" in refusal(records)
        (records / "info.json").write_text(whole)
    change_info(records, class_names=["a", "b"])
    assert "2 class names" in refusal(records)
    (records / "info.json").write_text(whole)
    shards = json.loads(whole)["shards"]
    shards[0]["count"], shards[1]["count"] = 19, 21
    change_info(records, shards=shards)
    message = refusal(records)
    assert "20 records" in message and "says 19" in message


def test_missing_or_damaged_shards(records):
    shard = records / "records-00001-of-00003.array_record"
    whole = shard.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text" * 50_000):
        shard.write_bytes(damaged)
        message = refusal(records)
        assert str(shard) in message and "biggan prepare" in message
    shard.unlink()
    assert f"{shard} is missing" in refusal(records)


def test_flipped_bytes_are_noticed_on_reading(tmp_path):
    source = make_source(count=40, resolution=32)
    prepare(source, tmp_path / "out")
    (shard,) = (tmp_path / "out").glob("*.array_record")
    data = bytearray(shard.read_bytes())
    at = data.find(source.images[11].tobytes()[:64])
    assert at > 0
    data[at] ^= 1
    shard.write_bytes(data)
    read = open_records(tmp_path / "out", resolution=32)
    read.read([0, 39])
    with pytest.raises(UserError, match="shard is damaged") as caught:
        read.read(range(40))
    assert "\n" not in str(caught.value)


def test_another_size_names_both_numbers_and_the_setting(records):
    message = refusal(records, resolution=8)
    assert "resolution 4, not 8" in message and "--config.model.resolution=4" in message
    message = refusal(records, channels=1)
    assert "channels 3, not 1" in message and "--config.model.channels=3" in message


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Smooth JPEGs of several sizes in two classes, and a PNG."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(12):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        image = small.resize((40 + 8 * i, 48 + 8 * i), Image.Resampling.BICUBIC)
        image.save(folder / f"{i % 2}" / f"{i}.{'jpg' if i else 'png'}")
    return folder


def test_jpegs_at_a_reduced_size(photographs, tmp_path, capsys):
    def pixels(name, *options):
        source = ["--source", f"folder:{photographs}", "--resolution", "8"]
        assert cli.main(["prepare", *source, "--out", str(tmp_path / name), *options]) == 0
        records = open_records(tmp_path / name, resolution=8)
        return records.read(range(12))[0].astype(int)

    whole, reduced = pixels("whole"), pixels("reduced", "--reduced-jpeg")
    differs = np.abs(whole - reduced).mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(differs > 0, [False] + [True] * 11)  # the PNG is the first
    assert differs.max() < 8
    infos = [json.loads((tmp_path / n / "info.json").read_text()) for n in ("whole", "reduced")]
    assert "jpeg" not in infos[0] and "at least 2 times" in infos[1]["jpeg"]
    assert infos[0]["digest"] != infos[1]["digest"]
    capsys.readouterr()
    digits = ["--source", "digits", "--resolution", "8", "--out", str(tmp_path / "digits")]
    assert cli.main(["prepare", *digits, "--reduced-jpeg"]) == 2
    runs.assert_one_error(capsys.readouterr(), "no encoded images; leave out --reduced-jpeg")


def test_every_number_of_threads_writes_the_same(photographs, tmp_path, monkeypatch):
    digests = set()
    for cores in (1, 2, 13):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        source = open_source(f"folder:{photographs}", resolution=8, channels=3)
        out = tmp_path / str(cores)
        prepare(source, out, shard_bytes=5 * 196)
        shards = sorted(out.glob("*.array_record"))
        assert len(shards) == 3
        digests.add(tuple(path.read_bytes() for path in shards))
    assert len(digests) == 1
