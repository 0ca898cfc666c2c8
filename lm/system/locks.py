"""Locks on files. They end with their process, however it dies, so a held one is a proof of life.

with locks.waited(path): ...        # once every other process has let it go
lock = locks.take(path)             # None: another process holds it

Neither a host's name nor a process's number is one: two containers may share both.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lm.system import durable

if TYPE_CHECKING:
    from filelock import BaseFileLock


def new(path: Path) -> "BaseFileLock":
    """A lock on the file `path`, not yet held; to acquire it raises OSError where none work."""
    import filelock  # 0.1 s, which --help need not wait for

    return filelock.FileLock(path, fallback_to_soft=False)


@contextlib.contextmanager
def waited(path: Path) -> Iterator[None]:
    """Wait for the lock on the file `path` and hold it; where locks do not work, all may enter."""
    lock = new(path)
    with contextlib.suppress(OSError):
        durable.make_folder(path.parent)  # as filelock does
        # Where no file can be made filelock tries again without end, as in /proc.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def take(path: Path) -> "BaseFileLock | None":
    """The lock on the file `path`, held from now on; None if a living process holds it.

    Raises OSError where locks do not work.
    """
    from filelock import Timeout

    lock = new(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on the file `path`.

    Raises OSError where locks do not work.
    """
    if not path.exists():
        return False
    lock = take(path)
    if lock is not None:
        lock.release()
    return lock is None


class HeldLock:
    """The lock of a run directory. A process that is started with it as an argument holds it too,
    so that it ends with the last of them."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor  # None: locks do not work here

    def __reduce__(self) -> tuple[Callable[..., "HeldLock"], tuple[object, ...]]:
        if self.descriptor is None or os.name != "posix":
            return HeldLock, (None,)
        from multiprocessing import reduction

        return _inherited_lock, (reduction.DupFd(self.descriptor),)


class _Duplicate(Protocol):
    """What multiprocessing makes of a file descriptor for another process."""

    def detach(self) -> int: ...


def _inherited_lock(descriptor: _Duplicate) -> HeldLock:
    return HeldLock(descriptor.detach())
