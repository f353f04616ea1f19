"""Runs with ADA: its probability is part of the checkpoint, and starts afresh where it is new."""

import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.storage import checkpoint
from biggan_jax.storage.digest import digests
from biggan_jax.training import heuristics, objectives
from biggan_jax.training import state as state_lib
from tests import runs

ADA = (
    *("--config.augment.policy=ada", "--config.augment.groups=blit,colour"),
    *("--config.augment.target=-0.9", "--config.augment.every_steps=2"),
    "--config.augment.ramp_images=128",
)


def kept(workdir, number):
    """What ADA keeps in a checkpoint."""
    path = workdir / "checkpoints" / str(number)
    arrays = checkpoint.integrity.read_record(path)["arrays"]
    names = {name for name in arrays if name.startswith("objective/")}
    state = runs.load_state(workdir, number)[0].objective
    assert names == {f"objective/{name}" for name in state}
    return jax.device_get(state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Five steps, saved after 2 and 4: in the middle of a window of two updates after the fifth."""
    workdir = tmp_path_factory.mktemp("ada") / "run"
    assert runs.train(workdir, *ADA, "--config.num_steps=5") == 0
    return workdir


@pytest.mark.full
def test_a_resumed_run_ends_as_one_that_was_not_stopped(straight, tmp_path):
    """From a checkpoint in which the probability is neither 0 nor what it is at the end."""
    found = {number: kept(straight, number) for number in (2, 4, 5)}
    p = [found[number][heuristics.P] for number in (2, 4, 5)]
    assert 0 < p[0] < 1 and p[0] != p[1]
    assert found[5][heuristics.IMAGES] == 16 != found[4][heuristics.IMAGES]
    lines = runs.metric_lines(straight)
    by_step = {line["step"]: line for line in lines if "augment/r_t" in line}
    # As it was during the step: after two more updates it moves by 32 of the 128 images.
    assert [by_step[k]["augment/probability"] for k in (1, 2)] == [0, 0]
    assert by_step[3]["augment/probability"] == p[0] == 0.25
    assert all(-1 <= line["augment/r_t"] <= 1 for line in by_step.values())

    killed = shutil.copytree(straight, tmp_path / "killed")
    for number in (4, 5):
        shutil.rmtree(killed / "checkpoints" / str(number))
    assert runs.train(killed, *ADA, "--config.num_steps=5") == 0
    runs.assert_same_state(killed, straight, 5)
    assert runs.metric_lines(killed) == lines


def test_a_term_that_the_saved_config_lacks_starts_afresh():
    """As `--allow-change` and a fork turn one on; what was there goes on."""
    config = runs.tiny_config(*ADA, "--config.augment.probability=0.5")
    restored = {name: jnp.float32(0.125) for name in objectives.of_config(config).initial}
    player = state_lib.Player({}, {}, {}, ())
    state = state_lib.GANState(0, None, player, player, None, restored)
    saved = runs.tiny_config().to_dict()
    new = state_lib.continued(state, 2, saved, config, None).objective
    assert new[heuristics.P] == 0.5 and new[heuristics.SIGNS] == new[heuristics.IMAGES] == 0
    del saved["augment"]  # of an earlier version
    assert state_lib.continued(state, 2, saved, config, None).objective == new
    saved = runs.tiny_config(*ADA).to_dict()
    assert state_lib.continued(state, 2, saved, config, None).objective == restored


@pytest.mark.full
def test_it_is_turned_on_and_off_in_the_middle_of_a_run(run_copy, straight, tmp_path, capsys):
    """With --allow-change, and in a fork; a state that lacks it starts at `augment.probability`."""
    on = (*ADA, "--config.num_steps=5", "--config.augment.probability=0.5")
    assert runs.train(run_copy, *on) == 2
    runs.assert_one_error(capsys.readouterr(), "augment.policy none -> ada", "--allow-change")
    assert runs.train(run_copy, *on, "--allow-change") == 0
    state = kept(run_copy, 5)
    # One update, half a window.
    assert state[heuristics.P] == 0.5 and state[heuristics.IMAGES] == 16
    history = json.loads((run_copy / "config_history.jsonl").read_text().splitlines()[-1])
    assert history["changes"]["augment.policy"] == {"old": "none", "new": "ada"}

    fork = tmp_path / "fork"
    arguments = ["train", f"--fork={straight}@2", f"--workdir={fork}", *runs.TINY]
    assert cli.main([*arguments, *ADA, "--config.num_steps=2"]) == 0
    np.testing.assert_equal(kept(fork, 2), kept(straight, 2))
    assert runs.train(fork, "--config.num_steps=4", "--allow-change") == 0
    assert kept(fork, 4) == {}


LECAM = ("--config.regularizer.lecam=0.3", "--config.regularizer.lecam_start_step=2")
HELD_OUT = ("--config.augment.heuristic=held_out", "--config.data.holdout=0.1")
KILLED_AT = 6  # the step whose line is waited for: between the saves of 4 and 8


@pytest.mark.full
@pytest.mark.parametrize("more", [(), HELD_OUT], ids=["signs", "held_out"])
def test_killed_between_two_saves(more, tmp_path, cache_dir):
    """SIGKILL of `biggan train` with ADA and LeCam: what they keep ends as if there was none."""
    every = ("--config.num_steps=12", "--config.checkpoint_every_steps=4")
    # So that 12 steps reach neither end of the probability's range.
    middle = ("--config.augment.probability=0.5", "--config.augment.ramp_images=512")
    settings = (*runs.TINY, *ADA, *middle, *LECAM, *more, *every)
    straight, killed = tmp_path / "straight", tmp_path / "killed"

    def start(workdir):
        command = [sys.executable, "-m", "biggan_jax", "train", f"--workdir={workdir}", *settings]
        environment = runs.environment(cache_dir)
        errors = subprocess.DEVNULL
        return subprocess.Popen(command, env=environment, cwd=runs.ROOT, stderr=errors)

    def last_step(workdir):
        path = workdir / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    assert start(straight).wait(timeout=600) == 0
    for _ in range(20):  # a step takes milliseconds: a kill may come too late
        shutil.rmtree(killed, ignore_errors=True)
        process = start(killed)
        while process.poll() is None and last_step(killed) < KILLED_AT:
            time.sleep(0.001)
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        saved = checkpoint.Checkpoints(killed / "checkpoints").latest_step()
        if process.returncode and saved == 4 < KILLED_AT <= last_step(killed):
            break
    else:
        pytest.fail("no kill came between the two saves")
    assert start(killed).wait(timeout=600) == 0
    runs.assert_same_state(killed, straight, 12)
    assert digests(runs.load_state(killed, 12)[0]) == digests(runs.load_state(straight, 12)[0])
    assert runs.metric_lines(killed) == runs.metric_lines(straight)
    kept = jax.device_get(runs.load_state(straight, 12)[0].objective)
    assert kept["lecam_seen"] == 1 and 0 < kept[heuristics.P] < 1 and kept[heuristics.P] != 0.5
