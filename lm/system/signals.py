"""Signals: SIGTERM, SIGINT and the end of its terminal stop a run, SIGUSR1 saves it.

    with signals.installed():               # the handlers of before come back at the end
        prepare()                           # here a signal stops at once, by raising Stopped
        with signals.deferred():            # here it waits
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
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal is gone; not on Windows either

ECHO = 0.5  # seconds in which a launcher of processes repeats a signal that they have already

several_processes = False  # whether this is one of several, which stop at the same step
_stop_signal = 0  # the first signal that asked to stop; 0: none
_stop_time = 0.0  # when it came
_is_deferred = False
_save_requested = False  # whether SIGUSR1 came to this process
_save_agreed = False  # whether it came to any of the processes


class Stopped(SystemExit):
    """Ends the process with 128 and the signal's number.

    That is 130 for SIGINT, 143 for SIGTERM and 129 for SIGHUP.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.name = signal.Signals(number).name
        self.on_all_ranks = False  # whether all processes of the run stop here

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:  # from process to process
        return Stopped, (self.number,)


def end_on_ctrl_c() -> None:
    """Let Ctrl-C end the process at once, without a traceback: it is still loading what it needs.

    The first call of each command; a handler that somebody else has set stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Take the signals over; only the main thread can, elsewhere nothing changes."""
    global _stop_signal, _save_requested, _save_agreed
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_nested = signal.getsignal(STOP[0]) is _handle
    before = {}
    for number in (*STOP, SAVE, HANGUP):
        # nohup: the run is to outlive its terminal; & in a script: Ctrl-C is for the script alone.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not is_nested:
            _stop_signal = 0
            _save_requested = False
            _save_agreed = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait for the next `poll`, at the latest for the end of this block."""
    global _is_deferred
    before = _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = before
    if not _is_deferred:
        poll()


def poll(agree: Callable[[int, int], list[float]] | None = None) -> None:
    """Raise Stopped if a signal asked for it.

    `agree` makes one answer of those of all processes, the largest of each number. Where there
    are several processes, nothing happens without it.
    """
    global _save_requested, _save_agreed
    if agree is None:
        if _stop_signal and not several_processes:
            raise Stopped(_stop_signal)
        return
    requested_here = _save_requested
    _save_requested = False
    number, save = agree(_stop_signal, requested_here)
    if save:
        _save_agreed = True
    if number:
        stop = Stopped(int(number))
        stop.on_all_ranks = True
        raise stop


def save_requested() -> bool:
    """Whether SIGUSR1 came before a `poll` since the last call of this function."""
    global _save_agreed
    answer = _save_agreed
    _save_agreed = False
    return answer


def _handle(number: int, _: object) -> None:
    global _stop_signal, _stop_time, _save_requested
    if number == SAVE:
        _save_requested = True
        return
    if not _stop_signal:
        _stop_signal = number
        _stop_time = time.monotonic()
        if not _is_deferred:
            raise Stopped(number)
        return
    is_echo = several_processes and time.monotonic() - _stop_time < ECHO
    if number == HANGUP or is_echo:  # when a terminal is closed, its shell sends a signal too
        return
    # The second one: no clean-up may hold it up.
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    os._exit(128 + number)
