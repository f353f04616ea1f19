"""The stream: a pure function of (seed, step), whoever reads it."""

import threading
import time

import numpy as np
import pytest
from scipy import stats

from biggan_jax.data import Batches, Source, open_source, prepare
from biggan_jax.data.stream import flip_coins
from biggan_jax.errors import UserError

N = 23


class Numbered(Source):
    """Image i holds i in its left column and 255 in its right one; its label is i % num_classes."""

    def __init__(self, count=N, num_classes=5):
        super().__init__("numbered", 2, 1, [str(i) for i in range(num_classes)])
        self.count = count
        self.indices_read = []
        self._guard = threading.Lock()

    def __len__(self):
        return self.count

    def read(self, indices):
        index_n = np.asarray(indices)
        with self._guard:
            self.indices_read.extend(index_n.tolist())
        images = np.full((len(index_n), 2, 2, 1), 255, np.uint8)
        images[:, :, 0, 0] = index_n[:, None]
        return images, (index_n % self.num_classes).astype(np.int32)


def stream(source=None, **settings):
    return Batches(source or Numbered(), **{"seed": 3, "batch_size": 8, **settings})


def take(batches, count):
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def identities(batch):
    """Which example each image is, whether mirrored or not."""
    return batch["image"].min(axis=(-1, -2, -3))


def equal(first, second):
    return all(np.array_equal(first[key], second[key]) for key in ("image", "label"))


def test_shapes_and_types():
    batches = stream(num_d_steps=3)
    (batch,) = take(batches, 1)
    assert batch["image"].shape == (3, 8, 2, 2, 1) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (3, 8) and batch["label"].dtype == np.int32
    np.testing.assert_array_equal(identities(batch) % 5, batch["label"])


