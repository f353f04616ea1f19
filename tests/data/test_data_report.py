"""The data report: what it says."""

import numpy as np
import pytest

from biggan_jax.data import data_report, open_source
from biggan_jax.errors import UserError
from tests.scanned import Scanned


def test_digits():
    source = open_source("digits", resolution=8, channels=1)
    report = data_report(source)
    assert (report.spec, report.examples, report.num_classes) == ("digits", 1797, 10)
    assert (report.label_min, report.label_max, report.ignored_files) == (0, 9, 0)
    assert report.histogram == tuple(source.histogram().tolist())
    assert report.digest == source.digest() and len(report.digest) == 64
    text = "\n".join(report.lines())
    assert "1,797" in text and "3 183" in text


@pytest.mark.parametrize(("labels", "found"), [([0, 3], "0 to 3"), ([-1, 1], "-1 to 1")])
def test_labels_out_of_range_name_the_range(labels, found):
    with pytest.raises(UserError, match=f"from {found}.*allow 0 to 2"):
        data_report(Scanned(labels))


def test_many_classes_are_summarised():
    labels = np.repeat(np.arange(100), np.arange(100))
    report = data_report(Scanned(labels, num_classes=100))
    text = "\n".join(report.lines())
    assert "min 0 (c0)" in text and "median 49.5" in text and "max 99 (c99)" in text
    assert "1 class has no image" in text
    assert "c50 50" not in text
    assert (report.label_min, report.label_max) == (1, 99)
