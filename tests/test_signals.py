"""Requests to stop."""

import signal
import threading

import pytest

from biggan_jax import signals


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