@pytest.mark.parametrize(("batch_size", "num_d_steps"), [(8, 1), (5, 2), (23, 1), (30, 2)])
def test_every_epoch_holds_every_example_once_in_its_own_order(batch_size, num_d_steps):
    batches = stream(batch_size=batch_size, num_d_steps=num_d_steps)
    steps = -(-3 * N // (batch_size * num_d_steps))
    order = np.concatenate([identities(b).ravel() for b in take(batches, steps)])
    epochs = [order[N * e : N * (e + 1)].tolist() for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(N))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != list(range(N))


def test_one_example_is_repeated():
    (batch,) = take(stream(Numbered(1)), 1)
    assert np.all(identities(batch) == 0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("process_count", [2, 4])
def test_the_processes_together_read_what_one_reads(process_count, flip):
    settings = {"num_d_steps": 3, "flip": flip}
    whole = take(stream(**settings), 5)
    sources = [Numbered() for _ in range(process_count)]
    parts = [
        take(stream(s, process_index=p, process_count=process_count, **settings), 5)
        for p, s in enumerate(sources)
    ]
    for step, batch in enumerate(whole):
        joined = {key: np.concatenate([part[step][key] for part in parts], axis=1) for key in batch}
        assert equal(joined, batch)


def test_a_process_reads_only_its_slice():
    source = Numbered()
    batches = stream(source, process_index=1, process_count=4, num_d_steps=2)
    batch = batches.batch_at(0)
    assert source.indices_read == identities(batch).ravel().tolist()
    assert len(source.indices_read) == 2 * 2
    batches.close()


@pytest.mark.parametrize("flip", [False, True])
def test_starting_late_equals_skipping(flip):
    whole = take(stream(flip=flip, num_d_steps=2), 9)
    late = take(stream(flip=flip, num_d_steps=2, start_step=4), 5)
    assert all(equal(a, b) for a, b in zip(whole[4:], late, strict=True))


def test_starting_late_reads_nothing_before():
    source = Numbered()
    batches = stream(source, start_step=10**9, flip=True)
    begin = time.perf_counter()
    first = next(batches)
    assert time.perf_counter() - begin < 5
    assert equal(first, batches.batch_at(10**9))
    batches.close()
    assert len(source.indices_read) < 10 * 8


def test_batch_at_is_the_iterator():
    batches = stream(flip=True)
    for step, batch in enumerate(take(batches, 4)):
        assert equal(batch, batches.batch_at(step))


def test_seeds_differ():
    first, again, other = (take(stream(seed=s), 1)[0] for s in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)


def test_flips_mirror_about_half_and_keep_the_order():
    settings = {"source": Numbered(200), "batch_size": 100, "num_d_steps": 4}
    plain, flipped = (take(stream(flip=f, **settings), 1)[0] for f in (False, True))
    np.testing.assert_array_equal(plain["label"], flipped["label"])
    mirrored = plain["image"][..., ::-1, :]
    chosen = (flipped["image"] == mirrored).all(axis=(-1, -2, -3))
    kept = (flipped["image"] == plain["image"]).all(axis=(-1, -2, -3))
    assert np.all(chosen ^ kept)
    assert 150 < chosen.sum() < 250


def test_flips_follow_the_coins_and_keep_rows_and_channels():
    class Coloured(Numbered):
        def read(self, indices):
            images = np.random.default_rng(0).integers(0, 256, (N, 4, 6, 3), dtype=np.uint8)
            return images[indices], super().read(indices)[1]

    plain, flipped = (take(stream(Coloured(), flip=f, num_d_steps=2), 3) for f in (False, True))
    for step in range(3):
        coins = flip_coins(3, step * 16, 16)
        assert coins.any() and not coins.all()
        before, after = (taken[step]["image"].reshape(16, 4, 6, 3) for taken in (plain, flipped))
        np.testing.assert_array_equal(after[coins], before[coins][:, :, ::-1])
        np.testing.assert_array_equal(after[~coins], before[~coins])


def test_coins_depend_on_seed_and_position_alone():
    whole = flip_coins(5, 0, 2000)
    for start, count in ((0, 1), (255, 2), (256, 256), (700, 1300), (1999, 1)):
        np.testing.assert_array_equal(flip_coins(5, start, count), whole[start : start + count])
    assert not np.array_equal(flip_coins(6, 0, 2000), whole)
    far = flip_coins(5, 10**15, 10_000)
    assert stats.binomtest(int(far.sum()), 10_000).pvalue > 1e-3


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_named(label):
    class Wrong(Numbered):
        def read(self, indices):
            images, labels = super().read(indices)
            labels[np.asarray(indices) == 7] = label
            return images, labels

    batches = stream(Wrong())
    with pytest.raises(UserError, match=f"example 7 has label {label}, outside 0 to 4"):
        take(batches, 3)
    batches.close()


def test_an_error_in_a_reading_thread_surfaces_and_stays(tmp_path):
    class Breaks(Numbered):
        broken = True

        def read(self, indices):
            if self.broken and 7 in np.asarray(indices):
                raise UserError("record 7 is broken")
            return super().read(indices)

    source = Breaks()
    want = take(stream(), 3)
    batches = stream(source)
    got = []
    with pytest.raises(UserError, match="record 7 is broken"):
        for _ in range(3):
            got.append(next(batches))
    with pytest.raises(UserError, match="record 7 is broken"):
        next(batches)
    source.broken = False
    got += [next(batches) for _ in range(3 - len(got))]
    batches.close()
    assert all(equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 10, "process_count": 4}, ("batch_size=10", "4 processes")),
        ({"batch_size": 0}, ("batch_size is 0", "--config.batch_size")),
        ({"num_d_steps": 0}, ("num_d_steps is 0", "--config.num_d_steps")),
        ({"seed": -1}, ("seed is -1", "--config.seed")),
        ({"seed": 2**32}, ("seed is 4294967296", "--config.seed")),
    ],
)
def test_numbers_out_of_their_domain(settings, words):
    with pytest.raises(UserError) as caught:
        stream(**settings)
    for word in words:
        assert word in str(caught.value)


def test_records_and_their_source_give_the_same_stream(tmp_path):
    source = open_source("digits:test", resolution=8, channels=1)
    prepare(source, tmp_path / "out", shard_bytes=100 * 68)
    records = open_source(f"records:{tmp_path / 'out'}", resolution=8, channels=1)
    streams = [
        take(Batches(s, seed=1, batch_size=32, num_d_steps=2, flip=True), 12)
        for s in (source, records)
    ]
    assert all(equal(a, b) for a, b in zip(*streams, strict=True))
