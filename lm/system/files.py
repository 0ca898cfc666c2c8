"""Read and write single files: whole or absent, of limited size, never through a link.

value = files.read_json(path)
files.atomic_write(path, text)
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import secrets
import stat
from pathlib import Path
from typing import Any

from lm.system.errors import DamagedError

HOST = platform.node().replace(".", "-")
MAX_JSON = 1 << 25  # bytes of a JSON file: ten times as much memory while it is read


MAX_TEXT = 1 << 30  # bytes of any other text that is read at once


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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def temporary(final: Path) -> Path:
    """A name beside `final` that says which process writes it."""
    mark = f"{HOST}.{os.getpid()}.{secrets.token_hex(4)}"
    return final.with_name(f".{final.name}.{mark}.tmp")


def _short(value: Any, limit: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."
