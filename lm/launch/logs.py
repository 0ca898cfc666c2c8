"""Where the lines of a run go: to the terminal, and to its train.log."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from lm.system import streams, terminal
from lm.system.text import printable, printable_line


class PlainFormatter(logging.Formatter):
    """Leaves no character in a line that could drive the terminal: it may be a stranger's.

    conf/config.yaml names it for Hydra's lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Console(logging.StreamHandler):
    """Prints to whatever sys.stdout is now, so that a live progress bar can stay below the log.

    Of an arm of a sweep it prints what went wrong, with the arm's name and where its logs are:
    every error, and each warning the first time, as the next arms mostly repeat it.
    conf/config.yaml names it for Hydra's jobs.
    """

    warned: ClassVar[set[tuple[str, int]]] = set()  # places in the code, of all arms

    def __init__(self, stream: object = None) -> None:
        streams.replace_what_has_no_code()  # Hydra's launchers start processes of their own
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        arm = terminal.arm_in_work()
        if arm is None or self._is_wanted(record):
            super().emit(record)

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return record.levelno > logging.WARNING
        place = (record.pathname, record.lineno)
        is_new = place not in self.warned
        self.warned.add(place)
        return is_new

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        arm = terminal.arm_in_work()
        if arm is None:
            return text
        return printable_line(f"{arm.title}  {' '.join(text.split())} (logs in {arm.folder})")


def to_terminal(instead: bool = False) -> None:
    """Log to the terminal as Hydra's jobs do; `instead` of what the process logs to already."""
    console = Console()
    console.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[console], force=instead)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Print the lines of lm inside, unless the program that called has a log of its own."""
    logger = logging.getLogger("lm")
    level = logger.level
    console = Console()
    console.setFormatter(PlainFormatter("%(message)s"))
    logger.setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logger.addHandler(console)
    try:
        yield
    finally:
        logger.removeHandler(console)
        logger.setLevel(level)


@contextlib.contextmanager
def to_file(out: Path) -> Iterator[logging.Handler]:
    """Log to the run's train.log too."""
    file = logging.FileHandler(out / "train.log", encoding="utf-8", errors="replace")
    file.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(file)
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError):  # of a full disk, which would hide that of the block
            file.close()
        raise
    finally:
        root.removeHandler(file)
        file.close()


@contextlib.contextmanager
def error_in(file: logging.Handler) -> Iterator[None]:
    """Log an error that leaves the block to `file` alone: whoever catches it prints it."""
    try:
        yield
    except Exception as error:
        about = {"levelname": "ERROR", "msg": " ".join(str(error).split()) or repr(error)}
        file.handle(logging.makeLogRecord(about))
        raise
