"""Signals: SIGTERM, SIGINT and the end of its terminal stop a run, SIGUSR1 saves it.

    with signals.handled():                 # the handlers of before come back at the end
        prepare()                           # here a signal stops at once, by raising Stopped
        with signals.held():                # here it waits
            for step in range(steps):
                signals.poll()              # until a moment like this one

A second SIGTERM or SIGINT ends the process then and there.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

STOP = (signal.SIGTERM, signal.SIGINT)
SAVE = getattr(signal, "SIGUSR1", None)  # not on Windows
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal is gone; nor that

ECHO = 0.5  # seconds in which a launcher of processes repeats a signal that they have already

together = False  # one of several processes, which stop at the same step or not at all
_received = 0  # the signal that asks to stop
_since = 0.0  # when it came
_held = False
_save = False  # whether SIGUSR1 came
_save_agreed = False  # whether it came to any of the processes


class Stopped(SystemExit):
    """Ends the process with 128 and the signal's number: 130 for SIGINT, 143 for SIGTERM, 129 for
    SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name
        self.of_all = False  # whether all processes of the run stop here

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:  # from process to process
        return Stopped, (int(self.code) - 128,)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Take the signals over; only the main thread can, elsewhere nothing changes."""
    global _received, _save, _save_agreed
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = signal.getsignal(STOP[0]) is _handle
    taken = {*STOP, SAVE, HANGUP} - {None}
    # nohup: the run is to outlive its terminal; & in a script: Ctrl-C is for the script alone.
    taken -= {number for number in taken if signal.getsignal(number) == signal.SIG_IGN}
    before = {n: signal.signal(n, _handle) for n in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not outer:
            _received, _save, _save_agreed = 0, False, False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal waits for the next `poll`, at the latest for the end of this block."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before
    if not _held:
        poll()


def poll(agree: Callable[[int, int], list[float]] | None = None) -> None:
    """Raise Stopped if a signal asked for it. `agree` makes one answer of those of all processes;
    where there are several, nothing happens without it."""
    global _save, _save_agreed
    if agree is None:
        if _received and not together:
            raise Stopped(_received)
        return
    mine, _save = _save, False
    number, save = map(int, agree(_received, mine))
    _save_agreed = _save_agreed or bool(save)
    if number:
        stop = Stopped(number)
        stop.of_all = True
        raise stop


def save_asked() -> bool:
    """Whether SIGUSR1 came before a `poll` since the last time that this was asked."""
    global _save_agreed
    asked, _save_agreed = _save_agreed, False
    return asked


def _handle(number: int, _: object) -> None:
    global _received, _save, _since
    if number == SAVE:
        _save = True
    elif _received and (number == HANGUP or (together and time.monotonic() - _since < ECHO)):
        pass  # the same again: when a terminal is closed, its shell sends a signal too
    elif _received:  # the second one: no clean-up may hold it up
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        os._exit(128 + number)
    else:
        _received, _since = number, time.monotonic()
        if not _held:
            raise Stopped(number)
