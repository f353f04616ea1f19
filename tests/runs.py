"""One tiny training run that many tests look at, and what it takes to look at it.

`conftest` imports the fixtures, so that `trained` runs once in a session.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.config import config_file
from biggan_jax.parallel import sharding
from biggan_jax.storage import checkpoint
from biggan_jax.training import build as build_lib
from biggan_jax.training import state as state_lib
from tests.traced import OF_TRAINED, traced_once

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "configs" / "digits.py")
TINY = (
    f"--config={DIGITS}",
    "--config.batch_size=16",
    "--config.num_steps=4",
    "--config.log_every_steps=1",
    "--config.checkpoint_every_steps=2",
    "--config.sample_every_steps=4",
    "--config.keep_checkpoints=9",
    "--config.mesh=(1,)",
    "--config.tensorboard=False",
    "--config.report=False",
    "--config.model.ch=4",
    "--config.model.dim_z=12",
    "--config.model.shared_dim=8",
    "--config.model.g_attention=(8,)",
)
CACHE = {  # every compilation, however short
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def tiny_config(*overrides: str):
    """The config of TINY, later overrides winning."""
    return config_file.load(DIGITS, [*TINY[1:], *overrides])


def train(workdir: Path, *overrides: str) -> int:
    """`biggan train` of TINY in this process; its exit code."""
    return cli.main(["train", f"--workdir={workdir}", *TINY, *overrides])


def cached_compiles(folder: Path):
    """Keeps compiled programs in a folder of this session alone, where nothing can be stale."""
    return cache_settings(CACHE | {"jax_compilation_cache_dir": str(folder)})


@contextlib.contextmanager
def cache_settings(new: dict):
    """Other settings of JAX's cache of compiled programs, and at the end the ones of before."""
    old = {name: getattr(jax.config, name) for name in new}
    for settings in (new, old):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it reads them once
        if settings is new:
            yield


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """A folder for compiled programs, the same for all processes of a session.

    JAX compiles again what it cannot read, such as an entry that another process is writing.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def programs(cache_dir):
    """No module compiles what this session has compiled before, or leaves GBs to the collector."""
    with cached_compiles(cache_dir), traced_once():
        yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache_dir) -> Path:
    """The workdir of a run of four steps with checkpoints 2 and 4; a test changes a copy only."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    with cached_compiles(cache_dir), traced_once(OF_TRAINED):
        assert train(workdir) == 0
    return workdir


@pytest.fixture
def run_copy(trained, tmp_path) -> Path:
    """A copy of `trained` that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def environment(cache: Path) -> dict[str, str]:
    """The environment of a subprocess that shares this session's compiled programs."""
    return (
        os.environ
        | {name.upper(): str(value) for name, value in CACHE.items()}
        | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    )


def free_port() -> int:
    """A port of this machine where nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def two_processes(program: str) -> list[dict]:
    """What two real processes find, one device each, which run `python -c program PORT NUMBER`.

    The program prints it as JSON behind the word RESULT.
    """
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, port, str(i)],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    return [json.loads(out.partition("RESULT")[2].splitlines()[0]) for out, _ in read_all(started)]


def read_all(started: Sequence[subprocess.Popen], timeout: float = 300) -> list[tuple]:
    """(stdout, stderr) of processes that run together.

    All pipes are read at the same time: a process whose pipe is full waits, and so do the others,
    which wait for it. None outlives an error.
    """
    try:
        with concurrent.futures.ThreadPoolExecutor(len(started)) as pool:
            return list(pool.map(lambda process: process.communicate(timeout=timeout), started))
    finally:
        for process in started:
            process.kill()


def load_state(workdir: Path, number: int | None = None) -> tuple[state_lib.GANState, int]:
    """(state, step) of a checkpoint of a run of one device."""
    config = config_lib.from_saved(json.loads((workdir / "config.json").read_text()))
    mesh = sharding.make_mesh((1,))
    train_step = build_lib.train_step(config, mesh)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    state, _, found = checkpoints.restore(state_lib.abstract(train_step.init, mesh), step=number)
    return state, found


def assert_same_state(workdir: Path, other: Path, number: int) -> None:
    """Every array of the two runs' checkpoints has the same bits."""
    a, b = (load_state(w, number)[0] for w in (workdir, other))
    # Keys as the numbers they hold.
    a, b = (state.replace(key=jax.random.key_data(state.key)) for state in (a, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    differing = [
        jax.tree_util.keystr(path)
        for (path, x), y in pairs
        if x.dtype != y.dtype or not np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True)
    ]
    assert not differing


def metric_lines(workdir: Path) -> list[dict]:
    """The lines of metrics.jsonl without the one value that depends on the machine's mood."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def assert_one_error(captured, *words: str) -> None:
    """stderr is one line of `biggan:` that holds these words (patterns).

    stdout is empty or, of a command with --json, one object with the same line.
    """
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("biggan: ")
    if captured.out:
        result = json.loads(captured.out)
        assert captured.out.count("\n") == 1 and result.keys() == {"error", "exit_code"}
        assert f"biggan: {result['error']}" == lines[0] and result["exit_code"] > 0
    for word in words:
        assert re.search(word, lines[0]), f"{word!r} is not in {lines[0]!r}"
