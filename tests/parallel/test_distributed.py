"""Runs of several real processes: the same as one process, killed, signalled, resumed elsewhere.

SGD stands in for Adam (see `sgd_train`), so that rounding stays rounding.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from biggan_jax.storage import checkpoint, guard_log
from biggan_jax.training import optimizers
from tests import dying, runs, sgd_train
from tests.conftest import FULL

SETTINGS = (
    *runs.TINY,
    "--config.mesh=(-1,1)",
    "--config.model.g_attention=()",
    "--config.model.d_attention=()",
    "--config.sample_every_steps=100000",
)
HEARTBEAT = 5  # seconds
ENDLESS = "--config.num_steps=100000"


class Processes:
    """A run of two processes of some devices each; `dies` says where one of them is killed."""

    def __init__(
        self,
        workdir: Path,
        cache: Path,
        *overrides: str,
        own: dict | None = None,
        devices: int = 4,
        dies: dict[int, str] | None = None,
    ):
        self.workdir = workdir
        self.outputs = [workdir.with_name(f"{workdir.name}-{i}.txt") for i in range(2)]
        flags = os.environ["XLA_FLAGS"].replace("count=8", f"count={devices}")
        environment = runs.environment(cache) | {
            "XLA_FLAGS": flags,
            # The modules of a data set are large: each process would compile them anew.
            "PYTHONPYCACHEPREFIX": str(cache.with_name(f"{cache.name}-modules")),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        port = runs.free_port()
        self.processes = []
        for i, output in enumerate(self.outputs):
            where = (f"--coordinator=localhost:{port}", "--num-processes=2", f"--process-id={i}")
            command = (sys.executable, "-m", "tests.sgd_train", f"--workdir={workdir}", *SETTINGS)
            more = (*overrides, *(own or {}).get(i, ()))
            with open(output, "w") as file:
                self.processes.append(
                    subprocess.Popen(
                        (*command, *more, *where, f"--heartbeat-timeout={HEARTBEAT}"),
                        env=environment | {dying.PLACE: (dies or {}).get(i, "")},
                        cwd=runs.ROOT,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def until_it_saves(self) -> None:
        """Waits for a checkpoint that this run has made."""
        before, deadline = steps(self.workdir), time.monotonic() + 300
        while steps(self.workdir) == before:
            alive = all(process.poll() is None for process in self.processes)
            assert alive and time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def codes(self) -> list[int]:
        """Exit codes, once both processes have ended."""
        try:
            return [process.wait(300) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def text(self) -> list[str]:
        return [output.read_text() for output in self.outputs]


@pytest.fixture(scope="module", autouse=True)
def sgd():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "adam", sgd_train.adam)
        yield


def steps(workdir: Path) -> list[int]:
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def train_here(workdir: Path, *overrides: str) -> int:
    """The same run in this process, on its 8 devices unless `mesh` says otherwise."""
    return sgd_train.main([f"--workdir={workdir}", *SETTINGS, *overrides])


@pytest.fixture(scope="module")
def killed(tmp_path_factory, cache_dir):
    """The workdir of a run that was killed and stopped; what its ends looked like.

    Returns:
      (workdir, [(seconds the other process lived on, its exit code) of each kill], (exit codes
      after a SIGTERM to one process, output)).
    """
    workdir = tmp_path_factory.mktemp("killed") / "run"
    survivors = []
    for victim in (1, 0, 1) if FULL else ():  # process 0 holds the coordination service
        run = Processes(workdir, cache_dir, ENDLESS)
        run.until_it_saves()
        run.processes[victim].kill()
        start = time.monotonic()
        codes = run.codes()
        survivors.append((time.monotonic() - start, codes[1 - victim]))
    run = Processes(workdir, cache_dir, ENDLESS)
    run.until_it_saves()
    run.processes[1].terminate()
    return workdir, survivors, (run.codes(), run.text())


@pytest.fixture(scope="module")
def straight(killed, tmp_path_factory, cache_dir):
    """The workdir of a run of two processes that nobody disturbed, as long as `killed`."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    run = Processes(workdir, cache_dir, f"--config.num_steps={steps(killed[0])[-1]}")
    assert run.codes() == [0, 0], run.text()
    return workdir


@pytest.mark.full
def test_a_dead_process_ends_the_other(killed):
    for seconds, code in killed[1]:
        assert seconds < HEARTBEAT + 20 and code != 0


