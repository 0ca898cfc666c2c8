"""Write single files, whole or not at all; read records of a known form, a JSON object each.

record = files.read_record(path, Manifest)     # a msgspec.Struct; DamagedError
files.atomic_write(path, files.to_json(record))
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import platform
import re
import secrets
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from lm.system import foreign, locks
from lm.system.durable import make_folder as make_folder
from lm.system.durable import rename, sync_folder
from lm.system.durable import sync_tree as sync_tree
from lm.system.errors import ConfigError, DamagedError
from lm.system.paths import expanded as expanded
from lm.system.paths import public as public

log = logging.getLogger(__name__)
T = TypeVar("T")
HOST = platform.node().replace(".", "-")
TEMPORARY = re.compile(rf"\..+\.{re.escape(HOST)}\.\d+\.[0-9a-f]{{8}}\.(tmp|lock)")
MAX_JSON = 1 << 25  # bytes of a JSON file: ten times as much memory while it is read
NOT_FINITE = ("nan", "inf", "-inf")
FLOATS = (float, float | None)


def cache_dir() -> Path:
    """Where built stages live: outputs/cache under the current directory, or $LM_CACHE_DIR."""
    return Path(expanded(os.environ.get("LM_CACHE_DIR") or "outputs/cache"))


def fingerprint(*values: object) -> str:
    """16 hex digits that stand for these JSON values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The checksum of a plain file, or of the one that a link leads to, as 64 hex digits."""
    with foreign.open_plain(path, links=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, data: str | bytes) -> None:
    """Replace the file at `path` in one step; a crash leaves the old one or the new one."""
    tmp = temporary(path)
    # The lock shows that its process lives. Windows neither writes nor renames what is locked.
    lock = locks.waited(tmp) if os.name == "posix" else contextlib.nullcontext()
    try:
        with lock:
            with open(tmp, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            rename(tmp, path)
    except OSError as error:
        raise named(error, path) from None
    finally:
        tmp.unlink(missing_ok=True)


def create(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Make a file, whole and durable, unless one is there; of several processes one makes it."""
    tmp = temporary(path)
    try:
        handle = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(tmp, path)
        except FileExistsError:
            pass
        except OSError:  # no links here: of two at the same time the later stays
            if not os.path.lexists(path):
                os.rename(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, durably; what a crash has left of a line before it gets its end."""
    is_new = not os.path.lexists(path)
    if not is_new:
        foreign.check(path)  # a pipe would be waited for
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = f"\n{line}"
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def named(error: OSError, path: Path) -> OSError:
    """The same error of the system about `path`, and not about a temporary file or none."""
    return OSError(error.errno, error.strerror, str(path))  # of the class that fits the number


def read_json(path: Path, links: bool = False) -> Any:
    """The JSON in a plain file; DamagedError if it is absent, malformed, too large or too deep.

    `links`: whether a link to such a file is followed, see lm/system/foreign.py.
    """
    try:
        return json.loads(foreign.read_text(path, MAX_JSON, links=links))
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


def read_record(path: Path, kind: type[T], links: bool = False) -> T:
    """The JSON in a file as a value of `kind`, a msgspec.Struct or a type such as dict[str, float].

    Keys that a Struct does not name are allowed. Where it has a number, "nan", "inf" and "-inf"
    stand for what JSON has no word for. Raises DamagedError with the path of what does not fit.
    """
    value = read_json(path, links)
    if isinstance(value, dict) and isinstance(kind, msgspec.StructMeta):
        for key in _floats_of(cast(type[msgspec.Struct], kind)):
            name = value.get(key)
            if isinstance(name, str) and name in NOT_FINITE:
                value[key] = float(name)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise DamagedError(f"{path} is not what was written: {error}") from None


@functools.cache
def _floats_of(kind: type[msgspec.Struct]) -> list[str]:
    """The keys of a record's JSON whose values are floats."""
    fields = msgspec.structs.fields(kind)
    return [field.encode_name for field in fields if field.type in FLOATS]


def to_json(record: msgspec.Struct) -> str:
    """A record as the text of its JSON file."""
    return json.dumps(msgspec.to_builtins(record), indent=1)


def finite(value: object) -> object:
    """The value with None for each number in it that JSON has no word for: NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_own(path: Path, mark: str) -> None:
    """ConfigError unless a file that is to be replaced is absent, or has the `mark` that each of
    its kind has near its beginning: another of that name is somebody's own.
    """
    if not path.is_file():
        return
    with foreign.open_plain(path, links=True) as file:
        if mark.encode() not in file.read(1 << 12):
            raise ConfigError(f"{path} is there, and lm did not write it: choose another out=")


def no_links(folder: Path) -> None:
    """Raise DamagedError if anything in the folder, at any depth, is a link, pipe or device.

    A link in a stranger's folder could send what we write, or what we read, anywhere.
    """
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except OSError:  # a run that trains deletes checkpoints
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                raise DamagedError(
                    f"{entry.path} is not a plain file: move it away, or put a copy in its place"
                )


def temporary(final: Path) -> Path:
    """A name beside `final` that no other process has; it says where it was made, for people."""
    mark = f"{HOST}.{os.getpid()}.{secrets.token_hex(4)}"
    return final.with_name(f".{final.name}.{mark}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether the name is one of `temporary` or of the lock beside it, made on this machine."""
    return TEMPORARY.fullmatch(path.name) is not None
