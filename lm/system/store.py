"""Files that are whole or absent: content fingerprints, atomic folders, stages built only once.

    seconds = store.build_once(folder, make)     # None: it was there, and its checksums hold

A folder is written under a temporary name, sealed with a manifest of sha256 sums, synced to disk
and renamed. A reader therefore sees all of it or nothing, and `verify` finds every changed byte.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lm.system import failpoint, files, foreign, locks
from lm.system.errors import FULL, DamagedError, LockedError, StorageError

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
DAMAGED = "damaged_"  # begins the name of what was set aside
HOLDER = ".running"  # in a directory of ours, before all else: who writes there, or did last
MARK = "\nthis directory was made by lm\n"  # ends HOLDER, which another program may have too
LOCK = ".lock"  # ends the name of the lock beside a temporary folder


class FileSum(msgspec.Struct):
    """The size and checksum of one file."""

    size: int  # bytes
    sha256: str


class Manifest(msgspec.Struct):
    """manifest.json: every other file of a sealed folder."""

    files: dict[str, FileSum]


@contextlib.contextmanager
def new_folder(final: Path, kind: str = "cache") -> Iterator[Path]:
    """A folder to fill, which becomes `final`, sealed and synced, if no error happens.

    If `final` exists by then, another process was first: its folder stays. `kind` is the first
    half of its failpoints' names.
    """
    with temporary_folder(final) as tmp:
        try:
            yield tmp
        except OSError as error:
            if error.errno in FULL:
                raise files.named(error, final) from None
            raise
        failpoint.hit(f"{kind}.after_files")
        seal(tmp)
        failpoint.hit(f"{kind}.after_manifest")
        with contextlib.suppress(OSError):  # raised only where `final` already exists
            os.rename(tmp, final)
        if not final.is_dir():
            raise OSError(f"could not move {tmp} to {final}")
        failpoint.hit(f"{kind}.after_rename")
        files.sync_folder(final.parent)


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """An empty folder beside `final` to fill and rename; what is left of it at the end is deleted.

    A held lock beside it shows that its process lives: see clear_leftovers.
    """
    files.make_folder(final.parent)
    clear_leftovers(final.parent)
    tmp = files.temporary(final)
    lock = tmp.with_suffix(LOCK)
    with locks.waited(lock):
        try:
            tmp.mkdir()
            yield tmp
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
            with contextlib.suppress(OSError):  # on Windows nobody may delete a held lock
                lock.unlink(missing_ok=True)


def verify(folder: Path) -> None:
    """Raise DamagedError unless the folder holds exactly the files and bytes of its manifest."""
    listed = files.read_record(folder / MANIFEST, Manifest).files
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    if present != set(listed):
        odd = sorted(present ^ set(listed))
        raise DamagedError(f"{folder} has files missing or added: {', '.join(odd)[:200]}")
    for name, record in listed.items():
        path = folder / name
        foreign.check(path)
        if path.stat().st_size != record.size or files.sha256(path) != record.sha256:
            raise DamagedError(f"{path} is not what was written: its checksum differs")


def build_once(
    folder: Path, make: Callable[[Path], None], check: Callable[[Path], object] | None = None
) -> float | None:
    """Make sure that `folder` exists and is intact; return the seconds `make` took, or None.

    `check` looks at what the checksums cannot tell, and raises ValueError. The lock only saves
    work; the rename in `new_folder` is what keeps readers safe.
    """
    if not _fault(folder, check):
        return None
    _check_writable(folder.parent)
    with locks.waited(folder.with_name(f".{folder.name}.lock")):
        is_there = folder.exists()  # asked first: without locks, a whole one may come meanwhile
        fault = _fault(folder, check)
        if not fault:
            return None
        if is_there:
            log.warning(f"{fault}; building it again")
            with contextlib.suppress(FileNotFoundError):  # without locks, another was first
                remove(folder)
        start = time.perf_counter()
        with new_folder(folder) as tmp:
            make(tmp)
        clear_leftovers(folder.parent)  # of the one before, which may have been dying still
        return time.perf_counter() - start


def _check_writable(cache: Path) -> None:
    try:
        files.make_folder(cache, mode=0o700)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        kind = StorageError if error.errno in FULL else OSError
        raise kind(
            f"cannot write to the cache {cache} ({error.strerror}): set LM_CACHE_DIR to a folder "
            "of your own"
        ) from None


def remove(folder: Path) -> None:
    """Delete a folder so that a crash half-way leaves nothing that looks whole."""
    trash = files.temporary(folder)
    files.rename(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def set_aside(path: Path) -> None:
    """Rename what is damaged to damaged_NAME, or damaged_NAME.2 and so on where that is taken."""
    target = path.with_name(f"{DAMAGED}{path.name}")
    number = 2
    while os.path.lexists(target):
        target = path.with_name(f"{DAMAGED}{path.name}.{number}")
        number += 1
    files.rename(path, target)


def clear_leftovers(folder: Path) -> None:
    """Delete what processes that are dead by now were writing in `folder`.

    Those that live hold a lock, on the file or beside the folder. Without locks nothing is deleted.
    """
    for path in folder.glob(".*"):
        if not files.is_temporary(path):
            continue
        is_folder = path.is_dir() and not path.is_symlink()
        lock_path = path.with_suffix(LOCK) if is_folder else path
        with contextlib.suppress(OSError):
            lock = locks.take(lock_path)
            if lock is None:
                continue
            try:
                if is_folder:
                    shutil.rmtree(path, ignore_errors=True)
                lock_path.unlink(missing_ok=True)
            finally:
                lock.release()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[locks.HeldLock]:
    """Hold a run directory; LockedError names the process that holds it already.

    The lock ends with its process, however that dies. Where locks do not work, all may enter.
    """
    files.make_folder(folder)
    files.no_links(folder)
    import filelock  # 0.1 s, which --help need not wait for

    path = folder / HOLDER
    descriptors: list[int | None] = [None]
    lock = filelock.FileLock(path, fallback_to_soft=False, on_acquired=descriptors.append)
    with contextlib.suppress(OSError):  # a folder that nobody may write to is told below
        if not path.exists():
            files.create(path, holder().encode())
    try:
        lock.acquire(timeout=0.2)  # is_locked may hold it for a moment
    except filelock.Timeout:
        raise LockedError(
            f"{folder} is being written by process {_read_holder(path)}: wait until it has ended, "
            "or choose another directory"
        ) from None
    except OSError as error:
        log.warning(f"{folder} cannot be locked ({error}): start no second run in it")
    try:
        with contextlib.suppress(OSError):  # on Windows nobody else may write to a locked file
            _name_holder(path)
        clear_leftovers(folder)
        yield locks.HeldLock(descriptors[-1])
    finally:
        lock.release()


def holder() -> str:
    """This process, as HOLDER names it; always of the same length, see _name_holder."""
    return f"{os.getpid()} on {files.HOST}"[:80].ljust(80) + MARK


def _name_holder(path: Path) -> None:
    """Write in place who holds a directory: the mark, without which after a power cut it would be
    nobody's, stays on the disk.
    """
    with open(path, "r+b") as file:
        file.write(holder().encode())
        file.truncate()


def is_locked(folder: Path) -> bool:
    """Whether a living process holds a run directory. Raises OSError where locks do not work."""
    return locks.is_held(folder / HOLDER)


def _read_holder(path: Path) -> str:
    try:
        return foreign.read_text(path, 1 << 10, errors="replace").partition("\n")[0][:80].rstrip()
    except DamagedError:
        return "?"


def _fault(folder: Path, check: Callable[[Path], object] | None) -> str:
    """What is wrong with a built folder; "" if nothing is."""
    try:
        verify(folder)
        if check is not None:
            check(folder)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def seal(folder: Path) -> None:
    """Sync every file and write the manifest, last."""
    sums = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        sums[path.name] = FileSum(path.stat().st_size, files.sha256(path))
    files.atomic_write(folder / MANIFEST, files.to_json(Manifest(sums)))
