"""Columns of .parquet files, and text packed by zstandard: lm/corpora/parquet.py."""

import sys

import pytest

from lm.config import FilesConfig
from lm.system import packed
from lm.system.errors import ConfigError

pa = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")
from pyarrow import parquet as pq  # noqa: E402


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, columns, **settings):
    pq.write_table(pa.table(columns), name, **settings)


def read(path, **settings):
    return list(FilesConfig(path=path, **settings).build().documents())


TEXTS = ["one", "", "zwei \u00fc", "\u4e09\nlines"] * 100


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_row_is_a_document(compression, kind):
    column = pa.array(TEXTS).cast(kind)
    columns = {"id": list(range(400)), "text": column}
    write("a.parquet", columns, compression=compression, row_group_size=150)
    assert read("a.parquet") == TEXTS


def test_a_nested_field_is_named_with_a_dot():
    write("a.parquet", {"meta": [{"body": "x", "n": 1}, {"body": "y", "n": 2}], "n": [1, 2]})
    assert read("a.parquet", field="meta.body") == ["x", "y"]


def test_shards_in_a_folder_are_read_in_order(tmp_path):
    (tmp_path / "in").mkdir()
    write("in/part-1.parquet", {"text": ["c"]})
    write("in/part-0.parquet", {"text": ["a", "b"]})
    assert read("in") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "field", "says"),
    [
        ({"body": ["x"]}, "text", "has no column text: its columns are body; give corpus.field"),
        ({"text": [1]}, "text", "row 1: no field text holds text"),
        ({"text": ["a", None]}, "text", "row 2: no field text holds text"),
        ({"a": [{"b": "x"}]}, "a.c", "has no column a.c: its columns are a.b"),
        ({"a": [{"b": "x"}]}, "a", "row 1: no field a holds text"),
    ],
)
def test_a_file_without_the_text_is_refused_in_one_line(columns, field, says):
    write("a.parquet", columns)
    with pytest.raises(ValueError, match=f"^a.parquet.*{says}") as error:
        read("a.parquet", field=field)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    write("whole.parquet", {"text": TEXTS}, compression="zstd")
    data = (tmp_path / "whole.parquet").read_bytes()
    assert read("whole.parquet") == TEXTS
    damaged = [data[:cut] for cut in (0, 4, len(data) // 2, len(data) - 1)]
    damaged += [data[: len(data) // 3] + b"\xff" * 40 + data[len(data) // 3 + 40 :]]
    for content in damaged:
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"^a\.parquet") as error:
            read("a.parquet")
        assert "\n" not in str(error.value)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    write("a.parquet", {"text": ["x" * 1000] * 5000}, use_dictionary=False, compression="zstd")
    monkeypatch.setattr(packed, "MAX_SMALL", 1 << 20)
    with pytest.raises(
        ValueError, match=r"^a\.parquet has a group of rows of 5,0\d\d,\d\d\d bytes"
    ):
        read("a.parquet")


def test_zstandard_is_read_like_gzip(tmp_path, monkeypatch):
    lines = "".join(f'{{"text": "{i}"}}\n' for i in range(2000)).encode()
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "a.jsonl.zst").write_bytes(pack(lines[:9000]) + pack(lines[9000:]))  # two frames
    assert read("a.jsonl.zst") == [str(i) for i in range(2000)]
    for cut in (0, 3, 20, len(pack(lines)) - 20, len(pack(lines)) - 1):
        (tmp_path / "a.jsonl.zst").write_bytes(pack(lines)[:cut])
        with pytest.raises(ValueError, match=r"a\.jsonl\.zst is not an intact .zst file: it ends"):
            read("a.jsonl.zst")
    monkeypatch.setattr(packed, "MAX_SMALL", 1 << 20)
    (tmp_path / "b.txt.zst").write_bytes(pack(bytes(1 << 23)))
    with pytest.raises(ValueError, match=r"b\.txt\.zst unpacks to more .* unpack it with unzstd"):
        read("b.txt.zst")


@pytest.mark.parametrize(("module", "name"), [("pyarrow", "a.parquet"), ("zstandard", "a.txt.zst")])
def test_a_missing_extra_is_one_line_with_the_command(module, name, tmp_path, monkeypatch):
    write("a.parquet", {"text": ["x"]})
    (tmp_path / "a.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(b"x"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"^{name}: .* needs {module}: pip install {module}"):
        read(name)
