"""A real terminal of a given width, and all that is drawn on it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(
    columns: int, action: Callable[[], object], **env: str
) -> tuple[list[str], str, int]:
    """What `action` shows in a process on a terminal so wide: the lines, those that were drawn over
    included; all characters; and its exit code."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm-256color"
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ.update(env)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.__stdout__ = sys.stdout  # pytest has closed it, and it is asked for the width
        action()
        sys.stdout.flush()
        os._exit(0)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # its other end is closed
            break
        if not part:
            break
        seen += part
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    text = seen.decode()
    return drawn(text), text, code


def drawn(text: str) -> list[str]:
    """The lines of what a terminal was sent, those that were drawn over included."""
    plain = CONTROL.sub("", text)
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


@contextlib.contextmanager
def terminal(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """The two ends of a terminal of this size: what stands before it, and what a command has."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield main, side
    finally:
        os.close(main)
        os.close(side)


def read_until(main: int, is_over: Callable[[bytes], object], seconds: float = 120) -> bytes:
    """What a terminal was sent until something is over."""
    seen, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        over = is_over(seen)
        while select.select([main], [], [], 0 if over else 0.05)[0]:
            seen += os.read(main, 1 << 16)
            if not over:
                break
        if over:
            break
    return seen
