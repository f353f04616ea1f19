"""The data report: what it says, and that it does not scan twice."""

import numpy as np
import pytest

from biggan_jax.data import Source, data_report, open_source
from biggan_jax.data.source import count_labels
from biggan_jax.errors import UserError


class Scanned(Source):
    """A source whose labels are only known after reading them all."""

    histogram_is_cheap = False

    def __init__(self, labels, num_classes=3, name="a"):
        super().__init__("scanned", 2, 1, [f"c{i}" for i in range(num_classes)])
        self.labels, self.name, self.scans = np.array(labels), name, 0

    def __len__(self):
        return len(self.labels)

    def histogram(self):
        self.scans += 1
        return count_labels(self.labels, self.num_classes, self.spec)

    def digest(self):
        return self.name * 64


def test_digits():
    source = open_source("digits", resolution=8, channels=1)
    report = data_report(source, None)
    assert (report.spec, report.examples, report.num_classes) == ("digits", 1797, 10)
    assert (report.label_min, report.label_max, report.ignored_files) == (0, 9, 0)
    assert report.histogram == tuple(source.histogram().tolist())
    assert report.digest == source.digest() and len(report.digest) == 64
    text = "\n".join(report.lines())
    assert "1,797" in text and "3 183" in text


def test_the_second_call_does_not_scan(tmp_path):
    source = Scanned([0, 1, 1, 2])
    first = data_report(source, tmp_path / "cache")
    second = data_report(source, tmp_path / "cache")
    assert source.scans == 1
    assert first == second and first.histogram == (1, 2, 1)
    data_report(source, None)
    assert source.scans == 2


def test_the_cache_belongs_to_one_digest(tmp_path):
    data_report(Scanned([0, 1]), tmp_path)
    other = Scanned([2, 1], name="b")
    assert data_report(other, tmp_path).histogram == (0, 1, 1)
    assert other.scans == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"histogram": "x"}', None])
def test_a_damaged_cache_is_scanned_anew(tmp_path, content):
    data_report(Scanned([0, 1, 1]), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(whole.replace("[1, 2, 0]", "[1, 1, 0]") if content is None else content)
    source = Scanned([0, 1, 1])
    assert data_report(source, tmp_path).histogram == (1, 2, 0)
    assert source.scans == 1
    assert path.read_text() == whole
    assert len(list(tmp_path.iterdir())) == 1


def test_cheap_sources_leave_no_cache(tmp_path):
    data_report(open_source("digits", resolution=8, channels=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("labels", "found"), [([0, 3], "0 to 3"), ([-1, 1], "-1 to 1")])
def test_labels_out_of_range_name_the_range(labels, found, tmp_path):
    with pytest.raises(UserError, match=f"from {found}.*allow 0 to 2"):
        data_report(Scanned(labels), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_many_classes_are_summarised():
    labels = np.repeat(np.arange(100), np.arange(100))
    report = data_report(Scanned(labels, num_classes=100), None)
    text = "\n".join(report.lines())
    assert "min 0 (c0)" in text and "median 49.5" in text and "max 99 (c99)" in text
    assert "1 classes have no image" in text
    assert "c50 50" not in text
    assert (report.label_min, report.label_max) == (1, 99)
