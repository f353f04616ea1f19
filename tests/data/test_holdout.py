"""Held-out images: always the same ones, none of them in the training stream."""

import re

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import Batches, hold_out, holdout, open_source
from biggan_jax.errors import UserError
from biggan_jax.storage.label_counts import held_out_counts
from tests.data.test_batches import Numbered, identities, take
from tests.scanned import Scanned


def stream(fraction, **settings):
    source = Numbered(200)
    hold_out(source, fraction)
    return source, Batches(source, **{"seed": 0, "batch_size": 10, **settings})


def test_an_index_is_held_out_whatever_the_data_and_a_larger_share_keeps_it():
    few, many = holdout.of_indices(10_000, 0.1), holdout.of_indices(20_000, 0.1)
    np.testing.assert_array_equal(few, many[:10_000])
    assert few.mean() == pytest.approx(0.1, abs=0.01)
    assert not (few & ~holdout.of_indices(10_000, 0.3)).any()
    # Of these very indices: a run of an earlier version must find them again.
    assert np.flatnonzero(few)[:6].tolist() == [6, 23, 38, 56, 70, 104]


def test_the_stream_has_every_other_image_once_an_epoch_and_none_that_is_held_out():
    source, batches = stream(0.25)
    kept = np.flatnonzero(~source.held_out)
    order = np.concatenate([identities(b).ravel() for b in take(batches, 32)])
    for epoch in range(2):
        seen = order[epoch * len(kept) : (epoch + 1) * len(kept)]
        assert sorted(seen) == kept.tolist()
    assert 120 < len(kept) < 180


def test_the_stream_stays_a_function_of_seed_and_step():
    settings = {"batch_size": 8, "num_d_steps": 2, "flip": True}
    whole = take(stream(0.25, **settings)[1], 6)
    late = take(stream(0.25, start_step=3, **settings)[1], 3)
    halves = [
        take(stream(0.25, process_index=p, process_count=2, **settings)[1], 6) for p in range(2)
    ]
    for step, batch in enumerate(whole):
        joined = [np.concatenate([h[step][key] for h in halves], axis=1) for key in batch]
        for key, both in zip(batch, joined, strict=True):
            np.testing.assert_array_equal(both, batch[key])
            if step >= 3:
                np.testing.assert_array_equal(late[step - 3][key], batch[key])


def test_without_a_share_the_stream_is_that_of_before():
    assert stream(0.0)[0].held_out is None
    first = identities(take(stream(0.0)[1], 1)[0]).ravel()
    assert first.tolist() == [160, 77, 31, 141, 146, 121, 144, 119, 66, 41]


def test_sides_are_even_and_the_same_in_every_run():
    source, _ = stream(0.25)
    train, held_out = holdout.both_sides(source, 12)
    assert len(set(train)) == len(set(held_out)) == 12
    assert source.held_out[held_out].all() and not source.held_out[train].any()
    fewer = holdout.both_sides(source, 5)
    assert set(fewer[0]) < set(train) and set(fewer[1]) < set(held_out)
    assert len(holdout.both_sides(source, 500)[0]) == source.held_out.sum()


@pytest.mark.parametrize(
    ("count", "fraction", "words"),
    [
        (3, 1e-9, "3 images, of which none is held out: set --config.data.holdout=0.2 to hold out"),
        (1, 0.5, "1 image, of which all are: set --config.data.holdout=0 to hold out none"),
        (1, 1e-9, "1 image, of which none is held out: set --config.data.holdout=0 to hold out"),
    ],
)
def test_a_share_of_nothing_or_of_all_is_refused(count, fraction, words, monkeypatch):
    """What the message names is taken; one image is held out or not."""
    if fraction == 0.5:  # an index whose hash is small
        monkeypatch.setattr(holdout, "_hashes", np.zeros)
    source = Numbered(count)
    with pytest.raises(UserError, match=f"data.holdout is {fraction} .* has {words}") as refused:
        hold_out(source, fraction)
    (named,) = re.findall(r"set --config.data.holdout=(\S+)", str(refused.value))
    hold_out(source, float(named))
    assert float(named) == 0 or 0 < source.held_out.sum() < count


@pytest.mark.parametrize("count", [2, 7, 40, 999, 12_345])
def test_a_share_that_is_named_holds_some_out(count):
    (advice,) = holdout._other_fraction(count)
    named, number = re.fullmatch(r"--config.data.holdout=(\S+) to hold out (\S+)", advice).groups()
    assert 0 < float(named) <= 0.5
    held_out = holdout.of_indices(count, float(named)).sum()
    assert 0 < held_out < count and f"{held_out:,}" == number


def test_a_damaged_training_image_is_not_replaced_by_a_held_out_one(tmp_path):
    for i in range(6):
        path = tmp_path / "cat" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 40 * i).save(path)
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    spec = {"resolution": 4, "channels": 1, "on_bad_record": "skip"}
    source = open_source(f"folder:{tmp_path}", **spec)
    source.held_out = np.array([False, True, True, False, True, True])
    images, _ = source.read([0])
    assert images[0, 0, 0, 0] == 120  # number 3, the next one of the training images
    assert open_source(f"folder:{tmp_path}", **spec).read([0])[0][0, 0, 0, 0] == 40


def test_the_report_counts_them_by_class(tmp_path, capsys):
    train = ["train", f"--workdir={tmp_path / 'run'}", "--config=digits"]
    assert cli.main(train + ["--config.data.holdout=0.7"]) == 2
    assert "data.holdout is 0.7; set --config.data.holdout to a value from 0 to 0.5" in (
        capsys.readouterr().err
    )
    source = open_source("digits", resolution=8, channels=1)
    assert held_out_counts(source, tmp_path) == ()
    hold_out(source, 0.1)
    labels = source.read(range(len(source)))[1][source.held_out]
    assert held_out_counts(source, tmp_path) == tuple(np.bincount(labels, minlength=10))


def test_counts_of_a_slow_source_are_kept(tmp_path):
    class Slow(Scanned):
        def labels_of(self, indices):
            self.scans += 1
            return self.labels[indices]

    source = Slow([0, 1, 1, 2] * 50)
    hold_out(source, 0.2)
    first = held_out_counts(source, tmp_path)
    assert first == held_out_counts(source, tmp_path) and source.scans == 1
    assert sum(first) == source.held_out.sum()
    hold_out(source, 0.4)
    assert sum(held_out_counts(source, tmp_path)) == source.held_out.sum()
