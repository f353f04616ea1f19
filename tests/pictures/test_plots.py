"""Plots: what is drawn is what was given."""

import numpy as np
from matplotlib.figure import Figure

from biggan_jax.pictures import plots

BLUE = (31, 119, 180)  # the colour of the first line of a panel


def panels(scores):
    """(left half, right half) of a curve of three thresholds, uint8 [H, W, 3]."""
    picture = plots.truncation_curve([0.2, 0.5, 1.0], scores)
    assert picture.mode == "RGB" and picture.width > 1000
    pixels = np.asarray(picture)
    return np.split(pixels[:, : pixels.shape[1] // 2 * 2], 2, axis=1)


def places(pixels, color):
    return np.argwhere((np.abs(pixels.astype(int) - color) < 12).all(axis=-1))


def test_truncation_curve():
    scores = {"fid": [3.0, 2.0, 1.0], "is_mean": [9.0, 8.0, 7.0], "density": [0.2, 0.5, 0.9]}
    left, right = panels(scores)
    at = places(left, BLUE)
    row, column = at.T
    # A higher IS comes with a higher FID here: the line rises to the right.
    assert np.corrcoef(column, -row)[0, 1] > 0.9
    row, column = places(right, BLUE).T
    assert np.corrcoef(column, -row)[0, 1] > 0.5
    falling = panels(scores | {"fid": [1.0, 2.0, 3.0]})[0]
    row, column = places(falling, BLUE).T
    assert np.corrcoef(column, -row)[0, 1] < -0.9


def test_scores_that_are_missing_are_not_drawn():
    scores = {"fid": [3.0, 2.0, 1.0], "is_mean": [9.0, 8.0, 7.0]}
    left, right = panels(scores)
    assert len(places(left, BLUE)) and not len(places(right, BLUE))


def test_a_long_label_of_a_narrow_picture_is_whole():
    """The label of the y axis stays within the axes: broken into lines, no word lost."""
    words = "largest singular value before spectral normalisation"
    for width, lines in ((1.8, range(2, 9)), (9, range(1, 2))):
        figure = Figure(figsize=(width, width), layout="constrained")
        axes = figure.subplots()
        axes.set(ylabel=words)
        plots.rendered(figure)
        label = axes.yaxis.label
        assert label.get_text().split() == words.split()
        assert label.get_text().count("\n") + 1 in lines
        assert label.get_window_extent().height <= axes.get_window_extent().height
