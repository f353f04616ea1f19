"""Lanes: one order of the batches for every number of hosts, each of which reads its own shards."""

import hashlib
import json
import math
import types

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.data import Batches, encoding, hold_out, holdout, lanes, prepare
from biggan_jax.errors import UserError
from biggan_jax.training import monitor_images
from tests import runs
from tests.data.test_batches import Numbered, take
from tests.data.test_records import ArraysAsSource, change_info, make_source, open_records, refusal

LANES = 8


class InLanes(Numbered):
    """`Numbered` in lanes, with images of two bytes so that 65,536 have a number."""

    def __init__(self, count=203, num_lanes=LANES, num_classes=5):
        super().__init__(count, num_classes)
        self.num_lanes, self.lane_of = num_lanes, np.arange(count) % num_lanes

    def read(self, indices):
        images, labels = super().read(np.asarray(indices) % 256)
        images[:, :, 0, 0] = (np.asarray(indices) // 256)[:, None]
        return images, (np.asarray(indices) % self.num_classes).astype(np.int32)


def order(source=None, *, steps, start=0, processes=1, **settings):
    """The examples of some global batches, int [steps, D, B], as the processes read them."""
    settings = {"seed": 3, "batch_size": 16, "num_d_steps": 2, **settings}
    parts = []
    for p in range(processes):
        batches = Batches(source or InLanes(), process_index=p, process_count=processes, **settings)
        parts.append([batches._indices_of(start + k) for k in range(steps)])
        batches.close()
    return np.concatenate(parts, axis=2)


def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        found.update(batch["image"].tobytes() + batch["label"].tobytes())
    return found.hexdigest()


def of_processes(count, first, steps, **settings):
    """Global batches that `count` processes read together."""
    settings = {"seed": 3, "batch_size": 16, "num_d_steps": 2, "flip": True, **settings}
    streams = [
        Batches(InLanes(), process_index=p, process_count=count, start_step=first, **settings)
        for p in range(count)
    ]
    for _ in range(steps):
        parts = [next(stream) for stream in streams]
        yield {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}
    for stream in streams:
        stream.close()


def test_200_batches_are_the_same_for_every_number_of_processes_and_after_a_resume():
    whole = list(of_processes(1, 0, 200))
    for processes in (2, 4, 8):
        assert digest(of_processes(processes, 0, 200)) == digest(whole)
    # 203 examples, 32 a batch: step 77 is in the middle of epoch 12.
    for before, after in ((1, 8), (4, 2)):
        resumed = [*of_processes(before, 0, 77), *of_processes(after, 77, 123)]
        assert digest(resumed) == digest(whole)
    assert digest(whole) != digest(of_processes(1, 0, 200, seed=4))


def test_the_order_stays_that_of_this_version():
    assert order(steps=1)[0, 0].tolist() == [
        144,
        48,
        201,
        177,
        130,
        26,
        187,
        51,
        60,
        100,
        189,
        77,
        54,
        102,
        199,
        127,
    ]


@pytest.mark.parametrize(("batch_size", "num_lanes"), [(8, 8), (4, 8), (32, 8), (24, 16), (6, 4)])
def test_a_process_reads_its_own_lanes_each_in_its_own_shuffled_epochs(batch_size, num_lanes):
    source = InLanes(26 * num_lanes, num_lanes)
    found = order(source, steps=80 * num_lanes // batch_size, batch_size=batch_size)
    rows = found.reshape(-1, batch_size)
    common = math.gcd(batch_size, num_lanes)
    width, share = batch_size // common, num_lanes // common
    for column in range(batch_size):
        own = column // width * share + np.arange(share)
        assert set(rows[:, column] % num_lanes) == set(own)
    epochs = []
    for lane in range(num_lanes):
        drawn = rows[rows % num_lanes == lane]  # row by row, as it is read
        assert len(drawn) >= 52
        for epoch in drawn[:26], drawn[26:52]:
            assert sorted(epoch) == list(range(lane, len(source), num_lanes))
            epochs.append(tuple(epoch // num_lanes))
    assert len(set(epochs)) == len(epochs)
    for processes in (2, common):
        np.testing.assert_array_equal(
            order(source, steps=3, batch_size=batch_size, processes=processes), found[:3]
        )


def test_lanes_are_read_equally_often_whatever_their_lengths():
    source = InLanes(3 * LANES + 3)  # three lanes of 4, five of 3
    counts = np.bincount(order(source, steps=60).ravel(), minlength=len(source))
    of_lane = np.bincount(source.lane_of, counts)
    assert np.ptp(of_lane) == 0 and of_lane[0] == 60 * 32 / LANES
    for lane in range(LANES):  # and the records of each of them too
        assert np.ptp(counts[lane::LANES]) <= 1


def test_held_out_images_are_in_no_batch_and_all_others_are():
    source = InLanes()
    hold_out(source, 0.25)
    found = order(source, steps=40)
    assert set(found.ravel()) == set(np.flatnonzero(~source.held_out))
    np.testing.assert_array_equal(order(source, steps=40, processes=8), found)


def test_classes_in_a_batch_vary_as_in_a_global_shuffle():
    """On the source whose order is the worst: sorted by class."""
    count, batch_size, share = 1280, 64, 0.1
    labels = np.repeat(np.arange(10), count // 10)

    def variance(source):
        settings = {"steps": 100, "batch_size": batch_size, "num_d_steps": 1}
        found = [labels[order(source, seed=seed, **settings)[:, 0]] for seed in range(3)]
        return np.mean([np.var((np.concatenate(found) == c).sum(axis=1)) for c in range(10)])

    independent = batch_size * share * (1 - share)  # columns, each of a lane of its own
    without_repeats = independent * (count - batch_size) / (count - 1)
    assert variance(InLanes(count, batch_size)) == pytest.approx(independent, rel=0.06)
    assert variance(Numbered(count)) == pytest.approx(without_repeats, rel=0.06)


@pytest.mark.parametrize("most", [4, 5, 16, 18])
def test_images_for_monitors_lie_with_the_process_that_has_their_lanes(most):
    source = InLanes()
    hold_out(source, 0.25)
    train, held_out = holdout.both_sides(source, most)
    count = {4: 4, 5: 4, 16: 16, 18: 16}[most]
    assert source.held_out[held_out].all() and not source.held_out[train].any()
    for side in train, held_out:
        assert len(set(side)) == count
        lane_of = source.lane_of[side]
        np.testing.assert_array_equal(
            lane_of, np.sort(np.resize(lane_of[:: -(-count // 8)], count))
        )
        for own in np.split(lane_of, 4):  # of a host of four
            assert len(set(own // 2)) == 1
    columns = holdout.by_columns(source.lane_of[held_out], 4, source)
    assert columns.shape == (count // 4, 4)
    np.testing.assert_array_equal(columns // 2, np.tile(np.arange(4), (count // 4, 1)))


def test_a_process_reads_images_for_monitors_from_its_own_lanes(monkeypatch):
    source, read, config = InLanes(), [], runs.tiny_config("--config.batch_size=16")
    hold_out(source, 0.25)
    monkeypatch.setattr(source, "read", lambda i: (read.append(i), InLanes.read(source, i))[1])
    monkeypatch.setattr(monitor_images.processes, "together", lambda call: call())
    monkeypatch.setattr(monitor_images.sharding, "global_batch", lambda x, mesh: x)
    monkeypatch.setattr(monitor_images.jax, "process_count", lambda: 2)
    for p in range(2):
        monkeypatch.setattr(monitor_images.jax, "process_index", lambda p=p: p)
        images = monitor_images.read(source, config, types.SimpleNamespace(size=4))
        assert set(source.lane_of[read[p]] // 4) == {p}
        np.testing.assert_array_equal(source.held_out[read[p]], images.held_out == 1)
        np.testing.assert_array_equal(~source.held_out[read[p]], images.trained_on == 1)
    assert len(set(np.concatenate(read))) == 32


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"processes": 3}, "8 lanes and --config.batch_size=24, .* 3 processes: run 2 or 4 of"),
        ({"processes": 16}, "among 16 processes: run 8 of them"),
        ({"batch_size": 6, "processes": 6}, "8 lanes .*batch_size=6, .*6 processes: run 2 of them"),
        (
            {"balance": 0.5},
            "balance=0.5 .* 8 lanes: set --config.data.balance=0, .* without lanes",
        ),
        ({"source": InLanes(7)}, r"lane 7 of 8 has no image .*\(7 in all\).*in fewer lanes"),
    ],
)
def test_what_lanes_cannot_do_is_one_line(settings, words):
    with pytest.raises(UserError, match=words) as caught:
        order(**{"steps": 1, "batch_size": 24, **settings})
    assert "\n" not in str(caught.value)


def test_how_many_lanes_are_written_unless_asked():
    size = 256 * 256 * 3 + 4
    assert lanes.default_count(1_281_167, 1_281_167 * size) == 1024
    assert lanes.default_count(100_000, 100_000 * size) == 0
    assert lanes.default_count(100_000, 100_000 * size, workers=8) == 256
    assert [lanes.default_count(100, 100, workers=n) for n in (1, 2, 3)] == [1, 2, 4]


@pytest.fixture(scope="module")
def laned(tmp_path_factory):
    """50 records in 4 lanes, whose shards hold 5 records at most."""
    folder = tmp_path_factory.mktemp("laned") / "out"
    prepare(make_source(), folder, shard_bytes=5 * 52, lanes=4)
    return folder


def test_record_i_is_example_i_and_lies_in_lane_i(laned):
    source, read = make_source(), open_records(laned)
    for got, want in zip(read.read(range(50)), source.read(range(50)), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(read.labels_of([7, 3, 3]), source.labels[[7, 3, 3]])
    assert read.labels_are_cheap and read.num_lanes == 4
    np.testing.assert_array_equal(read.lane_of, np.arange(50) % 4)
    np.testing.assert_array_equal(read.histogram(), np.bincount(source.labels, minlength=3))
    shards = json.loads((laned / "info.json").read_text())["shards"]
    assert [shard["lane"] for shard in shards] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [shard["count"] for shard in shards] == [5, 5, 3] * 2 + [5, 5, 2] * 2


def test_a_part_that_is_read_whole_is_that_of_few_shards(laned):
    read = open_records(laned)
    assert sorted(read.stored(range(50))) == list(range(50))
    lane_of = read.lane_of[read.stored(range(50))]
    np.testing.assert_array_equal(lane_of, np.repeat(np.arange(4), [13, 13, 12, 12]))
    assert read._shards.of(read._placed(read.stored(range(26)))).tolist() == list(range(6))
    np.testing.assert_array_equal(make_source().stored([4, 2]), [4, 2])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_process_opens_its_share_of_the_shards(laned, processes):
    opened = []
    for p in range(processes):
        source = open_records(laned)
        stream = Batches(source, seed=0, batch_size=8, process_index=p, process_count=processes)
        take(stream, 16)
        readers = source._shards._records._readers
        opened.append({number for number, reader in enumerate(readers) if reader})
    assert [len(shards) for shards in opened] == [12 // processes] * processes
    assert set().union(*opened) == set(range(12))


def test_a_host_needs_no_shard_of_other_lanes(laned, tmp_path):
    (tmp_path / "own").mkdir()
    for path in laned.iterdir():
        if "lane-00002" not in path.name and "lane-00003" not in path.name:
            (tmp_path / "own" / path.name).symlink_to(path)
    settings = {"seed": 0, "batch_size": 8, "process_count": 2}
    source = open_records(tmp_path / "own")
    whole = take(Batches(open_records(laned), seed=0, batch_size=8), 9)
    own = take(Batches(source, process_index=0, **settings), 9)
    assert all(
        np.array_equal(a["image"], b["image"][:, :4]) for a, b in zip(own, whole, strict=True)
    )
    with pytest.raises(UserError, match="lane-00002-of-00004-00000.* is missing; copy it there"):
        Batches(source, process_index=1, **settings)


def test_a_damaged_image_that_is_left_out_moves_no_other_one(tmp_path):
    class Damaged(ArraysAsSource):
        def read_good(self, indices):
            images, labels = self.read(indices)
            return images, labels, ~np.isin(indices, (5, 9, 22))

    made = make_source()
    info = prepare(Damaged(made.images, made.labels), tmp_path / "out", lanes=4)
    assert info["dropped"] == 3 and info["count"] == 47
    read = open_records(tmp_path / "out")
    images, labels = read.read(range(47))
    for lane in range(4):
        left = [i for i in range(lane, 50, 4) if i not in (5, 9, 22)]
        np.testing.assert_array_equal(images[read.lane_of == lane], made.images[left])
        np.testing.assert_array_equal(read.labels_of(np.arange(47)), labels)


class Stops(Exception):
    pass


def test_workers_write_what_one_writes_and_go_on_after_a_kill(tmp_path, laned):
    def write(number, source=None, stop=1 << 30):
        def progress(done, total):
            if done > stop:
                raise Stops

        sizes = {"shard_bytes": 5 * 52, "lanes": 4}
        return prepare(source or make_source(), out, worker=(number, 3), progress=progress, **sizes)

    out = tmp_path / "out"
    with pytest.raises(Stops):
        write(2, stop=20)  # lanes 2 and 3, in the second of them
    assert sorted(p.name for p in (out / "parts").iterdir()) == ["lane-00002.json"]
    assert "no prepared records; run again what has not ended of the workers" in refusal(out)
    written = (out / "lane-00002-of-00004-00000-of-00003.array_record").stat().st_mtime_ns
    assert write(0)["finished"] is write(1)["finished"] is False
    other = make_source()
    other.digest = lambda: "other"
    with pytest.raises(UserError, match="digest of the data 'arrays', not 'other': start all"):
        write(2, other)
    assert not (out / "parts" / "lane-00003.json").exists()
    info = write(2)
    assert info["count"] == 50 and not (out / "parts").exists()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in laned.iterdir())
    for path in out.iterdir():
        assert path.read_bytes() == (laned / path.name).read_bytes(), path.name
    assert (out / "lane-00002-of-00004-00000-of-00003.array_record").stat().st_mtime_ns == written
    assert write(1) == info  # started once more by a launcher


def test_workers_with_other_options_never_mix_their_lanes(tmp_path):
    """Raw pixels have no `encoding` in info.json, nor has a JPEG at its full size a `jpeg`."""
    webp, jpeg = encoding.Encoding("webp"), encoding.Encoding("jpeg", quality=50)

    def write(name, number=0, **options):
        sizes = {"lanes": 2, "worker": (number, 2), **options}
        return prepare(make_source(), tmp_path / name, **sizes)

    for name, first, second, words in (
        ("webp", {"encoding": webp}, {}, "encoding webp, not raw: start all workers with"),
        ("raw", {}, {"encoding": webp}, "encoding raw, not webp: start all workers with"),
        ("jpeg", {"encoding": jpeg}, {"encoding": webp}, "encoding jpeg 50 4:4:4, not webp"),
    ):
        write(name, 0, **first)
        with pytest.raises(UserError, match=words):
            write(name, 1, **second)
        write(name, 1, **first)  # and now it is finished
        with pytest.raises(UserError, match=rf"{name} holds finished records with {words[:12]}"):
            write(name, 1, **second)
    for options, words in (
        ({"lanes": 4}, "lanes 2, not 4: choose another --out or remove it"),
        ({"encoding": jpeg}, "encoding raw, not jpeg 50 4:4:4: choose another --out"),
    ):
        with pytest.raises(UserError, match=words):
            write("raw", 1, **options)
    fewer = ArraysAsSource(make_source().images[:40], make_source().labels[:40])
    with pytest.raises(UserError, match="images 50, not 40: choose another --out"):
        prepare(fewer, tmp_path / "raw", lanes=2, worker=(1, 2))


def test_a_lane_without_a_readable_image_is_refused_when_it_is_written(tmp_path):
    class Damaged(ArraysAsSource):
        def read_good(self, indices):
            images, labels = self.read(indices)
            return images, labels, ~np.isin(indices, (3, 5))

    made = make_source()
    source = Damaged(made.images[:6], np.zeros(6, np.int32))
    with pytest.raises(
        UserError, match="lane 3 of 4 has no readable image, of 4 in all: set fewer"
    ):
        prepare(source, tmp_path / "out", lanes=4)
    assert not list(tmp_path.iterdir())
    assert prepare(source, tmp_path / "out", lanes=3)["lanes"] == 3


def test_the_command_writes_lanes_and_says_what_it_cannot(tmp_path, capsys):
    digits = ["prepare", "--source=digits:test", "--resolution=8", "--channels=1"]
    parts = [[*digits, f"--out={tmp_path / 'out'}", f"--worker={i}/2", "--json"] for i in range(2)]
    assert cli.main(parts[1]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["finished"] is False and first["written"] == 1
    assert cli.main(parts[0]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["lanes"] == 2 and info["count"] == sum(s["count"] for s in info["shards"])
    for options, words in (
        (["--lanes=9999"], "images, which do not fill 9,999 lanes: set --lanes to a number from 0"),
        (["--lanes=-1"], "set --lanes to a number from 0 to"),
        (["--lanes=2", "--worker=2/2"], "--worker 2/2 is none of 2: number them from 0/2 to 1/2"),
        (["--lanes=2", "--worker=0/0"], "--worker 0/0: there is no worker; name one, such as 0/8"),
        (["--resolution=20000"], "--resolution is 20000; set it to a value from 1 to 8192"),
        (["--lanes=0", "--worker=0/2"], "--lanes is 0: set --lanes 1024, or fewer"),
        (["--lanes=2", "--worker=0/3"], "3 workers cannot share 2 lanes: start 2 of them"),
    ):
        assert cli.main([*digits, f"--out={tmp_path / 'no'}", *options]) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    assert cli.main([*digits, f"--out={tmp_path / 'no'}", "--worker=a"]) == 2
    assert "'a' is no I/N, such as 0/8" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    (tmp_path / "file").write_text("")
    for out, words in (
        (tmp_path / "file" / "x", "cannot be written (Not a directory): name another folder"),
        ("gs:/bucket", "gs:/bucket is no folder and no bucket"),
    ):
        assert cli.main([*digits, f"--out={out}"]) == 2
        assert words in capsys.readouterr().err


def test_an_info_file_whose_lanes_are_wrong_is_refused(laned, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    for path in laned.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    shards = json.loads((folder / "info.json").read_text())["shards"]
    for changes in ({"lanes": 3}, {"lanes": "4"}, {"shards": shards[::-1]}):
        change_info(folder, **{"lanes": 4, "shards": shards, **changes})
        assert "of no lane of" in refusal(folder)
    change_info(folder, lanes=4, shards=shards)
    (folder / "labels.npy").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"labels.npy is not the file .*copy it there again"):
        open_records(folder).labels_of([0])
    change_info(folder, format_version=3)
    assert "format version 3, this program reads versions 1 and 2" in refusal(folder)
