"""Signals are taken over and given back; the tests of whole runs are in test_faults.py."""

import os
import signal

import pytest

from lm.system import signals

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_before():
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_handlers_of_before_come_back_and_nohup_stays():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in ALL]
    with signals.installed():
        inside = [signal.getsignal(number) for number in ALL]
        assert [a == b for a, b in zip(inside, before, strict=True)] == [False] * 3 + [True]
    assert [signal.getsignal(number) for number in ALL] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_waits_where_it_is_deferred_and_stops_elsewhere(number):
    with signals.installed():
        with pytest.raises(signals.Stopped) as caught, signals.deferred():
            os.kill(os.getpid(), number)  # raises at the end of the block at the latest
        assert caught.value.code == 128 + number
        with pytest.raises(signals.Stopped), signals.deferred():
            signals.poll()  # the request to stop stands until the handlers are gone
        if number == signal.SIGHUP:
            os.kill(os.getpid(), number)  # the kernel sends one and the shell another
    with pytest.raises(signals.Stopped), signals.installed():
        os.kill(os.getpid(), number)
