"""A balanced stream: exact shares, the images of a class equally often, all of it by the seed."""

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import Batches, hold_out, open_source, prepare
from biggan_jax.data.balance import BalancedOrder, shares
from biggan_jax.errors import UserError
from biggan_jax.storage import label_counts
from tests import runs
from tests.data.test_batches import Numbered, equal, identities, take
from tests.scanned import Scanned

COUNTS = (20, 7, 1, 0, 2)  # a class of one image, and one of none
LABELS = np.repeat(np.arange(5), COUNTS)
PLAIN = [4, 22, 16, 7, 21, 3, 18, 19]
LATER = [0, 27, 17, 28, 14, 22]
FIRST = [29, 27, 28, 27, 11, 15, 28, 23, 1, 17, 7, 25]


class LongTail(Numbered):
    """Image i has the class `LABELS[i]`."""

    labels_are_cheap = True

    def __init__(self):
        super().__init__(len(LABELS), 5)

    def read(self, indices):
        return super().read(indices)[0], self.labels_of(indices)

    def labels_of(self, indices):
        return LABELS[np.asarray(indices)].astype(np.int32)


def stream(balance=1.0, source=None, **settings):
    settings = {"seed": 3, "batch_size": 8, **settings}
    return Batches(source or LongTail(), balance=balance, **settings)


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_shares_are_the_power_of_the_counts(balance):
    want = np.array([n ** (1 - balance) if n else 0.0 for n in COUNTS])
    np.testing.assert_allclose(shares(np.array(COUNTS), balance), want / want.sum(), atol=1e-11)


@pytest.mark.parametrize("balance", [0.01, 0.5, 1.0])
def test_the_stream_keeps_the_shares_and_each_image_of_a_class_comes_as_often(balance):
    order = BalancedOrder(LABELS, 5, balance, seed=7)
    drawn = order(np.arange(40 * order.block))
    for end in (order.block, 7 * order.block, len(drawn)):
        got = np.bincount(LABELS[drawn[:end]], minlength=5)
        assert np.abs(got - end * shares(np.array(COUNTS), balance)).max() < 1
    for end in (1, 11, 100, 777, len(drawn)):  # in the midst of epochs too
        per_image = np.bincount(drawn[:end], minlength=len(LABELS))
        for c in (0, 1, 2, 4):
            assert np.ptp(per_image[np.equal(LABELS, c)]) <= 1
    of_class = drawn[LABELS[drawn] == 1]
    epochs = [tuple(of_class[i : i + 7]) for i in range(0, len(of_class) - 6, 7)]
    assert all(sorted(epoch) == list(range(20, 27)) for epoch in epochs)
    assert len(set(epochs)) > len(epochs) / 2  # an order of its own for each
    assert len({tuple(drawn[i : i + 8]) for i in range(0, 800, 8)}) == 100


def test_a_position_can_be_read_alone_however_far_and_the_seed_moves_all():
    order = BalancedOrder(LABELS, 5, 0.5, seed=7)
    drawn = order(np.arange(500))
    again = BalancedOrder(LABELS, 5, 0.5, seed=7)
    for at in (499, 3, 250, 31):  # backwards too
        assert again(np.array([at]))[0] == drawn[at]
    assert not np.array_equal(BalancedOrder(LABELS, 5, 0.5, seed=8)(np.arange(500)), drawn)
    far = 10**15 + np.arange(40 * order.block)
    got = np.bincount(LABELS[order(far)], minlength=5) / len(far)
    np.testing.assert_allclose(got, shares(np.array(COUNTS), 0.5), atol=0.01)


def test_of_these_very_images():
    """A resumed run of another version or processor must find them again."""
    order = BalancedOrder(LABELS, 5, 0.5, seed=7)
    assert order(np.arange(12)).tolist() == FIRST
    assert order(np.arange(10**9, 10**9 + 6)).tolist() == LATER


def test_large_data_are_laid_out_in_parts():
    labels = np.repeat([0, 1], [200_000, 1])
    order = BalancedOrder(labels, 2, 1.0, seed=0)
    assert order.block == 2**16
    drawn = order(np.arange(4 * order.block))
    assert (drawn == 200_000).sum() == 2 * order.block
    assert np.ptp(np.bincount(drawn[drawn < 200_000], minlength=200_000)) <= 1
    assert BalancedOrder(labels, 2, 0.01, seed=0).block > 2**16  # the rare one is in every block


