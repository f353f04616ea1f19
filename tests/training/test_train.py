"""The training loop: what a run leaves, and what a kill, a signal or a NaN does to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from biggan_jax.evaluation import evaluator
from biggan_jax.sampling import load
from biggan_jax.storage import checkpoint
from biggan_jax.training import loop as train_lib
from biggan_jax.training import setup
from biggan_jax.training.progress import TrainLog
from tests import runs


def drop_checkpoint(workdir, number):
    (workdir / "checkpoints" / str(number)).rename(workdir / f"dropped-{number}")


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def test_what_a_run_leaves(trained):
    assert steps(trained) == [2, 4]
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["images_seen"] for line in lines] == [16, 32, 48, 64]
    expected = {"d_loss", "g_loss", "d_real", "d_fake", "d_grad_norm", "g_grad_norm"}
    assert expected <= lines[-1].keys() and lines[-1]["images_per_second"] > 0
    assert "images_per_second" not in lines[0]  # its time would be that of compilation
    # 16 pixels are enlarged three times, 2 pixels of padding around each image.
    with Image.open(trained / "samples" / "step_00000004.png") as grid:
        # The names of the classes stand at the left.
        assert 510 < grid.width < 540 and grid.height == 10 * 50 + 2 and grid.mode == "L"
    with Image.open(trained / "samples" / "real.png") as grid:
        assert 510 < grid.width < 570 and grid.height == 2 * 50 + 2  # a batch of 16
    assert len(list((trained / "samples").iterdir())) == 2
    state, number = runs.load_state(trained)
    assert number == 4 and state.step == 4


def test_resume_equals_a_straight_run(run_copy, trained, capsys):
    """From step 2 of 4; what the metrics say of later steps is written anew."""
    drop_checkpoint(run_copy, 4)
    (run_copy / "samples" / "step_00000004.png").unlink()
    with open(run_copy / "metrics.jsonl", "a") as f:
        f.write('{"step": 2, "images_seen": 32}\n{"step": 3, "imag')  # back, and torn by a kill
    assert runs.train(run_copy) == 0
    assert re.search(r"resuming .*/run after step 2 of 4", capsys.readouterr().err)
    runs.assert_same_state(run_copy, trained, 4)
    lines = runs.metric_lines(run_copy)
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4]
    assert lines[:2] + lines[3:] == runs.metric_lines(trained)
    picture = "samples/step_00000004.png"
    assert (run_copy / picture).read_bytes() == (trained / picture).read_bytes()


def test_a_finished_run_stays_as_it_is(run_copy, trained, capsys):
    """With fewer steps than it has had it did not finish as asked, and says what it has."""
    assert runs.train(run_copy, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["step"] == 4
    assert "after step 4 of 4" in captured.err
    assert runs.train(run_copy, "--config.num_steps=1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "has finished 4 steps already, and num_steps is 1: set --config.num_steps to more" in line
    )
    assert steps(run_copy) == [2, 4]
    assert runs.metric_lines(run_copy) == runs.metric_lines(trained)


@pytest.mark.full
def test_killed_at_any_moment(tmp_path, cache_dir):
    """SIGKILL; the resumed run has the bits of a run that was never killed."""
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    every = ("--config.checkpoint_every_steps=2", "--config.num_steps=100000")
    command = [
        sys.executable,
        "-m",
        "biggan_jax",
        "train",
        f"--workdir={killed}",
        *runs.TINY,
        *every,
    ]
    process = subprocess.Popen(
        command, env=runs.environment(cache_dir), cwd=runs.ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        while not steps(killed) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(int.from_bytes(os.urandom(1)) / 256 * 0.5)
        assert process.poll() is None, process.stderr.read()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    end = steps(killed)[-1] + 3
    for workdir in (killed, straight):
        assert runs.train(workdir, f"--config.num_steps={end}") == 0
    runs.assert_same_state(killed, straight, end)
    assert runs.metric_lines(killed) == runs.metric_lines(straight)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGHUP, 75, marks=pytest.mark.full),  # answered as SIGTERM is
    ],
)
def test_signals_stop_after_saving(tmp_path, trained, monkeypatch, capfd, number, code):
    workdir = tmp_path / "run"
    next_batch, calls = setup.next_batch, []

    def signalled(*args):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(number)
        return next_batch(*args)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(setup, "next_batch", signalled)
        assert runs.train(workdir, "--json") == code
    captured = capfd.readouterr()
    assert json.loads(captured.out)["finished"] is False
    assert "stopped after step 3; the same command continues" in captured.err
    assert (setup.STOPPING in captured.err) == (number == signal.SIGINT)
    assert steps(workdir) == [2, 3] and len(calls) == 3
    assert signal.getsignal(number) is before
    assert runs.train(workdir) == 0
    runs.assert_same_state(workdir, trained, 4)
    assert runs.metric_lines(workdir) == runs.metric_lines(trained)


def test_sigterm_before_the_first_step(tmp_path):
    """There is nothing to save; and no library can swallow it."""
    lines = [
        "import signal",
        "from biggan_jax import cli, data",
        "def open_source(*_, **__):",
        "    try:",
        "        signal.raise_signal(signal.SIGTERM)",
        "    except BaseException:",
        "        pass",
        "data.open_source = open_source",
        f"cli.main({['train', f'--workdir={tmp_path}', *runs.TINY]})",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=runs.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 75 and done.stdout == ""
    assert done.stderr == "biggan: terminated; the same command continues\n"


@pytest.mark.full
@pytest.mark.parametrize("after", [0.3, 1.0, 2.0, 4.0])
def test_two_ctrl_c_in_a_real_compilation(tmp_path, after):
    """No cache: the step compiles for seconds. It never crashes, and the lock is given back."""
    command = [sys.executable, "-m", "biggan_jax", "train", f"--workdir={tmp_path}/run", *runs.TINY]
    command += ["--config.model.ch=16"]
    process = subprocess.Popen(command, cwd=runs.ROOT, stderr=subprocess.PIPE, text=True)
    while "images per class" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "interrupted" in text and "Traceback" not in text, text
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.parametrize(
    ("bad", "saved"),
    [pytest.param(bad, saved, marks=pytest.mark.full) for bad, saved in ((2, []), (4, [2]))]
    + [(3, [2])],
)
def test_nan_stops_and_is_never_saved(tmp_path, monkeypatch, capsys, bad, saved):
    read = TrainLog.read

    def poisoned(log, pending):
        if pending is not None and pending[0] == bad:
            pending = bad, pending[1] | {"g_loss": jnp.nan}
        read(log, pending)

    monkeypatch.setattr(TrainLog, "read", poisoned)
    assert runs.train(tmp_path / "run") == 1
    captured = capsys.readouterr()
    assert re.search(f"biggan: g_loss is nan at step {bad}", captured.err.splitlines()[-1])
    assert "Traceback" not in captured.err
    assert steps(tmp_path / "run") == saved  # and the save of step 2 was not cut short
    assert [line["step"] for line in runs.metric_lines(tmp_path / "run")] == [*range(1, bad)]


@pytest.mark.full
def test_an_average_that_never_begins(run_copy, capsys):
    """Said at the start, and with every score of it; not of the raw weights, nor later."""
    told = r"the average stays a copy of the raw weights: num_steps is 4, below ema.start_step, 9"
    overrides = ("--config.ema.start_step=9",)
    config = json.loads((run_copy / "config.json").read_text())
    config["ema"]["start_step"] = 9
    (run_copy / "config.json").write_text(json.dumps(config))
    assert runs.train(run_copy, *overrides) == 0
    assert re.search(told, capsys.readouterr().err)
    protocols = []
    for start, weights in ((9, "ema"), (4, "ema"), (9, "raw")):
        generator = load.load_generator(run_copy, ema=weights == "ema")
        generator.config.ema.start_step = start
        side = types.SimpleNamespace(statistics=types.SimpleNamespace(protocol={}), features=None)
        fake = types.SimpleNamespace(
            reference=side, extractor=None, num_samples=9, keep=9, seed=0, _kept=9,
            classes=types.SimpleNamespace(how=None), _by_class=lambda generator: False,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluator, "extractor_fields", lambda extractor: {})
            protocol = evaluator.Evaluator.protocol(fake, generator, weights=weights)
        protocols.append(protocol)
    assert [p.get("average") for p in protocols] == [
        "a copy of the raw weights before step 9", None, None
    ]  # fmt: skip
    assert protocols[0]["fingerprint"] == protocols[1]["fingerprint"]  # as before
    assert runs.train(run_copy, *overrides, "--config.num_steps=9") == 0
    assert "the average stays" not in capsys.readouterr().err


@pytest.mark.full
def test_unconditional(tmp_path):
    workdir = tmp_path / "run"
    overrides = ("--config.model.num_classes=1", "--config.model.g_attention=()")
    assert runs.train(workdir, "--config.num_steps=1", *overrides) == 0
    state, _ = runs.load_state(workdir)
    assert "shared" not in state.generator.params and "embed" not in state.discriminator.params
    with Image.open(workdir / "samples" / "step_00000001.png") as grid:
        assert grid.size == (502, 502)


@pytest.mark.full
def test_folder_with_a_bad_file(tmp_path, capsys):
    """`skip` trains and counts; num_classes comes from the data and is written down."""
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = tmp_path / "images" / f"class-{label}"
        folder.mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (20, 20), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "images" / "class-3" / "1.png").write_text("no picture")
    config = runs.tiny_config(
        f"--config.data.source=folder:{tmp_path}/images/", "--config.num_steps=2"
    )
    config.model.num_classes = None
    config.data.on_bad_record = "skip"
    result = train_lib.train(config, tmp_path / "run")
    assert result["step"] == 2 and result["exit_code"] == 0
    assert "data: 1 bad records were replaced" in capsys.readouterr().err
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["model"]["num_classes"] == 10
