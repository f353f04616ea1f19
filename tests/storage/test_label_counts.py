"""Label counts are kept, so that a data set is scanned once."""

import pytest

from biggan_jax.data import data_report, open_source
from biggan_jax.errors import UserError
from biggan_jax.storage.label_counts import cached_report
from tests.scanned import Scanned


def test_the_second_call_does_not_scan(tmp_path):
    source = Scanned([0, 1, 1, 2])
    first = cached_report(source, tmp_path / "cache")
    second = cached_report(source, tmp_path / "cache")
    assert source.scans == 1
    assert first == second and first.histogram == (1, 2, 1)
    assert data_report(source) == first and source.scans == 2


def test_the_cache_belongs_to_one_digest(tmp_path):
    cached_report(Scanned([0, 1]), tmp_path)
    other = Scanned([2, 1], name="b")
    assert cached_report(other, tmp_path).histogram == (0, 1, 1)
    assert other.scans == 1


def test_the_cache_belongs_to_one_stamp(tmp_path):
    """Files that others of the same digest have replaced are counted anew."""

    class Replaced(Scanned):
        def stamp(self):
            return "later"

    cached_report(Scanned([0, 1]), tmp_path)
    other = Replaced([2, 1])
    assert cached_report(other, tmp_path).histogram == (0, 1, 1) and other.scans == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"histogram": "x"}', None])
def test_a_damaged_cache_is_scanned_anew(tmp_path, content):
    cached_report(Scanned([0, 1, 1]), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(whole.replace("[1, 2, 0]", "[1, 1, 0]") if content is None else content)
    source = Scanned([0, 1, 1])
    assert cached_report(source, tmp_path).histogram == (1, 2, 0)
    assert source.scans == 1
    assert path.read_text() == whole
    assert len(list(tmp_path.iterdir())) == 1


def test_cheap_sources_leave_no_cache(tmp_path):
    cached_report(open_source("digits", resolution=8, channels=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_labels_out_of_range_leave_no_cache(tmp_path):
    with pytest.raises(UserError, match="from 0 to 3.*allow 0 to 2"):
        cached_report(Scanned([0, 3]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_write_counts_as_well(tmp_path):
    assert cached_report(Scanned([0, 1, 1]), tmp_path, write=False).histogram == (1, 2, 0)
    assert list(tmp_path.iterdir()) == []
