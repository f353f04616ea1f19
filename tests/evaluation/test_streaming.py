"""Sums over streams equal the scores of whole arrays; bounded memory; tables and plots."""

import csv
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from biggan_jax.evaluation import report
from biggan_jax.evaluation.streaming import Fakes, InceptionScore
from biggan_jax.metrics import scores


@pytest.mark.parametrize("samples", [10, 103])
def test_inception_score_of_a_stream(samples):
    logits = np.random.default_rng(0).normal(0, 3, (samples, 7))
    logits[0, 1:] = -800.0  # underflows
    stream = InceptionScore(samples)
    for part in np.array_split(logits, 4):
        stream.add(part)
    whole = scores.inception_score(logits)
    assert stream.result() == pytest.approx((whole["mean"], whole["std"]), rel=1e-12)


def test_fakes_keep_the_first_and_count_all():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(25, 3)).astype(np.float32)
    logits, labels = rng.normal(size=(25, 2)), np.arange(25, dtype=np.int32) % 2
    fakes = Fakes(25, 3, 2, keep=12)
    for rows in np.array_split(np.arange(25), 3):
        fakes.add(features[rows], logits[rows], labels[rows])
    np.testing.assert_array_equal(fakes.features, features[:12])
    np.testing.assert_array_equal(fakes.labels, labels[:12])
    np.testing.assert_allclose(fakes.moments.statistics().covariance, np.cov(features.T))
    right = logits.argmax(1) == labels
    assert fakes.asked.tolist() == [13, 12]
    assert fakes.correct.tolist() == [right[labels == 0].sum(), right[labels == 1].sum()]


def test_memory_is_flat_in_the_number_of_samples():
    def peak(samples):
        rng = np.random.default_rng(0)
        tracemalloc.start()
        fakes = Fakes(samples, 32, 10, keep=100)
        for start in range(0, samples, 250):
            labels = np.arange(start, start + 250, dtype=np.int32) % 10
            fakes.add(rng.random((250, 32), np.float32), rng.random((250, 10)), labels)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(8000) < peak(1000) + 50_000  # the features of 7,000 more would take 900,000


def curve():
    t = np.linspace(0.2, 1.0, 5)
    return [
        {
            "truncation": float(x),
            "scores": {"fid": 3 - x, "is_mean": 9 - x, "precision": 1 - x / 4, "recall": x / 2},
            "fingerprint": "f",
        }
        for x in t
    ]


def result():
    fields = {
        "fingerprint": "f", "samples": 9, "seed": 0, "truncation": 1.0, "bn_mode": "running",
        "weights": "ema", "real_count": 9, "real": "digits", "real_digest": "d",
        "features": "classifier", "features_digest": "e", "resize": "none", "version": "0",
    }  # fmt: skip
    rows = curve()
    return {"scores": rows[-1]["scores"], "per_class": [], "protocol": fields, "curve": rows}


def test_curve_as_table_csv_and_plot(tmp_path):
    paths = report.write(result(), tmp_path / "report", "truncation")
    assert [p.rpartition(".")[2] for p in paths] == ["json", "csv", "png"]
    with open(paths[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["recall"]) for row in rows] == pytest.approx([x / 2 for x in
        np.linspace(0.2, 1, 5)])  # fmt: skip
    picture = np.asarray(Image.open(paths[2]).convert("L"))
    assert picture.shape[1] > 800 and (picture < 128).any()
    table = report.lines(result())
    assert table[0].split() == ["truncation", "fid", "is_mean", "precision", "recall"]
    assert table[1].split() == ["0.2", "2.8", "8.8", "0.95", "0.1"] and len(table) == 7
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "truncation.csv", "truncation.json", "truncation.png",
    ]  # fmt: skip


def test_classes_are_listed_worst_first_where_there_are_many():
    rows = [{"class": c, "name": f"n{c}", "asked": 1, "accuracy": c / 40} for c in range(40)]
    text = report.lines(
        {key: value for key, value in result().items() if key != "curve"}
        | {"per_class": rows[::-1]}
    )
    listed = [line.split()[0] for line in text if " n" in line]
    assert listed == [str(c) for c in range(20)] and "the worst 20 of 40 classes" in "".join(text)
