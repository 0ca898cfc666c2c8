"""Where the lines of a run go: to the terminal, and to its train.log."""

import logging
import sys
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


def log_to(out: Path) -> None:
    """Log as Hydra's jobs do: to the terminal and to the run's train.log."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    file = logging.FileHandler(out / "train.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(file)
