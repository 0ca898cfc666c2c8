"""Files that are whole or absent: content fingerprints, atomic folders, stages built only once.

    seconds = store.build_once(folder, make)     # None: it was there, and its checksums hold

A folder is written under a temporary name, sealed with a manifest of sha256 sums, synced to disk
and renamed. A reader therefore sees all of it or nothing, and `verify` finds every changed byte.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm import failpoint

try:
    import fcntl
except ImportError:  # Windows: two builders may then work at once, and the first rename wins
    fcntl = None

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
HOST = platform.node().replace(".", "-")
MAX_JSON = 1 << 25  # bytes of a JSON file: ten times as much memory while it is read
MAX_TEXT = 1 << 30  # bytes of any other text that is read at once


class HeldError(ValueError):
    """Another process writes a directory."""


class DamagedError(ValueError):
    """A folder whose files are not those its manifest lists."""

    def __init__(self, text: str) -> None:  # which may repeat what a stranger wrote
        super().__init__(text if len(text) < 2000 else f"{text[:1900]}...")


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
    tmp = temporary(path)
    try:
        with open(tmp, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_text(path: Path, limit: int = MAX_TEXT, errors: str = "strict") -> str:
    """The text in a plain file; DamagedError if it is no such file, too large or no UTF-8.

    Links and pipes are refused: a stranger's could lead anywhere, or be read without end.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{path} is not a plain file")
        if found.st_size > limit:
            raise DamagedError(f"{path} has {found.st_size:,} bytes, and {limit:,} are allowed")
        return path.read_text(encoding="utf-8", errors=errors)
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


def read_json(path: Path, form: Any = object) -> Any:
    """The JSON in a file; raises DamagedError if it is absent, malformed or not of that form."""
    try:
        value = json.loads(read_text(path, MAX_JSON))
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None
    if wrong := misfit(value, form):
        raise DamagedError(f"{path} is not what was written: {wrong}")
    return value


def finite(value: Any) -> Any:
    """The value with None for each number in it that JSON has no word for: NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def misfit(value: Any, form: Any, where: str = "it") -> str:
    """How a JSON value differs from its form, "" if it does not.

    A form is a type or a tuple of types, [form] for a list, or {"key": form, "other?": form} for
    an object, where the question mark is for keys that may be absent. More keys are allowed. A
    bool is no number, and an int has 64 bits.
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{where} is {_short(value)}, not an object"
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                if wrong := misfit(value[name], inner, name):
                    return wrong
            elif name == key:
                return f"{key} is missing"
        return ""
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{where} is {_short(value)}, not a list"
        return next(filter(None, (misfit(v, form[0], f"a part of {where}") for v in value)), "")
    kinds = form if isinstance(form, tuple) else (form,)
    good = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
    if form is not object and (not good or (isinstance(value, int) and abs(value) >= 1 << 63)):
        return f"{where} is {_short(value)}, not {' or '.join(k.__name__ for k in kinds)}"
    return ""


def no_links(folder: Path) -> None:
    """Raise DamagedError if anything in the folder, at any depth, is a link, pipe or device.

    A link in a stranger's folder could send what we write, or what we read, anywhere.
    """
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(base, name)
            with contextlib.suppress(FileNotFoundError):  # a run that trains deletes checkpoints
                if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                    continue
                raise DamagedError(f"{path} is not a plain file: delete it, or copy what it means")


