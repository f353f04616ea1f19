"""Weights that are split over two processes (fsdp): saved, resumed in two and in one."""

import shutil
from pathlib import Path

import pytest

from biggan_jax.parallel import sharding
from tests import runs
from tests.parallel.test_distributed import (
    Processes,
    assert_close,
    sgd,  # noqa: F401
    steps,
    train_here,
)

pytestmark = pytest.mark.full
SPLIT = "--config.mesh=(1,2)"


@pytest.fixture(scope="module")
def two(tmp_path_factory, cache_dir):
    """The workdir of two processes of one device each: four steps, and a checkpoint in between."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    run = Processes(workdir, cache_dir, SPLIT, devices=1)
    assert run.codes() == [0, 0], run.text()
    return workdir


def as_after_two(workdir: Path, copy: Path) -> Path:
    """A copy of the run as it was after its second step."""
    shutil.copytree(workdir, copy)
    assert steps(copy) == [2, 4]
    shutil.rmtree(copy / "checkpoints" / "4")
    return copy


def test_each_process_holds_a_half_of_a_kernel(two):
    """Otherwise the runs below would show nothing."""
    state, _ = runs.load_state(two, 4)
    kernel = state.generator.params["block_0"]["conv1"]["kernel"]
    assert not sharding.over_weights(kernel, sharding.make_mesh((1, 2))).is_fully_replicated


def test_two_processes_resume_bit_for_bit(two, tmp_path, cache_dir):
    workdir = as_after_two(two, tmp_path / "run")
    run = Processes(workdir, cache_dir, SPLIT, devices=1)
    assert run.codes() == [0, 0], run.text()
    assert "after step 2 of 4" in run.text()[0]
    runs.assert_same_state(workdir, two, 4)
    lines = runs.metric_lines(workdir)
    assert lines == runs.metric_lines(two)
    assert [line["step"] for line in lines if "d_loss" in line] == [1, 2, 3, 4]


def test_one_process_resumes_to_rounding(two, tmp_path):
    """Its two devices share the threads of one process, so that products are cut differently."""
    workdir = as_after_two(two, tmp_path / "run")
    assert train_here(workdir, SPLIT) == 0
    assert_close(workdir, two, 4)
