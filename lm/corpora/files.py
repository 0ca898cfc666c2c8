"""The user's own text: .txt, .jsonl and their .gz, named as files, folders or globs.

    python -m lm.train corpus=files corpus.path=my.txt
    python -m lm.train corpus=files 'corpus.path=[books,"logs/**/*.jsonl.gz"]' corpus.field=body

A text file is one document, a .jsonl line is one. Line ends stay as they are: bits per byte count
the bytes that were given, and a model of a CRLF file should write CRLF. NULs stay, too.
"""

import codecs
import glob
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lm.corpora.base import Corpus
from lm.system.files import sha256

RULES = 1  # raise it when the code below comes to read other text from the same files
SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")  # what is looked for in folders
# A .gz may unpack to MAX_RATIO times its size, or to MAX_SMALL bytes if that is more. Text packs
# 3 to 10 times smaller; past 100 times it is a bomb, or has nothing to learn from.
MAX_RATIO, MAX_SMALL = 100, 1 << 26
REPLACE = "have lm.train put U+FFFD in such places with corpus.errors=replace"
SURROGATE = re.compile("[\ud800-\udfff]")


class Files(Corpus):
    """Documents in the order of the entries of `corpus.path`; in a folder or glob, by path.

    Each file is read once, however many entries name it. Hidden names in folders are left out,
    and links to folders not followed. A byte order mark is not text and dropped.
    """

    def source(self) -> dict[str, Any]:
        files = [{"name": path.name, "sha256": sha256(path)} for path in self.paths()]
        settings = {"field": self.cfg.field, "errors": self.cfg.errors, "rules": RULES}
        return {"name": "files", **settings, "files": files}

    def documents(self) -> Iterator[str]:
        for path in self.paths():
            if path.name.lower().removesuffix(".gz").endswith(".jsonl"):
                yield from self._lines(path)
            else:
                with _open(path) as file:
                    yield self._decode(file.read(), path, 0)

    def paths(self) -> list[Path]:
        """The files to read. Raises FileNotFoundError or ValueError naming the wrong entry."""
        entries = self.cfg.path if isinstance(self.cfg.path, list) else [self.cfg.path]
        files: dict[str, Path] = {}
        for entry in entries:
            for path in _find(entry):
                files.setdefault(os.path.realpath(path), path)
        return list(files.values())

    def _lines(self, path: Path) -> Iterator[str]:
        with _open(path) as file:
            start = 0  # byte of the file at which the line begins
            for number, line in enumerate(file, start=1):
                text = self._decode(line, path, start)
                if text.strip():
                    yield self._field(text, f"{path}, line {number}")
                start += len(line)

    def _decode(self, data: bytes, path: Path, start: int) -> str:
        """`data`, which begins at byte `start` of the file, as text."""
        if start == 0 and data.startswith(codecs.BOM_UTF8):
            start, data = len(codecs.BOM_UTF8), data[len(codecs.BOM_UTF8) :]
        try:
            return data.decode("utf-8", self.cfg.errors)
        except UnicodeDecodeError as error:
            way_out = f"convert it, or {REPLACE}"
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                way_out = "it looks like UTF-16, so convert it: iconv -f UTF-16 -t UTF-8"
            raise ValueError(
                f"{path} is not UTF-8: byte {data[error.start]:#04x} at position "
                f"{start + error.start:,}; {way_out}"
            ) from None

    def _field(self, line: str, place: str) -> str:
        """The text in one line of JSON."""
        name = self.cfg.field
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is not JSON: {error}") from None
        text = record.get(name) if isinstance(record, dict) else None
        if not isinstance(text, str):
            fields = record.items() if isinstance(record, dict) else ()
            known = ", ".join(key for key, value in fields if isinstance(value, str))
            hint = f"fields of text are {known}"[:200] if known else "there is none that does"
            way_out = f": rename one to {name}, or have lm.train read it with corpus.field"
            raise ValueError(f"{place}: no field {name} holds text; {hint}{way_out * bool(known)}")
        if self.cfg.errors == "strict" and (bad := SURROGATE.search(text)):
            raise ValueError(
                f"{place}: \\u{ord(bad[0]):x} is half a character, which UTF-8 cannot hold; "
                f"repair it, or {REPLACE}"
            )
        return SURROGATE.sub("\ufffd", text)


def _find(entry: str) -> list[Path]:
    """The files that one entry of `corpus.path` means."""
    path = Path(entry).expanduser()
    if os.path.lexists(path):
        matches = [path]  # before the glob: a name may hold brackets
    else:
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    if not matches:
        what = "matches nothing" if glob.has_magic(entry) else "does not exist"
        raise FileNotFoundError(f"corpus.path={entry} {what}; it is read from {Path.cwd()}")
    files = [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
    if not files:
        raise ValueError(
            f"corpus.path={entry} holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; "
            f"for other names give a glob, such as '{entry.rstrip('/')}/*.md'"
        )
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file} is a link to nothing")
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for without end
            raise ValueError(f"{file} is not a plain file: save its text in one")
    return files


def _walk(folder: Path) -> list[Path]:
    files = []
    for base, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        names = [name for name in names if not name.startswith(".")]
        files += [Path(base, name) for name in names if name.lower().endswith(SUFFIXES)]
    inside = os.path.realpath(folder)
    for file in files:
        if file.is_symlink() and file.exists() and not file.resolve().is_relative_to(inside):
            raise ValueError(
                f"{file} leads out of {folder}, to {file.resolve()}: if you trust it, name it in "
                "corpus.path"
            )
    return sorted(files)


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(_Unpacked(path, gzip.GzipFile(path)), buffer_size=1 << 20)
    return path.open("rb")


class _Unpacked(io.RawIOBase):
    """The content of a .gz as it is needed, up to a limit."""

    def __init__(self, path: Path, file: gzip.GzipFile):
        self.path, self.file = path, file
        self.limit = max(MAX_SMALL, MAX_RATIO * path.stat().st_size)
        self.n_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            n = self.file.readinto(buffer)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path} is not an intact .gz file: {error}") from None
        self.n_read += n
        if self.n_read > self.limit:
            raise ValueError(
                f"{self.path} unpacks to more than {self.limit:,} bytes, over {MAX_RATIO} times "
                "its size: if you trust it, unpack it with gunzip and give the result"
            )
        return n

    def close(self) -> None:
        self.file.close()
        super().close()
