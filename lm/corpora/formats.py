"""The documents in one file of the user's, by the format that its suffix names.

    list(Reader(field="text").documents(Path("a.jsonl.gz")))

A format is one entry of FORMATS; how a file is packed is another matter (lm/system/packed.py).
"""

import codecs
import csv
import io
import json
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lm.corpora import parquet
from lm.system import foreign, packed
from lm.system.errors import ConfigError
from lm.system.text import HALVES

MAX_FIELD = 1 << 30  # characters of one cell of a .csv file
BEGINNING = 8000  # bytes that tell a text from other data, as in git
BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x7f]")  # what stands in no text
COPIES = 3  # of a text that is read at once: its bytes, its characters, and what is made of them
DEPTH = 4  # of the nested fields that a message lists
REPLACE = "have lm.train put U+FFFD in such places with corpus.errors=replace"
SPACE = re.compile(r"\s*")
LINE_END = re.compile(r"[\r\n]")


@dataclass
class Reader:
    """Documents of files; `field` names what holds the text, `errors` what bytes do that are no
    UTF-8: strict or replace."""

    field: str = "text"
    errors: str = "strict"

    def documents(self, path: Path) -> Iterator[str]:
        """The texts of a file in order; ValueError names the place of what is none."""
        found = format_of(path)
        if found is None:
            raise ValueError(
                f"{path}: a file of this kind is not read: convert it to .jsonl, an object a line"
            )
        with packed.open_unpacked(path) as file:
            yield from found.read(self, file, path)

    def text(self, file: BinaryIO, path: Path) -> Iterator[str]:
        """The whole file as one document."""
        yield self.decode(file.read(), path, 0)

    def lines(self, file: BinaryIO, path: Path) -> Iterator[str]:
        """One document for each line of JSON; of a file that is an array, one for each entry."""
        start = 0  # byte of the file at which the line begins
        is_first = True
        lines = iter(lambda: file.readline(foreign.MAX_TEXT + 1), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) > foreign.MAX_TEXT:
                raise ValueError(
                    f"{path}, line {number} has over {foreign.MAX_TEXT:,} bytes: part its text"
                )
            text = self.decode(line, path, start)
            start += len(line)
            if not text.strip():
                continue
            if is_first and text.lstrip().startswith("["):
                yield from self._values(text + self.decode(file.read(), path, start), path)
                return
            is_first = False
            place = f"{path}, line {number}"
            yield self.from_record(parsed(text, place), place)

    def json(self, file: BinaryIO, path: Path) -> Iterator[str]:
        """One document for each entry of an array, or for each of the values in the file."""
        yield from self._values(self.decode(file.read(), path, 0), path)

    def csv(self, file: BinaryIO, path: Path) -> Iterator[str]:
        """One document for each row, out of the column that the first row calls `field`."""
        text = self.decode(file.read(), path, 0)
        csv.field_size_limit(MAX_FIELD)
        head = LINE_END.split(text, maxsplit=1)[0]
        delimiter = next((mark for mark in ",;\t" if self.field in _cells(head, mark)), ",")
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            names = next(rows, [])
            if self.field not in names:
                known = f"its first row is {', '.join(names)}"[:200]
                raise ValueError(f"{path} has no column {self.field}: {known}; give corpus.field")
            column = names.index(self.field)
            for row in rows:
                if row and column >= len(row):
                    raise ValueError(
                        f"{path}, line {rows.line_num}: the row has {len(row)} columns, and "
                        f"{self.field} is number {column + 1}"
                    )
                if row:
                    yield row[column]
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num} is not CSV: {error}") from None

    def parquet(self, file: BinaryIO, path: Path) -> Iterator[str]:
        """One document for each row, out of the column that `field` names."""
        for number, row in enumerate(parquet.rows(file, path, self.field), start=1):
            yield self.from_record(row, f"{path}, row {number}")

    # ------------------------------------------------------------------------------- its parts

    def decode(self, data: bytes, path: Path, start: int) -> str:
        """The text of `data`, which begins at byte `start` of the file."""
        if start == 0 and data.startswith(codecs.BOM_UTF8):
            start = len(codecs.BOM_UTF8)
            data = data[start:]
        try:
            return data.decode("utf-8", self.errors)
        except UnicodeDecodeError as error:
            way_out = f"convert it, or {REPLACE}"
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                way_out = "it looks like UTF-16, so convert it: iconv -f UTF-16 -t UTF-8"
            raise ValueError(
                f"{path} is not UTF-8: byte {data[error.start]:#04x} at position "
                f"{start + error.start:,}; {way_out}"
            ) from None

    def _values(self, text: str, path: Path) -> Iterator[str]:
        """The document of each entry of one array, or of each of the values one after another."""
        is_array = text.startswith("[", _after_space(text, 0))
        at = _after_space(text, 0) + is_array
        end = "]" if is_array else ""
        number = 0
        while (at := _after_space(text, at)) < len(text) and text[at] != end:
            number += 1
            place = f"{path}, value {number}"
            if is_array and number > 1:
                if text[at] != ",":
                    raise ValueError(f"{place} is not JSON: no comma before it")
                at = _after_space(text, at + 1)
            value, at = _parsed_at(text, at, place)
            yield self.from_record(value, place)
        if is_array and text[at:].strip() != "]":
            raise ValueError(f"{path} is not JSON: its array does not end with the file")

    def from_record(self, record: object, place: str) -> str:
        """The text of a JSON value: its own, or that of the field that `field` names."""
        text = record if isinstance(record, str) else _at(record, self.field)
        if not isinstance(text, str):
            raise ValueError(f"{place}: {self._no_text(record)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON can name half of a pair
            if self.errors == "strict":
                raise ValueError(
                    f"{place}: \\u{ord(text[error.start]):x} is half a character, which UTF-8 "
                    f"cannot hold; repair it, or {REPLACE}"
                ) from None
            return HALVES.sub("\ufffd", text)
        return text

    def _no_text(self, record: object) -> str:
        """Why this record gives no text, and which other fields would."""
        problem = f"no field {self.field} holds text"
        known = ", ".join(_text_fields(record))
        if not known:
            return f"{problem}; there is none that does"
        hint = f"fields of text are {known}"[:200]
        way_out = f"rename one to {self.field}, or have lm.train read it with corpus.field"
        return f"{problem}; {hint}: {way_out}"


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line of CSV; none if it is no CSV, which the reader of all lines tells."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _at(record: object, field: str) -> object:
    """The value of a field, or along a.b that of b in a; None if there is none."""
    if isinstance(record, dict) and field in record:
        return record[field]
    head, dot, rest = field.partition(".")
    while dot and isinstance(record, dict):  # a key may hold dots itself
        if head in record and (found := _at(record[head], rest)) is not None:
            return found
        key, dot, rest = rest.partition(".")
        head = f"{head}.{key}"
    return None


def _text_fields(record: object, prefix: str = "", depth: int = DEPTH) -> Iterator[str]:
    """The names of the fields that hold text, those inside others as a.b."""
    for key, value in record.items() if isinstance(record, dict) and depth else ():
        if isinstance(value, str):
            yield f"{prefix}{key}"
        yield from _text_fields(value, f"{prefix}{key}.", depth - 1)


def _after_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match else at


def parsed(text: str, place: str) -> object:
    """The JSON value of a text; ValueError names its place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from None


def _parsed_at(text: str, at: int, place: str) -> tuple[object, int]:
    """The JSON value that begins at a place of the text, and the place behind it."""
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from None


def check_size(path: Path) -> None:
    """ValueError for a file that is read at once and cannot fit the memory, before it is read."""
    found = format_of(path)
    size = path.stat().st_size
    if found is None or not found.at_once or packed.suffix_of(path) or size <= foreign.MAX_TEXT:
        return
    import torch

    from lm.system import memory

    room = memory.room(torch.device("cpu"))
    if COPIES * size > room:
        raise ValueError(
            f"{path} has {size:,} bytes and is read at once, which takes {COPIES} times as much of "
            f"the {memory.gigabytes(room)} of memory: give parts of it, or a .jsonl file, a text a "
            "line"
        )


class Format(NamedTuple):
    """How a kind of file is read."""

    read: Callable[[Reader, BinaryIO, Path], Iterator[str]]
    in_folders: bool  # whether such a file in a folder is read without being named
    since: int  # of the rules with which a corpus's fingerprint began; it stays, so that caches do
    at_once: bool = True  # whether all of it is in memory
    rules: int = 1  # raise it when other text comes to be read from the same file


FORMATS = {
    ".txt": Format(Reader.text, in_folders=True, since=1),
    ".jsonl": Format(Reader.lines, in_folders=True, since=1, at_once=False),
    ".ndjson": Format(Reader.lines, in_folders=True, since=2, at_once=False),
    ".json": Format(Reader.json, in_folders=False, since=2),
    ".csv": Format(Reader.csv, in_folders=False, since=2),
    ".tsv": Format(Reader.csv, in_folders=False, since=2),
    ".parquet": Format(Reader.parquet, in_folders=True, since=3, at_once=False),
}
PLAIN = FORMATS[".txt"]  # what a file of any other name is read as
# Files that hold no plain text: with corpus.errors=replace one would train on noise.
UNREAD = {".arrow", ".feather", ".bz2", ".xz", ".zip", ".7z", ".rar", ".tar"}
UNREAD |= {".tgz", ".pdf", ".docx", ".xlsx", ".odt", ".epub", ".safetensors", ".bin", ".npy"}


def format_of(path: Path) -> Format | None:
    """The format of a file, None if it cannot be read."""
    suffix = kind(path)
    return None if suffix in UNREAD else FORMATS.get(suffix, PLAIN)


def raised_rules(path: Path) -> dict[str, object]:
    """What a fingerprint says of the file besides, once its format's rules have been raised."""
    found = format_of(path)
    return {"rules": found.rules} if found and found.rules > 1 else {}


def is_read_in_folders(path: Path) -> bool:
    """Whether a file that was found in a folder is read without being named.

    That is a format of FORMATS that may be, or a file of any other name whose beginning is text.
    """
    found = format_of(path)
    if found is None:
        return False
    if kind(path) in FORMATS:
        return found.in_folders
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            return False
        with packed.open_unpacked(path) as file:
            return not BINARY.search(file.read(BEGINNING))
    except ConfigError:  # a missing extra, which the reader tells of
        return True
    except (OSError, ValueError):  # a link to nothing, or packed by nobody
        return False


def kind(path: Path) -> str:
    """The end of a file's name by which its format is known, without .gz and so on: `.md`."""
    name = path.name.lower()
    return Path(name.removesuffix(packed.suffix_of(path))).suffix
