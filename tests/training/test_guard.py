"""What a guard makes of its signals: events, the step to go back to, and an end."""

import dataclasses
import json
import types

import numpy as np
import pytest

from biggan_jax.storage import guard_log
from biggan_jax.training import guard as guard_lib
from biggan_jax.training.guard import CollapsedError, Guard
from biggan_jax.training.rollback import RollBack
from tests import runs

HEALTHY = {"d_grad_norm": 5.0, "g_grad_norm": 3.0, "d_loss": 2.0, "g_loss": 0.2}
DEAD = HEALTHY | {"d_grad_norm": 0.01, "g_grad_norm": 0.001}


def guarded(workdir, action, steps=(), **kept):
    """A guard whose run has these checkpoints on the disk."""
    config = runs.tiny_config(f"--config.guard.action={action}")
    disk = types.SimpleNamespace(wait=lambda: None, all_steps=lambda: list(steps))
    return Guard(config, workdir, checkpoints=disk, **kept)


def follow(guard, first, last, metrics, saves=()):
    """Steps first + 1 to last, judged every fifth."""
    for step in range(first + 1, last + 1):
        noise = np.exp(0.2 * np.random.default_rng(step).standard_normal())
        guard.observe(step, {name: noise * value for name, value in metrics.items()})
        if step % 5 == 0:
            guard.judge(step)
        if step in saves:
            guard.saved(step)


def states(workdir):
    return [(event["step"], event["state"]) for event in guard_log.read(workdir)[0]]


def test_a_warning_a_collapse_and_health_again(tmp_path, capsys):
    guard = guarded(tmp_path, "warn")
    follow(guard, 0, 200, HEALTHY)
    assert states(tmp_path) == [] and capsys.readouterr().err == ""
    follow(guard, 200, 220, DEAD)
    follow(guard, 220, 260, HEALTHY)
    assert states(tmp_path) == [(210, "collapsed"), (225, "healthy")]
    event = guard_log.read(tmp_path)[0][0]
    assert event["signal"] in DEAD and event["value"] < event["limit"] and event["action"] == "warn"
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"guard: step 210: {event['text']}"
    assert "the norm of G's gradient is 0.001" in first and "(was 2.9" in first


def test_it_stops_with_advice(tmp_path):
    guard = guarded(tmp_path, "stop", steps=(100, 150, 205))
    follow(guard, 0, 200, HEALTHY, saves=(100, 150))
    with pytest.raises(CollapsedError) as error:
        follow(guard, 200, 230, DEAD, saves=(205,))
    assert "collapsed at step 210" in str(error.value)
    assert "step 150 was healthy" in str(error.value)
    assert "`--allow-change --config.guard.action=rollback`" in str(error.value)
    assert states(tmp_path) == [(210, "collapsed")]


def test_the_newest_checkpoint_before_the_first_bad_value(tmp_path):
    """205 was saved when nothing was noticed yet, 150 has gone from the disk."""
    guard = guarded(tmp_path, "rollback", steps=(100, 205))
    follow(guard, 0, 200, HEALTHY, saves=(100, 150))
    with pytest.raises(RollBack) as back:
        follow(guard, 200, 230, DEAD, saves=(205,))
    event = back.value.event
    assert (event["step"], event["to_step"], event["state"]) == (210, 100, "rolled_back")
    assert event["changes"] == {"optimizer.g_lr": [4e-4, 1e-4], "optimizer.d_lr": [8e-4, 2e-4]}
    assert "optimizer.d_lr 0.0008 -> 0.0002" in event["text"]


def test_a_collapse_that_was_only_warned_of_is_undone_when_it_is_allowed(tmp_path):
    warned = guarded(tmp_path, "warn")
    follow(warned, 0, 230, HEALTHY, saves=(100, 200))
    follow(warned, 230, 300, DEAD, saves=(300,))
    assert warned.state == "collapsed" and warned.healthy == [200]
    guard = guarded(tmp_path, "rollback", steps=(200, 300), kept=warned.to_json())
    with pytest.raises(RollBack) as back:
        follow(guard, 300, 305, DEAD)
    assert back.value.event["to_step"] == 200


