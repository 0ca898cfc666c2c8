"""Large files in units, stretches that are each read without the rest of the file.

    for unit in units(Path("web.jsonl"), size=1 << 26, field="text"):
        list(documents(unit, Reader("text")))

Lines of JSON and plain text are cut by bytes: a unit has the lines that begin in it, but a plain
text with longer lines than PIECE is cut between two characters. A .parquet file is cut between
groups of rows. A file that is packed otherwise, or whose values depend on its beginning, is one
unit.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lm.corpora import formats, parquet
from lm.corpora.formats import FORMATS, PLAIN, Reader
from lm.system import foreign, packed

PIECE = 1 << 20  # bytes of a large plain text that are a document
LINES = (FORMATS[".jsonl"], FORMATS[".ndjson"])
UNPACKS_TO = 4  # bytes of text that a byte of a packed file is taken to hold


class Unit(NamedTuple):
    """A stretch of a file: of its bytes, or of a .parquet file's groups of rows."""

    path: Path
    begin: int
    end: int
    is_whole: bool  # all of the file, read by its format
    n_bytes: int  # of text, about


def units(path: Path, size: int, field: str) -> list[Unit]:
    """The units of a file, in order, of about `size` bytes each where it can be cut.

    Raises ValueError for a .parquet file that is damaged or has no such column.
    """
    n_bytes = path.stat().st_size
    kind = formats.format_of(path)
    if kind == FORMATS[".parquet"] and not packed.suffix_of(path):
        return _groups(path, size, field)
    is_packed = bool(packed.suffix_of(path))
    if is_packed or n_bytes <= size or not _has_lines(path):
        return [Unit(path, 0, n_bytes, True, n_bytes * (UNPACKS_TO if is_packed else 1))]
    n = -(-n_bytes // size)
    ends = [n_bytes * i // n for i in range(n + 1)]
    return [Unit(path, ends[i], ends[i + 1], False, ends[i + 1] - ends[i]) for i in range(n)]


def _groups(path: Path, size: int, field: str) -> list[Unit]:
    with foreign.open_plain(path, links=True) as file:
        sizes = parquet.group_sizes(file, path, field)
    found = []
    begin = n_bytes = 0
    for group, n in enumerate(sizes, start=1):
        n_bytes += n
        if n_bytes >= size or group == len(sizes):
            found.append(Unit(path, begin, group, False, n_bytes))
            begin, n_bytes = group, 0
    return found


def _has_lines(path: Path) -> bool:
    """Whether a file can be cut behind any end of a line: plain text, and JSON that is no array."""
    kind = formats.format_of(path)
    if kind in LINES:
        with foreign.open_plain(path, links=True) as file:
            beginning = file.read(formats.BEGINNING).removeprefix(codecs.BOM_UTF8)
            return not beginning.lstrip().startswith(b"[")
    return kind == PLAIN


def documents(unit: Unit, reader: Reader) -> Iterator[str]:
    """The texts of a unit, in order; ValueError names the place of what is none.

    Of a plain text that is cut, each document is about PIECE bytes of it, and ends with a line.
    """
    kind = formats.format_of(unit.path)
    if unit.is_whole:
        pieces = _pieces(unit, reader) if _is_large_text(unit) else reader.documents(unit.path)
    elif kind == FORMATS[".parquet"]:
        pieces = _rows(unit, reader)
    elif kind in LINES:
        pieces = _records(unit, reader)
    else:
        pieces = _pieces(unit, reader)
    return pieces


def _is_large_text(unit: Unit) -> bool:
    is_plain = formats.format_of(unit.path) == PLAIN and not packed.suffix_of(unit.path)
    return is_plain and unit.end > 2 * PIECE


def _rows(unit: Unit, reader: Reader) -> Iterator[str]:
    groups = range(unit.begin, unit.end)
    with foreign.open_plain(unit.path, links=True) as file:
        found = parquet.rows(file, unit.path, reader.field, groups)
        for number, row in enumerate(found, start=1):
            yield reader.from_record(row, f"{unit.path}, row {number} from group {unit.begin} on")


def _records(unit: Unit, reader: Reader) -> Iterator[str]:
    for start, line in _lines(unit, foreign.MAX_TEXT + 1):
        place = f"{unit.path}, the line at byte {start:,}"
        if len(line) > foreign.MAX_TEXT:
            raise ValueError(f"{place} has over {foreign.MAX_TEXT:,} bytes: part its text")
        text = reader.decode(line, unit.path, start)
        if text.strip():
            yield reader.from_record(formats.parsed(text, place), place)


def _pieces(unit: Unit, reader: Reader) -> Iterator[str]:
    with foreign.open_plain(unit.path, links=True) as file:
        begin = _cut(file, unit.begin)
        end = _cut(file, unit.end)
        while begin < end:
            file.seek(begin)
            piece = file.read(min(PIECE, end - begin))
            piece += file.readline(min(PIECE, end - begin - len(piece)))
            if begin + len(piece) < end:
                piece = piece[: len(piece) - _n_of_cut_character(piece)]
            if not piece:
                return  # the file is shorter by now
            yield reader.decode(piece, unit.path, begin)
            begin += len(piece)


def _cut(file: BinaryIO, at: int) -> int:
    """The place at which a plain text is cut for the byte `at`: behind the next end of a line, or
    between two characters where that is more than PIECE bytes away."""
    if at == 0:
        return 0
    file.seek(at - 1)
    line = file.readline(PIECE)
    if line.endswith(b"\n") or len(line) < PIECE:
        return at - 1 + len(line)
    following = line[1:4]
    is_continued = [0x80 <= byte < 0xC0 for byte in following]
    return at + (is_continued.index(False) if False in is_continued else len(following))


def _lines(unit: Unit, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in a unit, each with the byte at which it does, at most `longest` bytes
    at a time."""
    with foreign.open_plain(unit.path, links=True) as file:
        at = unit.begin
        if at:  # the rest of the line before, which is only its end where that is just behind it
            at -= 1
            file.seek(at)
            skipped = b""
            while not skipped.endswith(b"\n"):
                skipped = file.readline(PIECE)
                if not skipped:
                    return
                at += len(skipped)
        while at < unit.end and (line := file.readline(longest)):
            yield at, line
            at += len(line)


def _n_of_cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character whose end is missing."""
    for n in range(1, min(4, len(data) + 1)):
        byte = data[-n]
        if byte >= 0xC0:  # the first of several
            length = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return n if n < length else 0
        if byte < 0x80:
            return 0
    return 0
