"""A command that is silent for long says what it does, once, and not where it was quick."""

import threading
import time

import jax.numpy as jnp
import pytest

from biggan_jax.parallel import telling
from biggan_jax.training import progress


def test_what_takes_long_is_said_once(capsys):
    with telling.told_if_slow("measuring", 0.01):
        time.sleep(0.2)
    with telling.told_if_slow("looking", 0.2):
        pass
    with pytest.raises(ValueError), telling.told_if_slow("failing", 0.2):
        raise ValueError
    time.sleep(0.3)
    assert capsys.readouterr().err == "measuring ...\n"


@pytest.mark.parametrize("active", [True, False])
def test_a_run_says_that_it_waits_for_the_compiler(capsys, monkeypatch, active):
    """Not after its first step, and not where it has ended without one."""
    timers = []
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timers.append(timer))
    steps = {"start": 0, "total": 2, "log_every_steps": 9, "images_per_step": 1}

    def log():
        found = progress.TrainLog(None, **steps, active=active, remedy=str)
        found.begin()
        return found

    one, other = log(), log()
    assert len(timers) == 2 * active
    if active:
        assert timers[0].interval == progress.SILENT_SECONDS and not timers[0].finished.is_set()
        timers[0].function(*timers[0].args)
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.endswith("the first step waits for the compiler: a minute or so, longer "
                            "beside other work ...")  # fmt: skip
    one.read((1, {"d_loss": jnp.float32(1.0)}))
    other.close()
    assert all(timer.finished.is_set() for timer in timers)
    one.close()
