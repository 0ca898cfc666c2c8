"""Where the lines of a run go: to the terminal, and to its train.log."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path


class Console(logging.StreamHandler):
    """Prints to whatever sys.stdout is now, so that a live progress bar can stay below the log.

    conf/config.yaml names it for Hydra's jobs.
    """

    def __init__(self, stream: object = None) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def to_terminal() -> None:
    """Log to the terminal as Hydra's jobs do."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])


@contextlib.contextmanager
def to_file(out: Path) -> Iterator[None]:
    """Log to the run's train.log too."""
    file = logging.FileHandler(out / "train.log", encoding="utf-8", errors="replace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    try:
        yield
    finally:
        root.removeHandler(file)
        file.close()