def test_a_checkpoint_soon_after_an_alarm_is_not_healthy(tmp_path):
    """A shock that is over in ten steps may have spoilt the game."""
    guard = guarded(tmp_path, "rollback", steps=(100, 240, 360))
    follow(guard, 0, 200, HEALTHY, saves=(100,))
    follow(guard, 200, 201, HEALTHY | {"g_loss": 10.0})
    follow(guard, 201, 300, HEALTHY, saves=(240,))
    assert states(tmp_path) == [(205, "warning"), (210, "healthy")]
    assert guard.healthy == [100]
    follow(guard, 300, 360, HEALTHY, saves=(360,))
    assert guard.healthy == [100, 360]


def test_process_0_decides_for_all(tmp_path, monkeypatch):
    """One that has seen nothing goes back too, and to the same step."""
    alarm = guard_lib.Alarm("gap", "collapsed", 9.0, 5.0, "D(real) - D(fake) is 9 (was 1)")
    told = [[dataclasses.asdict(alarm)], 150]
    guard = guarded(tmp_path, "rollback", steps=(100, 150))
    follow(guard, 0, 20, HEALTHY, saves=(10,))
    monkeypatch.setattr(guard_lib.processes, "from_main", lambda own: told.pop(0))
    with pytest.raises(RollBack) as back:
        guard.judge(20)
    assert back.value.event["to_step"] == 150 and told == []


def test_a_first_look_that_is_bad_leads_to_the_start_of_this_part(tmp_path):
    """A run that goes on from step 400 without a past is not trained from scratch."""
    guard = guarded(tmp_path, "rollback", steps=(400,), start=400, kept={"healthy": [400]})
    guard.take(450, {"diversity": 0.001})
    with pytest.raises(RollBack) as back:
        guard.judge(450)
    assert back.value.event["to_step"] == 400


def test_advice_costs_no_checkpoint(tmp_path):
    """A D that knows its images by heart is warned of, and its checkpoints count as healthy."""
    guard = guarded(tmp_path, "rollback", steps=(100, 200))
    for step in range(10, 210, 10):
        guard.take(step, {"held_out": 0.6})
        guard.judge(step)
        if step % 100 == 0:
            guard.saved(step)
    assert guard.state == "warning" and guard.healthy == [100, 200]
    assert states(tmp_path) == [(20, "warning")]


def test_what_was_trained_without_a_guard_is_taken_for_healthy(tmp_path):
    config = runs.tiny_config()
    for kept, healthy in (({}, [40]), ({"guard": {"healthy": [20]}}, [20])):
        guard = guard_lib.build(config, tmp_path, [], kept, None, 40)
        assert guard.healthy == healthy
    assert guard_lib.build(config, tmp_path, [], {}, None, 0).healthy == []
    config.guard.action = "off"
    assert guard_lib.build(config, tmp_path, [], {}, None, 40) is None


def test_another_loss_has_another_scale(tmp_path):
    guard = guarded(tmp_path, "warn")
    follow(guard, 0, 200, HEALTHY)
    large = {name: 50 * value for name, value in HEALTHY.items()}
    saved = json.loads(json.dumps(runs.tiny_config().to_dict()))
    saved.pop("augment")  # as a run of an earlier version
    for changed, overrides, state in (
        ({"loss": "wasserstein"}, (), "healthy"),
        ({}, ("--config.augment.policy=diffaugment",), "healthy"),
        ({"seed": 9}, (), "collapsed"),
    ):
        kept = {"guard": guard.to_json(), "config": saved | changed}
        again = guard_lib.build(runs.tiny_config(*overrides), tmp_path, [], kept, None, 200)
        follow(again, 200, 220, large)
        assert again.state == state