@pytest.mark.full
def test_sigterm_to_one_stops_all_at_one_step(killed):
    workdir, _, (codes, texts) = killed
    assert codes == [75, 75], texts
    last = steps(workdir)[-1]
    assert f"stopped after step {last}; the same command continues" in texts[0]
    assert "stopped" not in texts[1]
    assert not any("Traceback" in text for text in texts)


@pytest.mark.full
def test_kills_change_no_bit(killed, straight):
    runs.assert_same_state(killed[0], straight, steps(straight)[-1])
    assert runs.metric_lines(killed[0]) == runs.metric_lines(straight)


@pytest.mark.full
def test_one_process_of_eight_devices_agrees(straight, tmp_path):
    """From scratch, and from a checkpoint of two processes: on 8 devices and on 4."""
    end = steps(straight)[-1]
    middle = max(step for step in steps(straight) if step <= end // 2)
    assert train_here(tmp_path / "whole", f"--config.num_steps={end}") == 0
    assert_close(tmp_path / "whole", straight, end)
    for mesh in ("(8,1)", "(4,1)") if FULL else ("(4,1)",):
        workdir = Path(shutil.copytree(straight, tmp_path / f"resumed-{mesh[1]}"))
        for step in steps(workdir):
            if step > middle:
                shutil.rmtree(workdir / "checkpoints" / str(step))
        assert train_here(workdir, f"--config.num_steps={end}", f"--config.mesh={mesh}") == 0
        assert_close(workdir, straight, end)


def assert_close(workdir: Path, other: Path, number: int) -> None:
    """Losses, and what follows from the gradients: every array of the two runs, to rounding."""
    for ours, theirs in zip(runs.metric_lines(workdir), runs.metric_lines(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    a, b = (runs.load_state(w, number)[0] for w in (workdir, other))
    assert np.array_equal(jax.random.key_data(a.key), jax.random.key_data(b.key))
    for name in ("generator", "discriminator", "ema"):
        ours, theirs = getattr(a, name).variables, getattr(b, name).variables
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
        ):
            np.testing.assert_allclose(
                x, y, rtol=1e-4, atol=1e-5, err_msg=f"{name}{jax.tree_util.keystr(path)}"
            )


@pytest.mark.full
def test_two_processes_fork_as_one(tmp_path, cache_dir):
    plain, new = tmp_path / "plain", tmp_path / "new"
    run = Processes(plain, cache_dir, "--config.num_steps=4")
    assert run.codes() == [0, 0], run.text()
    run = Processes(new, cache_dir, "--config.num_steps=4", f"--fork={plain}@2")
    assert run.codes() == [0, 0], run.text()
    assert f"forked {plain} at step 2: no setting is changed" in run.text()[0]
    assert "forked" not in run.text()[1]
    runs.assert_same_state(new, plain, 4)
    run = Processes(new, cache_dir, "--config.num_steps=4", own={1: (f"--fork={plain}@2",)})
    assert run.codes() == [2, 2], run.text()
    assert "--fork is None in process 0" in run.text()[0]


def test_a_command_that_differs_ends_both(tmp_path, cache_dir):
    """The reason goes through the coordination service, and no process waits for the other."""
    run = Processes(tmp_path / "run", cache_dir, own={1: ("--config.batch_size=8",)})
    assert run.codes() == [2, 2], run.text()
    for text in run.text():
        line = text.splitlines()[-1]
        assert line.startswith("biggan: ")
        assert "config.batch_size is 16 in process 0 and 8 in process 1; start all" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_processes_go_back_as_one(tmp_path, cache_dir):
    """Metrics that are NaN until a rollback has lowered D's rate."""
    diverging = (
        *("--config.guard.action=rollback", "--config.guard.on_rollback.lr_factor=1e-41"),
        *("--config.guard.every_steps=1", "--config.optimizer.d_lr=1e38"),
    )
    run = Processes(tmp_path / "two", cache_dir, *diverging)
    assert run.codes() == [0, 0], run.text()
    assert train_here(tmp_path / "one", *diverging) == 0
    assert_close(tmp_path / "two", tmp_path / "one", 4)
    two, one = (guard_log.read(tmp_path / name)[0] for name in ("two", "one"))
    assert [event["state"] for event in one] == ["collapsed", "rolled_back"]
    assert [(e["step"], e["state"]) for e in one] == [(e["step"], e["state"]) for e in two]
    assert sum("rolled back" in text for text in run.text()) == 1
