"""A file in units has the text of the file, each part of it once, wherever it is cut."""

import itertools
import json
import random

import pytest

from lm.corpora import units
from lm.corpora.formats import Reader


def read(path, size, field="text"):
    found = units.units(path, size, field)
    reader = Reader(field)
    return [list(units.documents(unit, reader)) for unit in found]


def joined(parts):
    return list(itertools.chain.from_iterable(parts))


@pytest.mark.parametrize("size", [1, 7, 50, 333, 10**6])
def test_lines_of_json_come_once_each_in_order(tmp_path, size):
    random.seed(size)
    texts = ["é" * random.randrange(40) for _ in range(60)]
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(text, ensure_ascii=bool(i % 2)) for i, text in enumerate(texts)]
    lines[7:7] = ["", "  "]
    path.write_text("\n".join(lines) + "\n" * (size % 2), encoding="utf-8")
    assert joined(read(path, size)) == texts


def test_a_line_that_is_no_json_is_named_by_its_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('"a"\n' * 100 + "{oops\n" + '"b"\n' * 100)
    with pytest.raises(ValueError, match=r"a\.jsonl, the line at byte 400 is not JSON"):
        read(path, 50)


@pytest.mark.parametrize("ends", ["\n", "\r\n", ""])
@pytest.mark.parametrize("size", [5, 100, 2000])
def test_a_large_plain_text_is_cut_between_characters_and_nothing_is_lost(
    tmp_path, monkeypatch, size, ends
):
    monkeypatch.setattr(units, "PIECE", 64)
    random.seed(size)
    words = [random.choice(["a", "é", "日本", "🎉"]) * random.randrange(30) for _ in range(90)]
    text = ends.join(words)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    pieces = joined(read(path, size))
    assert "".join(pieces) == text and len(pieces) > 3
    assert max(len(piece.encode()) for piece in pieces) < 64 + 64 + 30 * 6


def test_a_text_of_one_line_is_cut_evenly_between_characters(tmp_path, monkeypatch):
    """All of it was in the first unit, and each other unit read to its end to find a line."""
    monkeypatch.setattr(units, "PIECE", 64)
    path = tmp_path / "a.txt"
    path.write_text("日本語" * 1000, encoding="utf-8")  # 9,000 bytes
    parts = read(path, 1000)
    assert "".join(joined(parts)) == "日本語" * 1000
    assert {len("".join(part).encode()) // 10 for part in parts} <= {99, 100}


def test_an_array_and_what_is_packed_stay_whole(tmp_path):
    import gzip

    path = tmp_path / "a.jsonl"
    path.write_text(" [" + ",\n".join('"abc"' for _ in range(50)) + "]")
    assert read(path, 20) == [["abc"] * 50]
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert read(path, 20) == [["abc"] * 50]
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'"abc"\n' * 50))
    assert read(packed, 20) == [["abc"] * 50]


def test_a_parquet_file_is_cut_between_groups_of_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    texts = [f"{i} " * 20 for i in range(100)]
    table = pyarrow.table({"a": [{"b": text} for text in texts], "other": ["x" * 1000] * 100})
    parquet.write_table(table, path, row_group_size=10, use_dictionary=False)
    found = read(path, 1500, "a.b")
    assert joined(found) == texts and 4 <= len(found) <= 8
    assert len(read(path, 1, "a.b")) == 10
    with pytest.raises(ValueError, match="has no column text"):
        read(path, 1000)
