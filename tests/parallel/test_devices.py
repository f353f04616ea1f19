"""Which device a command uses, and what it says when there is none or its memory is full."""

import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import cli, errors
from biggan_jax.parallel import devices
from biggan_jax.planning import bench
from biggan_jax.sampling import load
from biggan_jax.training import setup
from tests import runs

LINE = r"^device: cpu, 8 devices, 1 process, [\d.]+ GiB of memory for \d+ cores$"
BYTES = r"out of memory: 1,125,899,906,842,624 bytes \(1,024.0 TiB\) were asked for, in the memory"


def too_large(*args, **kwargs):
    """As XLA says it; numpy's array takes the place of one that the test would have to hold."""
    return jnp.zeros((1 << 20, 1 << 20, 256), jnp.float32) if not args else too_large()


def test_what_is_said_of_a_device(monkeypatch):
    assert re.match(LINE.replace("^device: ", "^"), devices.describe())
    assert devices.describe(jax.devices()[:1]).startswith("cpu, 1 of 8 devices, 1 process, ")
    gpu = types.SimpleNamespace(
        device_kind="NVIDIA H100 80GB HBM3",
        platform="gpu",
        memory_stats=lambda: {"bytes_limit": 75 * 2**30},
    )
    monkeypatch.setattr(jax, "devices", lambda: [gpu] * 16)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu] * 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert devices.describe() == (
        "NVIDIA H100 80GB HBM3 (gpu), 16 devices, 2 processes, 75.0 GiB of memory each"
    )


@pytest.mark.full
def test_commands_say_it_and_the_library_not(trained, tmp_path, capsys):
    told = lambda: re.findall(LINE, capsys.readouterr().err, re.MULTILINE)
    where = r"\([\d.]+ s on cpu, 8 devices, 1 process, [\d.]+ GiB of memory for \d+ cores\)\n$"
    sample = ["sample", f"--from={trained}", f"--out={tmp_path}/a.png", "--per-class=1"]
    assert cli.main(sample) == 0
    captured = capsys.readouterr()
    assert re.search(where, captured.out) and captured.err == ""
    assert cli.main([*sample, "--json"]) == 0
    assert re.search(where, capsys.readouterr().err)
    assert cli.main(["inspect", f"--from={trained}"]) == 0
    load.load_generator(trained)
    devices.tell()
    assert told() == []
    with devices.told_once():
        devices.tell()
        devices.tell()
    assert len(told()) == 1


def test_the_first_line_of_a_training(run_copy, capsys):
    assert runs.train(run_copy) == 0
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("device: cpu, 1 of 8 devices, 1 process, ")
    assert second.startswith("data digits: ")


@pytest.mark.full
def test_memory_that_is_full_in_training(tmp_path, run_copy, monkeypatch, capsys):
    """The settings that the line names are taken, each by itself; on a resumed run too."""
    monkeypatch.setattr(setup, "next_batch", too_large)
    assert runs.train(tmp_path / "new") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"biggan: {BYTES} of cpu, 8 devices", line)
    assert "batch_size is 16, accumulation_steps 1, remat ()" in line
    advice = re.findall("`(.+?)`", line)
    assert advice == [
        "--config.accumulation_steps=2", "--config.batch_size=8", "--config.remat=all"
    ]  # fmt: skip
    monkeypatch.setattr(setup, "next_batch", lambda run: 1 / 0)  # behind all checks
    for override in advice:
        assert runs.train(tmp_path / "new", override) == 1
        assert "division by zero" in capsys.readouterr().err
    monkeypatch.setattr(setup, "next_batch", too_large)
    assert runs.train(run_copy, "--config.num_steps=5") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.findall("`(.+?)`", line) == ["--config.remat=all"]


def test_memory_that_is_full_elsewhere(trained, tmp_path, monkeypatch, capsys):
    """On a device, and on the host as numpy says it."""
    sample = ["sample", f"--from={trained}", f"--out={tmp_path}/a.npz"]
    with monkeypatch.context() as patch:
        patch.setattr(load.LoadedGenerator, "__call__", too_large)
        assert cli.main([*sample, "--json"]) == 1
    captured = capsys.readouterr()
    assert re.search(f"biggan: {BYTES}.*by --per-class", captured.err)
    assert '"exit_code": 1' in captured.out
    with monkeypatch.context() as patch:
        huge = lambda *_, **__: np.zeros(1 << 60, np.uint8)
        patch.setattr(load.LoadedGenerator, "__call__", huge)
        assert cli.main(sample) == 1
    runs.assert_one_error(capsys.readouterr(), r"1,048,576\.0 TiB.*in this host's memory")
    monkeypatch.setattr(bench, "bench", too_large)
    assert cli.main(["bench", *runs.TINY]) == 1
    assert "`--config.accumulation_steps=2`" in capsys.readouterr().err


def test_other_errors_pass(monkeypatch):
    for error in (RuntimeError("a defect"), jax.errors.JaxRuntimeError("INTERNAL: a defect")):
        with pytest.raises(type(error)) as seen, devices.named_errors(lambda: ""):
            raise error
        assert seen.value is error
    full = pytest.raises(errors.OutOfMemoryError, match="out of memory: full, in this host's")
    with full, devices.named_errors(lambda: ""):
        raise MemoryError


def test_a_platform_that_is_not_there(tmp_path, monkeypatch):
    command = [sys.executable, "-m", "biggan_jax", "train", *runs.TINY, f"--workdir={tmp_path}/w"]
    done = subprocess.run(
        command,
        cwd=runs.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("biggan: JAX_PLATFORMS is 'cuda', and JAX has no such device")
    assert "`unset JAX_PLATFORMS`" in line and not (tmp_path / "w").exists()
    # Other names raise another error at the same place.
    text = "Unable to initialize backend 'abacus': unknown. (set JAX_PLATFORMS='' to choose)"
    code = compile(f"raise RuntimeError({text!r})", "/jax/_src/xla_bridge.py", "exec")
    for value, words in (("abacus", "unset"), ("", "see whether another process holds it")):
        monkeypatch.setenv("JAX_PLATFORMS", value)
        refused = pytest.raises(errors.UserError, match=f"'abacus': unknown.*{words}")
        with refused, devices.named_errors(lambda: ""):
            exec(code)
