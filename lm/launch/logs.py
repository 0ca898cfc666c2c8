"""Where the lines of a run go: to the terminal, and to its train.log."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from lm.system import streams
from lm.system.text import printable


class PlainFormatter(logging.Formatter):
    """Leaves no character in a line that could drive the terminal: it may be a stranger's.

    conf/config.yaml names it for Hydra's lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Console(logging.StreamHandler):
    """Prints to whatever sys.stdout is now, so that a live progress bar can stay below the log.

    conf/config.yaml names it for Hydra's jobs.
    """

    def __init__(self, stream: object = None) -> None:
        streams.replace_what_has_no_code()  # Hydra's launchers start processes of their own
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def to_terminal() -> None:
    """Log to the terminal as Hydra's jobs do."""
    console = Console()
    console.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[console])


@contextlib.contextmanager
def to_file(out: Path) -> Iterator[None]:
    """Log to the run's train.log too."""
    file = logging.FileHandler(out / "train.log", encoding="utf-8", errors="replace")
    file.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    try:
        yield
    finally:
        root.removeHandler(file)
        file.close()
