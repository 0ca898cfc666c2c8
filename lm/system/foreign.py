"""The one place where files that somebody else made are opened: plain ones, of limited size.

    text = foreign.read_text(path, limit=1 << 20)
    with foreign.open_plain(path, links=True) as file: ...

A pipe would be waited for without end, a device read without end, and a link of a stranger could
lead anywhere. `links` is for files that the user named: there a link to a plain file is followed,
as Hugging Face's cache is made of them. Everything that is wrong is a DamagedError of one line, but
for a PointerError where the file itself has yet to be fetched.
"""

import io
import os
import re
import shlex
import stat
from pathlib import Path

from lm.system.errors import DamagedError, PointerError

MAX_TEXT = 1 << 30  # bytes of a text that is read at once
MAX_LINES = 1 << 28  # of a metrics.jsonl that a report reads: a million points, in 2 GB of memory
POINTER_BYTES = 1024  # more than a pointer has
# How that begins which stands in place of a file, what made it, and what fetches the file.
POINTERS = (
    (rb"version https://(git-lfs|hawser)\.github\.com/", "Git LFS", "git -C {folder} lfs pull"),
    (rb"/annex/objects/\w+(-[a-zA-Z]\d+)*--", "git-annex", "git -C {folder} annex get ."),
)


def open_plain(path: Path, limit: int | None = None, links: bool = False) -> io.BufferedReader:
    """The plain file at `path`, of at most `limit` bytes, open to read its bytes."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # or a pipe that comes meanwhile would be waited for
    if not links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        _check(path, os.stat(path, follow_symlinks=links), limit)
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        status = os.fstat(file.fileno())
        _check(path, status, limit)  # once more, as another may stand there now
        if status.st_size <= POINTER_BYTES:
            _refuse_pointer(path, file.read(POINTER_BYTES))
            file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def check(path: Path, links: bool = False) -> None:
    """Raise DamagedError unless this is a plain file: for what a library opens by its name."""
    open_plain(path, links=links).close()


def read_bytes(path: Path, limit: int = MAX_TEXT, links: bool = False) -> bytes:
    """The content of a plain file; DamagedError if there is none, or a larger one."""
    with open_plain(path, limit, links) as file:
        try:
            size = min(os.fstat(file.fileno()).st_size, limit)
            return file.read(size)  # and not what it grows by meanwhile
        except OSError as error:
            raise _unreadable(path, error) from None


def read_text(
    path: Path, limit: int = MAX_TEXT, errors: str = "strict", links: bool = False
) -> str:
    """The text of a plain file; DamagedError if there is none, a larger one, or no UTF-8.

    Line ends of other systems become newlines, and a byte order mark is dropped.
    """
    try:
        text = read_bytes(path, limit, links).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 at byte {error.start:,}") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _check(path: Path, status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is not a plain file")
    if limit is not None and status.st_size > limit:
        raise _too_large(path, status.st_size, limit)


def _refuse_pointer(path: Path, start: bytes) -> None:
    for begins, name, command in POINTERS:
        if re.match(begins, start) and b"\0" not in start:  # numbers may begin with any bytes
            fetch = command.format(folder=shlex.quote(str(path.parent)))
            raise PointerError(f"{path} is a pointer of {name}, not the file itself: {fetch}")


def _too_large(path: Path, size: int, limit: int) -> DamagedError:
    return DamagedError(f"{path} has {size:,} bytes, and {limit:,} are allowed")


def _unreadable(path: Path, error: OSError | ValueError) -> DamagedError:
    if isinstance(error, DamagedError):
        return error
    reason = getattr(error, "strerror", None) or str(error)
    return DamagedError(f"{path} cannot be read: {reason}")