@pytest.mark.parametrize("flip", [False, True])
def test_processes_and_restarts_see_one_stream(flip):
    settings = {"num_d_steps": 3, "flip": flip}
    whole = take(stream(**settings), 6)
    parts = [take(stream(process_index=p, process_count=4, **settings), 6) for p in range(4)]
    late = take(stream(start_step=4, **settings), 2)
    for step, batch in enumerate(whole):
        joined = {key: np.concatenate([part[step][key] for part in parts], axis=1) for key in batch}
        assert equal(joined, batch)
    assert all(equal(a, b) for a, b in zip(whole[4:], late, strict=True))
    labels = np.concatenate([batch["label"].ravel() for batch in whole])
    assert np.ptp(np.bincount(labels, minlength=5)[[0, 1, 2, 4]]) <= 3


def test_without_balance_the_order_is_that_of_before_and_no_label_is_read():
    class Shut(Numbered):
        def labels_of(self, indices):
            raise AssertionError

    batches = stream(0.0, Shut())
    (first,) = take(batches, 1)
    assert identities(first).ravel().tolist() == PLAIN


def test_held_out_images_stay_out_and_take_no_part_in_the_shares():
    source = LongTail()
    source.held_out = np.isin(np.arange(len(LABELS)), (0, 1, 29))
    drawn = identities(take(stream(source=source, batch_size=27), 4)[0])
    all_drawn = np.concatenate([identities(b).ravel() for b in take(stream(source=source), 27)])
    assert not np.isin(all_drawn, (0, 1, 29)).any() and (all_drawn == 28).sum() == 27 * 8 // 4
    assert drawn.max() == 28
    hold_out(source, 0.1)


def test_a_class_of_one_image_in_every_kind_of_source(tmp_path):
    for name, count in (("cat", 6), ("dog", 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            image = Image.new("L", (8, 8), 30 * i + 10)
            image.save(tmp_path / "images" / name / f"{i}.png")
    spec = {"resolution": 8, "channels": 1}
    folder = open_source(f"folder:{tmp_path / 'images'}", **spec)
    prepare(folder, tmp_path / "records")
    records = open_source(f"records:{tmp_path / 'records'}", **spec)
    streams = [take(stream(source=source, batch_size=7), 2) for source in (folder, records)]
    for a, b in zip(*streams, strict=True):
        assert equal(a, b)
    assert sum((batch["label"] == 1).sum() for batch in streams[0]) == 7
    (tmp_path / "images" / "cat" / "3.png").write_bytes(b"")
    skipping = open_source(f"folder:{tmp_path / 'images'}", on_bad_record="skip", **spec)
    for a, b in zip(streams[0], take(stream(source=skipping, batch_size=7), 2), strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])  # one of its class takes its place


def test_the_labels_of_a_slow_source_are_read_once(tmp_path):
    class Slow(Scanned):
        def labels_of(self, indices):
            self.scans += 1
            return self.labels[indices]

    source = Slow([0, 1, 1, 2] * 50)
    first = label_counts.labels(source, tmp_path)
    np.testing.assert_array_equal(label_counts.labels(source, tmp_path), first)
    assert source.scans == 1 and first.tolist() == source.labels.tolist()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[40] ^= 1  # another class, and no word from the disk
    file.write_bytes(content)
    assert label_counts.labels(source, tmp_path).tolist() == source.labels.tolist()
    with pytest.raises(UserError, match="labels range from 0 to 3"):
        label_counts.labels(Slow([0, 3]), tmp_path / "other")


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan"])
def test_a_balance_outside_its_domain(value, capsys, tmp_path):
    args = ["train", f"--workdir={tmp_path / 'run'}", f"--config={runs.DIGITS}"]
    assert cli.main([*args, f"--config.data.balance={value}"]) == 2
    runs.assert_one_error(capsys.readouterr(), "data.balance is .*from 0 to 1")


@pytest.mark.full
def test_doctor_says_what_rare_classes_get(tmp_path, capsys):
    for name, count in (("cat", 30), ("dog", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("L", (8, 8), 8 * i).save(tmp_path / name / f"{i}.png")
    args = ["doctor", f"--config={runs.DIGITS}", f"--config.data.source=folder:{tmp_path}"]
    cli.main(args)
    out = capsys.readouterr().out
    assert "as rarely in training; add images of them, or train with data.balance=0.5" in out
    cli.main([*args, "--config.data.balance=1"])
    out = capsys.readouterr().out
    assert "of an epoch, 31 images, are drawn of each class: cat 16, dog 16" in out
    assert "an image of the smallest about 30 times as often" in out
