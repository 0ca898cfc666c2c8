"""Files that are whole or absent: content fingerprints, atomic folders, stages built only once.

    seconds = store.build_once(folder, make)     # None: it was there, and its checksums hold

A folder is written under a temporary name, sealed with a manifest of sha256 sums, synced to disk
and renamed. A reader therefore sees all of it or nothing, and `verify` finds every changed byte.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two builders may then work at once, and the first rename wins
    fcntl = None

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """A folder whose files are not those its manifest lists."""


def cache_dir() -> Path:
    """Where built stages live: outputs/cache under the current directory, or $LM_CACHE_DIR."""
    return Path(os.environ.get("LM_CACHE_DIR") or "outputs/cache")


def fingerprint(*values: Any) -> str:
    """16 hex digits that stand for these JSON values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, data: str | bytes) -> None:
    """Replace the file at `path` in one step; a crash leaves the old one or the new one."""
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(tmp, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """The JSON in a file; raises DamagedError if it is absent or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `final`, sealed and synced, if no error happens.

    If `final` exists by then, another process was first: its folder stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    tmp = final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    tmp.mkdir()
    try:
        yield tmp
        _seal(tmp)
        with contextlib.suppress(OSError):  # raised only where `final` already exists
            os.rename(tmp, final)
        if not final.is_dir():
            raise OSError(f"could not move {tmp} to {final}")
        sync_folder(final.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def verify(folder: Path) -> None:
    """Raise DamagedError unless the folder holds exactly the files and bytes of its manifest."""
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise DamagedError(f"{folder / MANIFEST} lists no files")
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    if present != set(files):
        odd = sorted(present ^ set(files))
        raise DamagedError(f"{folder} has files missing or added: {', '.join(odd)}")
    for name, record in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise DamagedError(f"{path} is not a plain file")
        if path.stat().st_size != record["size"] or sha256(path) != record["sha256"]:
            raise DamagedError(f"{path} is not what was written: its checksum differs")


def build_once(folder: Path, make: Callable[[Path], None]) -> float | None:
    """Make sure that `folder` exists and is intact; return the seconds `make` took, or None.

    The lock only saves work; the rename in `new_folder` is what keeps readers safe.
    """
    if _intact(folder):
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f".{folder.name}.lock")):
        if _intact(folder):
            return None
        start = time.perf_counter()
        with new_folder(folder) as tmp:
            make(tmp)
        return time.perf_counter() - start


def remove(folder: Path) -> None:
    """Delete a folder so that a crash half-way leaves nothing that looks whole."""
    trash = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.trash")
    os.rename(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _intact(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        verify(folder)
    except DamagedError as error:
        log.warning(f"{error}; building it again")
        with contextlib.suppress(FileNotFoundError):  # another process cleared it first
            remove(folder)
        return False
    return True


def _seal(folder: Path) -> None:
    """Sync every file and write the manifest, last."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    atomic_write(folder / MANIFEST, json.dumps({"files": files}, indent=1))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
