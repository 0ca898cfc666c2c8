"""The journal of a search: the file that Optuna appends to, begun, locked and mended.

lock = writers_lock(path)          # of Optuna, while it writes
repair_journal(path)               # after a kill or a power cut: the bytes that are whole
"""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lm.sweep.space import load_optuna
from lm.system import files, foreign, locks, store
from lm.system.errors import DamagedError

if TYPE_CHECKING:
    from optuna.storages.journal._file import BaseJournalFileLock

log = logging.getLogger(__name__)
LINE = b'{"op_code":'  # starts each line of Optuna's journals
TORN_BYTES = 1 << 12  # of a new journal that a power cut may leave as zeros


def beside(journal: Path, what: str) -> Path:
    """The path of a lock on the journal, or on a part of it."""
    return journal.with_name(f".{journal.name}.{what}")


def writers_lock(path: Path) -> "BaseJournalFileLock":
    """What keeps two processes from writing to the journal at once, and is free when they die.

    Optuna's own is a file that a killed process leaves, and is taken for dead after 30 s: it is
    for file systems without locks.
    """
    from optuna.storages.journal import JournalFileOpenLock

    lock = locks.new(beside(path, "lock"))
    try:
        lock.acquire()
    except OSError:
        return JournalFileOpenLock(str(beside(path, "open")))
    lock.release()
    return cast("BaseJournalFileLock", lock)  # it has acquire() and release()


class _NoLock:
    """The lock of a journal that no other process can know yet."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def begin_journal(path: Path, name: str) -> None:
    """Make a journal with a study in it, whole or not at all: a first line that a power cut had
    torn could be anybody's file.
    """
    optuna = load_optuna()
    from optuna.storages.journal import JournalFileBackend

    new = files.temporary(path)
    lock = cast("BaseJournalFileLock", _NoLock())
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(new), lock_obj=lock))
    optuna.create_study(study_name=name, storage=storage)
    files.rename(new, path)


def repair_journal(path: Path) -> int:
    """Cut off what is not whole at the end of a journal; return the bytes that stay.

    A kill or a power cut while lines were written would spoil it. Nobody counts on them: what a
    search has been told is synced. Lines that a search did not write are set aside.
    """
    data = _content(path)
    size = _n_whole(path, data)
    rest = data[size:]
    if not rest:
        return size
    if size and b"\n" in rest:
        aside = path.with_name(f"{store.DAMAGED}{path.name}")
        files.atomic_write(aside, rest)
        log.warning(f"{path} goes on without its damaged last lines, which are in {aside}")
    if size:
        os.truncate(path, size)
    return size


def check_journal(path: Path) -> None:
    """Raise DamagedError if a file is there and is no journal; nothing is written."""
    _n_whole(path, _content(path))


def _content(path: Path) -> bytes:
    return foreign.read_bytes(path) if os.path.lexists(path) else b""


def _n_whole(path: Path, data: bytes) -> int:
    """The bytes of a journal up to its last line that is whole.

    Raises DamagedError for a file that is no journal.
    """
    whole = data[: data.rfind(b"\n") + 1]
    torn = data[len(whole) :].rstrip(b"\0")  # zeros are what a power cut may leave
    is_only_zeros = not whole and not torn and len(data) > TORN_BYTES
    is_journal = data.startswith(LINE) or LINE.startswith(whole + torn)
    if is_only_zeros or not is_journal:
        raise DamagedError(f"{path} is not the journal of a search: it starts otherwise")
    while whole and not _is_json(whole[whole[:-1].rfind(b"\n") + 1 :]):
        whole = whole[: whole[:-1].rfind(b"\n") + 1]
    return len(whole)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