@contextlib.contextmanager
def new_folder(final: Path, kind: str = "cache") -> Iterator[Path]:
    """A folder to fill, which becomes `final`, sealed and synced, if no error happens.

    If `final` exists by then, another process was first: its folder stays. `kind` is the first
    half of its failpoints' names.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(final.parent)
    tmp = temporary(final)
    tmp.mkdir()
    try:
        yield tmp
        failpoint.hit(f"{kind}.after_files")
        _seal(tmp)
        failpoint.hit(f"{kind}.after_manifest")
        with contextlib.suppress(OSError):  # raised only where `final` already exists
            os.rename(tmp, final)
        if not final.is_dir():
            raise OSError(f"could not move {tmp} to {final}")
        failpoint.hit(f"{kind}.after_rename")
        sync_folder(final.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def verify(folder: Path) -> None:
    """Raise DamagedError unless the folder holds exactly the files and bytes of its manifest."""
    files = read_json(folder / MANIFEST, {"files": dict})["files"]
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    if present != set(files):
        odd = sorted(present ^ set(files))
        raise DamagedError(f"{folder} has files missing or added: {', '.join(odd)[:200]}")
    for name, record in files.items():
        path = folder / name
        if wrong := misfit(record, {"size": int, "sha256": str}, name):
            raise DamagedError(f"{folder / MANIFEST} is not what was written: {wrong}")
        if path.is_symlink() or not path.is_file():
            raise DamagedError(f"{path} is not a plain file")
        if path.stat().st_size != record["size"] or sha256(path) != record["sha256"]:
            raise DamagedError(f"{path} is not what was written: its checksum differs")


def build_once(
    folder: Path, make: Callable[[Path], None], check: Callable[[Path], Any] | None = None
) -> float | None:
    """Make sure that `folder` exists and is intact; return the seconds `make` took, or None.

    `check` looks at what the checksums cannot tell, and raises ValueError. The lock only saves
    work; the rename in `new_folder` is what keeps readers safe.
    """
    if not _fault(folder, check):
        return None
    with _lock(folder.with_name(f".{folder.name}.lock")):
        if not (fault := _fault(folder, check)):
            return None
        if folder.exists():
            log.warning(f"{fault}; building it again")
            with contextlib.suppress(FileNotFoundError):  # without locks, another was first
                remove(folder)
        start = time.perf_counter()
        with new_folder(folder) as tmp:
            make(tmp)
        clear_leftovers(folder.parent)  # of the one before, which may have been dying still
        return time.perf_counter() - start


def remove(folder: Path) -> None:
    """Delete a folder so that a crash half-way leaves nothing that looks whole."""
    trash = temporary(folder)
    os.rename(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Delete what processes of this machine that are dead by now were writing in `folder`."""
    for path in folder.glob(".*.tmp"):
        _, host, pid, *_ = f"....{path.name}".rsplit(".", 4)
        if host == HOST and pid.isdigit() and not alive(int(pid)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run directory; HeldError names the process that holds it already.

    The lock ends with its process, however that dies. Where locks do not work, all may enter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    no_links(folder)
    with open(folder / ".running", "a+", encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise HeldError(
                f"{folder} is being written by process {file.read(80)}: wait until it has ended, "
                "or choose another directory"
            ) from None
        except OSError as error:
            log.warning(f"{folder} cannot be locked ({error}): start no second run in it")
        file.truncate(0)
        file.write(f"{os.getpid()} on {HOST}")
        file.flush()
        clear_leftovers(folder)
        yield


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _fault(folder: Path, check: Callable[[Path], Any] | None) -> str:
    """What is wrong with a built folder; "" if nothing is."""
    try:
        verify(folder)
        if check is not None:
            check(folder)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def temporary(final: Path) -> Path:
    """A name beside `final` that says which process writes it."""
    mark = f"{HOST}.{os.getpid()}.{secrets.token_hex(4)}"
    return final.with_name(f".{final.name}.{mark}.tmp")


def alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    if os.name != "posix":  # there is no harmless signal elsewhere
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    with contextlib.suppress(OSError):  # Linux keeps a dead process until its parent looks
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _short(value: Any, limit: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(path, "w")  # noqa: SIM115
    except OSError as error:
        raise OSError(
            f"cannot write to the cache {path.parent} ({error.strerror}): set LM_CACHE_DIR to a "
            "folder of your own"
        ) from None
    with file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks: see build_once
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
