"""Requests to stop."""

import signal
import threading

import pytest

from biggan_jax.parallel import signals


def test_the_first_signal_asks_and_the_second_insists():
    before = signal.getsignal(signal.SIGTERM)
    with signals.StopRequest() as stop:
        assert stop.exit_code is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 75
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone():
    """Training runs there too, as in a notebook's or a server's worker."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    def work():
        with signals.exit_on_sigterm(), signals.StopRequest() as stop:
            seen.append(stop.exit_code)
            seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, before]


def test_one_signal_sent_twice_is_one(monkeypatch):
    """`timeout` signals a process and its group; a person who asks again does so later."""
    with signals.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.due(0) and stop.exit_code == 75
        monkeypatch.setattr(signals, "ONE_STOP_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 75)])
def test_several_processes_stop_at_the_step_they_agree_on(interrupted, code):
    """SIGTERM is left to JAX; Ctrl-C goes to JAX as a SIGTERM."""
    handed_on = []
    before = signal.signal(signal.SIGTERM, lambda *_: handed_on.append(1))
    try:
        with signals.StopRequest(agreed=lambda step: step == 3) as stop:
            assert not stop.due(1)
            if interrupted:
                signal.raise_signal(signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGTERM)
            assert handed_on == [1]
            assert not stop.due(2) and stop.exit_code is None
            assert stop.due(3) and stop.exit_code == code
            assert stop.due(4)
    finally:
        signal.signal(signal.SIGTERM, before)
