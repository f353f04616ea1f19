"""launch/bench_gpu.sh: the search for a batch size and the file, with attempts that are made up."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests import runs

LAUNCH = runs.ROOT / "launch"


@pytest.fixture(scope="module")
def script():
    """launch/bench_gpu.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_gpu", LAUNCH / "bench_gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("room", "largest", "sizes"),
    [
        (300, 2048, [64, 128, 256, 512, 384]),  # doubled, then half way
        (400, 2048, [64, 128, 256, 512, 384]),
        (20, 2048, [64, 32, 16, 24]),  # halved
        (4096, 256, [64, 128, 256]),
        (0, 2048, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_the_largest_batch_that_fits_is_found(script, room, largest, sizes):
    def run(batch):
        return {"images_per_second": batch} if batch <= room else {"out_of_memory": True}

    tried = script.search(run, 64, largest)
    assert [row["batch_size"] for row in tried] == sizes
    best = script.fastest(tried)
    fitting = [n for n in sizes if n <= room]
    assert best == (
        {"batch_size": max(fitting), "images_per_second": max(fitting)} if fitting else None
    )


def test_another_failure_ends_the_search(script):
    assert script.search(lambda n: {"error": "broken"}, 64, 512) == [
        {"batch_size": 64, "error": "broken"}
    ]

    def breaks_at_128(batch):
        return {"images_per_second": 1.0} if batch < 128 else {"error": "x"}

    assert [row["batch_size"] for row in script.search(breaks_at_128, 64, 512)] == [64, 128]


def test_an_attempt_says_what_happened(script):
    def of(code: str, timeout: float = 60.0) -> dict:
        return script.attempt([sys.executable, "-c", code], timeout)

    done = of("print('talk'); print('{\"images_per_second\": 2}')")
    assert done["images_per_second"] == 2 and done["process_seconds"] >= 0
    full = "import sys; print('RESOURCE_EXHAUSTED: Out of memory', file=sys.stderr); sys.exit(1)"
    assert of(full) == {"out_of_memory": True}
    assert of("raise ValueError('odd')") == {"error": "ValueError: odd"}
    assert of("import time; time.sleep(9)", 0.2) == {"error": "took longer than 0.2 s"}


PROFILE = {
    "layers": [
        {
            "part": "d_update",
            "layer": "conv1",
            "direction": "forward",
            "kind": "dot",
            "seconds": 0.2,
        }
    ],
    "profiled_step_seconds": 0.2,
    "busy_cores": 1.0,
}


def arguments(**given):
    """A command line; 99 seconds an attempt and no end of all by default."""
    defaults = {"tiny": False, "timeout": 99.0, "peer": None, "batches": [], "limit": None}
    return argparse.Namespace(**({"resolutions": [128]} | defaults | given))


class Machine:
    """Attempts of a machine that holds 40 images of ours and 20 of the peer."""

    def __init__(self):
        self.commands = []

    def __call__(self, command, timeout, **environment):
        self.commands.append((command[1:], environment))
        line = " ".join(command)
        if "matrix_peak" in line:
            return {"flops_per_second": 1e6, "device": "card"}
        if "inspect" in line:
            return {"flops_per_sample_step_unfused": 100.0}
        batch = int(line.split("batch_size=" if "batch_size" in line else "--batch=")[1].split()[0])
        if batch > (20 if "bench_peer" in line else 40):
            return {"out_of_memory": True}
        speed = 3.0 * batch if "bench_peer" in line else 10.0 * batch
        speed *= 1.5 if "--compile" in line else 1
        row = {"images_per_second": speed, "step_seconds": 0.2}
        return row | (PROFILE if "--layers" in line else {})


def test_everything_is_measured_once_and_put_side_by_side(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    out, machine = tmp_path / "out.json", Machine()
    args = arguments(out=out, peer=tmp_path, resolutions=[256])
    assert script.Bench(args, machine).run()
    result = json.loads(out.read_text())
    assert [row["batch_size"] for row in result["biggan256"]["ours"]["tried"]] == [32, 64, 48]
    summary = result["biggan256"]["summary"]
    assert summary["ours"]["batch_size"] == 32
    assert summary["peer"] == {
        "batch_size": 16, "images_per_second": 72.0, "step_seconds": 0.2, "setting": "compile"
    }  # fmt: skip
    assert summary["ratio"] == 320 / 72
    assert summary["share_of_matrix_peak"] == 100.0 * 32 / 0.2 / 1e6
    profiled = [env for command, env in machine.commands if "--layers" in command]
    assert profiled == [{"XLA_FLAGS": "--mine --xla_gpu_enable_command_buffer="}]
    assert result["biggan256"]["ours"]["profile"]["layers"]
    said = capsys.readouterr().err
    assert "ratio 4.44" in said and "conv1" in said
    again = Machine()
    assert script.Bench(args, again).run() and again.commands == []  # all of it is in the file


def test_sizes_in_place_of_the_search(script, tmp_path):
    """Each is profiled as it is timed, and the peer's fastest setting comes first."""
    machine = Machine()
    args = arguments(out=tmp_path / "o.json", peer=tmp_path, batches=[32, 16])
    assert script.Bench(args, machine).run()
    commands = [" ".join(command) for command, _ in machine.commands]
    ours = [line for line in commands if "biggan_jax bench" in line]
    assert len(ours) == 2 and all("--layers" in line for line in ours)
    peer = [line for line in commands if "bench_peer" in line]
    assert len(peer) == 8 and "--batch=32" in peer[0] and "--compile --channels-last" in peer[0]
    result = json.loads(args.out.read_text())["biggan128"]
    assert result["summary"]["ours"]["batch_size"] == 32 and result["ours"]["profile"]["layers"]
    assert result["summary"]["peer"]["images_per_second"] == 72.0


def test_what_there_was_no_time_for_the_next_run_measures(script, tmp_path):
    out, machine = tmp_path / "o.json", Machine()
    limits = []

    def slow(command, timeout, **environment):
        limits.append(timeout)
        return {"error": f"took longer than {timeout:g} s"}

    assert not script.Bench(arguments(out=out, batches=[32], limit=70.0), slow).run()
    assert limits and max(limits) <= 70.0
    assert not script.Bench(arguments(out=out, batches=[32], limit=1.0), machine).run()
    assert machine.commands == []
    assert script.Bench(arguments(out=out, batches=[32]), machine).run()


def test_what_could_not_be_measured_is_no_success(script, tmp_path):
    args = arguments(out=tmp_path / "o.json", tiny=True)
    assert not script.Bench(args, lambda *_, **__: {"error": "no GPU"}).run()
    result = json.loads(args.out.read_text())
    assert result["biggan128"]["ours"]["tried"] == [{"batch_size": 8, "error": "no GPU"}]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "usage: launch/bench_gpu.sh OUT.json"),
        (["out.json", "--peer", "/nowhere"], "give a checkout of BigGAN-PyTorch"),
        pytest.param(
            ["out.json", "--resolutions", "64"], "take 128, 256 or both", marks=pytest.mark.full
        ),
    ],
)
def test_bad_usage(argv, words, tmp_path):
    done = subprocess.run(
        [LAUNCH / "bench_gpu.sh", *argv], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 2 and words in done.stderr and not list(tmp_path.iterdir())


def test_a_python_without_jax_is_named(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'jax'\" >&2\nexit 1\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        [LAUNCH / "bench_gpu.sh", "out.json"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHON": str(python)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "No module named 'jax'; set PYTHON to one that has jax" in done.stderr


@pytest.mark.full
def test_all_of_it_runs_on_a_cpu(tmp_path):
    """The tiny model: everything but the peer, which needs PyTorch and a checkout."""
    out = tmp_path / "out.json"
    subprocess.run(
        [LAUNCH / "bench_gpu.sh", out, "--tiny"], check=True,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert result["matrix_peak"]["flops_per_second"] > 1e8
    summary = result["biggan128"]["summary"]
    assert summary["ours"]["images_per_second"] > 0 and 0 < summary["share_of_matrix_peak"] < 100
    assert sum(r["seconds"] for r in result["biggan128"]["ours"]["profile"]["layers"]) > 0
