"""Python's collector: rarer in the process of a command, untouched in a program's own."""

import gc
import sys

import pytest

from biggan_jax import cli
from biggan_jax.cli import garbage


@pytest.fixture(autouse=True)
def python_default():
    """Python's own thresholds before the test, those of the session after it."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_a_command_collects_rarely(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["biggan", "configs"])
    assert cli.main() == 0
    assert "digits" in capsys.readouterr().out
    assert gc.get_threshold() == (50_000, 20, 50) and gc.isenabled()


def test_a_program_that_runs_a_command_keeps_its_own(capsys):
    assert cli.main(["configs"]) == 0
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize(
    ("given", "then"),
    [((0, 10, 10), (0, 10, 10)), ((100_000, 10, 99), (100_000, 20, 99))],
)
def test_thresholds_are_only_raised(given, then):
    gc.set_threshold(*given)
    garbage.collect_rarely()
    assert gc.get_threshold() == then
