"""The user's own text: .txt, .jsonl and their .gz, named as files, folders or globs.

    python -m lm.train corpus=files corpus.path=my.txt
    python -m lm.train corpus=files 'corpus.path=[books,"logs/**/*.jsonl.gz"]' corpus.field=body

A text file is one document, and so is a line of a .jsonl file. Line ends stay as they are: bits
per byte count the bytes that were given, and a model of a CRLF file should write CRLF. NULs stay,
too.
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
from typing import BinaryIO

from lm.config import FilesConfig
from lm.corpora.base import Corpus
from lm.system.files import sha256

RULES = 1  # raise it when the code below comes to read other text from the same files
SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")  # the files of a folder that are read
# A .gz may unpack to MAX_RATIO times its size, or to MAX_SMALL bytes if that is more. Text packs
# 3 to 10 times smaller; past 100 times it is a bomb, or has nothing to learn from.
MAX_RATIO = 100
MAX_SMALL = 1 << 26
REPLACE = "have lm.train put U+FFFD in such places with corpus.errors=replace"
SURROGATE = re.compile("[\ud800-\udfff]")


class Files(Corpus):
    """Documents in the order of the entries of `corpus.path`; in a folder or glob, by path.

    Each file is read once, however many entries name it. Hidden names in folders are skipped, and
    links to folders are not followed. A byte order mark is dropped.
    """

    cfg: FilesConfig

    def source(self) -> dict[str, object]:
        return {
            "name": "files",
            "field": self.cfg.field,
            "errors": self.cfg.errors,
            "rules": RULES,
            "files": [{"name": path.name, "sha256": sha256(path)} for path in self.paths()],
        }

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
        paths: dict[str, Path] = {}  # by their real path, so that each is read once
        for entry in entries:
            for path in _find(entry):
                paths.setdefault(os.path.realpath(path), path)
        return list(paths.values())

    def _lines(self, path: Path) -> Iterator[str]:
        with _open(path) as file:
            start = 0  # byte of the file at which the line begins
            for number, line in enumerate(file, start=1):
                text = self._decode(line, path, start)
                if text.strip():
                    yield self._field(text, f"{path}, line {number}")
                start += len(line)

    def _decode(self, data: bytes, path: Path, start: int) -> str:
        """The text of `data`, which begins at byte `start` of the file."""
        if start == 0 and data.startswith(codecs.BOM_UTF8):
            start = len(codecs.BOM_UTF8)
            data = data[start:]
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
        """The text in one line of JSON, from the field that `corpus.field` names."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is not JSON: {error}") from None
        fields = record if isinstance(record, dict) else {}
        text = fields.get(self.cfg.field)
        if not isinstance(text, str):
            raise ValueError(f"{place}: {self._no_text(fields)}")
        surrogate = SURROGATE.search(text)
        if surrogate and self.cfg.errors == "strict":
            raise ValueError(
                f"{place}: \\u{ord(surrogate[0]):x} is half a character, which UTF-8 cannot hold; "
                f"repair it, or {REPLACE}"
            )
        return SURROGATE.sub("\ufffd", text)

    def _no_text(self, fields: dict[str, object]) -> str:
        """Why these fields of a line give no text, and which others would."""
        name = self.cfg.field
        problem = f"no field {name} holds text"
        known = ", ".join(key for key, value in fields.items() if isinstance(value, str))
        if not known:
            return f"{problem}; there is none that does"
        hint = f"fields of text are {known}"[:200]
        way_out = f"rename one to {name}, or have lm.train read it with corpus.field"
        return f"{problem}; {hint}: {way_out}"


def _find(entry: str) -> list[Path]:
    """The files that one entry of `corpus.path` names; FileNotFoundError or ValueError if none."""
    path = Path(entry).expanduser()
    if os.path.lexists(path):
        matches = [path]  # before the glob: a name may hold brackets
    else:
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    if not matches:
        problem = "matches nothing" if glob.has_magic(entry) else "does not exist"
        raise FileNotFoundError(f"corpus.path={entry} {problem}; it is read from {Path.cwd()}")
    files = []
    for match in matches:
        files += _walk(match) if match.is_dir() else [match]
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
    """The text files below `folder`, sorted; ValueError if a link leads out of it."""
    files = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                files.append(Path(base, name))
    root = os.path.realpath(folder)
    for file in files:
        if file.is_symlink() and file.exists():
            target = file.resolve()
            if not target.is_relative_to(root):
                raise ValueError(
                    f"{file} leads out of {folder}, to {target}: if you trust it, name it in "
                    "corpus.path"
                )
    return sorted(files)


def _open(path: Path) -> BinaryIO:
    """The file's content, unpacked if it is a .gz."""
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(_Unpacked(path, gzip.GzipFile(path)), buffer_size=1 << 20)
    return path.open("rb")


class _Unpacked(io.RawIOBase):
    """The content of a .gz, read as it is needed; ValueError past a limit of bytes."""

    def __init__(self, path: Path, file: gzip.GzipFile):
        self.path = path
        self.file = file
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
