"""When a signal is out of bounds."""

import json

import numpy as np
import pytest

from biggan_jax.training import signals
from biggan_jax.training.signals import Series


def noisy(level, count, seed=0):
    return level * np.exp(0.3 * np.random.default_rng(seed).standard_normal(count))


def followed(name, values, start=0, series=None):
    """(step, state) of every change of a series that is judged at each step."""
    series, changes, before = series or Series(name), [], None
    for step, value in enumerate(values, start + 1):
        series.add(step, float(value))
        alarm = series.judge()
        state = alarm and alarm.state
        if state != before:
            changes.append((step, state))
        before = state
    return changes, series


@pytest.mark.parametrize("name", ["d_grad_norm", "g_grad_norm", "gap", "loss_peak"])
def test_noise_and_drift_are_no_alarm(name):
    """A factor of e in 500 steps, with 30% of noise."""
    values = noisy(5, 2000) * np.exp(np.arange(2000) / 500)
    assert followed(name, values)[0] == [] == followed(name, values[::-1])[0]


@pytest.mark.parametrize("name", ["d_grad_norm", "g_grad_norm"])
@pytest.mark.parametrize(("factor", "last"), [(1 / 6, "warning"), (1 / 50, "collapsed")])
def test_vanishing_gradients(name, factor, last):
    values = [*noisy(5, 200), *noisy(5 * factor, 300, seed=1)]
    changes, series = followed(name, values)
    assert changes[-1][1] == last and 205 <= changes[-1][0] <= 212
    # The reference stands still: what is out of bounds never becomes the rule.
    assert series.judge().state == last and series.good_until == 200
    alarm = series.judge()
    assert alarm.value < alarm.limit and "fell" not in alarm.text and "(was " in alarm.text


def test_back_in_bounds():
    values = [*noisy(5, 200), *noisy(0.05, 30), *noisy(5, 100)]
    changes, series = followed("g_grad_norm", values)
    assert changes[-1][1] is None and 230 < changes[-1][0] < 245
    assert series.good_until is None


def test_a_lone_value_is_no_alarm_but_is_remembered_for_a_while():
    changes, series = followed("d_grad_norm", [*noisy(5, 200), 500.0, *noisy(5, 4)])
    assert changes == [] and series.good_until == 200
    assert followed("d_grad_norm", noisy(5, 10), 205, series)[0] == []
    assert series.good_until is None


def test_a_peak_of_the_losses():
    values = [*noisy(2, 200, seed=2), 100.0]
    changes, series = followed("loss_peak", values)
    assert changes == [(201, "collapsed")] and series.good_until == 200
    assert followed("loss_peak", [*values[:200], 12.0])[0] == [(201, "warning")]


def test_nothing_is_judged_before_enough_is_known():
    assert followed("g_grad_norm", [*noisy(5, 40), *noisy(0.001, 25)])[0] == []
    assert followed("diversity", [1.0, 0.01])[0] == [(2, "collapsed")]  # whatever was before
    assert followed("diversity", [1.0, 0.9, 1.1, 1.0, 0.2])[0] == [(5, "warning")]


def test_a_series_goes_on_from_a_checkpoint():
    """At every step: what was written as JSON and read again judges as what never was."""
    values = [*noisy(5, 120), 300.0, *noisy(0.02, 20), *noisy(4, 40)]
    whole = followed("g_grad_norm", values)[0]
    for cut in (60, 119, 121, 125, 140, 150):
        first, series = followed("g_grad_norm", values[:cut])
        again = Series("g_grad_norm", json.loads(json.dumps(series.to_json())))
        rest, again = followed("g_grad_norm", values[cut:], cut, again)
        state = first[-1][1] if first else None
        later = [change for change in rest if not (change[0] == cut + 1 and change[1] == state)]
        assert first + later == whole
    assert again.to_json() == followed("g_grad_norm", values)[1].to_json()


def test_signals_of_metrics_monitors_and_scores():
    metrics = {"d_loss": -3.0, "g_loss": 0.5, "d_real": 0.5, "d_fake": -1.0, "g_grad_norm": 2.0}
    assert signals.of_step(metrics) == {"g_grad_norm": 2.0, "gap": 1.5, "loss_peak": 3.0}
    assert signals.of_step({}) == {}
    monitored = {
        "monitor/g/raw_sigma0/rgb/conv": 1.5,
        "monitor/d/raw_sigma0/linear": 9.0,
        "monitor/d/accuracy_train": 0.9,
        "monitor/d/accuracy_held_out": 0.6,
    }
    found = signals.of_monitors(monitored)
    assert found == {"sigma0/rgb/conv": 1.5, "held_out": pytest.approx(0.3)}
    assert signals.of_scores({"fid": 3.0, "is": 2.0}) == {"fid": 3.0}
    for name in (*found, *signals.of_step(metrics), "fid", "d_features"):
        assert signals.rule_of(name).what


def test_what_an_alarm_says():
    series = followed("sigma0/block_0/conv1", [1.0, 1.0, 1.1, 1.2, 4.0])[1]
    alarm = series.judge()
    assert alarm.state == "warning" and alarm.signal == "sigma0/block_0/conv1"
    assert alarm.text == ("the largest singular value of G's weight block_0/conv1 is 4 (was 1.05)")
    held_out = followed("held_out", [0.1, 0.5, 0.5])[1].judge()
    assert held_out.state == "warning" and held_out.value == 0.5 and held_out.limit == 0.4
