"""The user's own files, good and hostile: lm/corpora/files.py."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from lm.config import FilesConfig, ShardsConfig
from lm.corpora import base, files
from lm.corpora.formats import FORMATS
from lm.launch.named_corpus import named
from lm.system import devices, foreign, packed


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test works in an empty folder, with relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, data):
    """Write text or bytes, packed if the name ends in .gz."""
    data = data.encode() if isinstance(data, str) else data
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(gzip.compress(data) if path.lower().endswith(".gz") else data)


def read(path, **settings):
    return list(FilesConfig(path=path, **settings).build().documents())


# ---- which files


def test_a_text_file_is_one_document():
    put("a.txt", "one\n\ntwo\n")
    assert read("a.txt") == ["one\n\ntwo\n"]


@pytest.mark.parametrize("name", ["README.md", "noname", "UPPER.TXT", "a.jsonl.txt"])
def test_a_file_named_outright_is_text_whatever_its_suffix(name):
    put(name, '{"text": 1}')
    assert read(name) == ['{"text": 1}']


def test_a_folder_gives_its_texts_of_any_name_at_every_depth_sorted_by_path():
    """Of 18 .md, 2 .py and 1 .txt the one .txt was read, and nobody was told."""
    for name in ("b.txt", "a/z.md", "c.txt.gz", "B.TXT", "a/b/c/d.py", "NAME", "n.tex.gz"):
        put(f"in/{name}", name)
    for name in ("x.tar.gz", "x.json", "x.csv", "x.pdf", ".hidden.txt", ".git/x.txt"):
        put(f"in/{name}", "not this")
    Path("in/x.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    put("in/e.jsonl", '{"text": "e"}')
    put("in/f.jsonl.gz", '{"text": "f"}')
    assert read("in") == [
        *("B.TXT", "NAME", "a/b/c/d.py", "a/z.md", "b.txt", "c.txt.gz", "e", "f", "n.tex.gz")
    ]


def test_what_is_read_in_a_folder_and_what_is_not_is_one_line(caplog):
    caplog.set_level("INFO")
    for i in range(18):
        put(f"notes/{i}.md", f"note {i}")
    put("notes/a.py", "pass")
    put("notes/b.json", "{}")
    for i in range(2):
        Path(f"notes/{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    FilesConfig(path="notes").build().source()
    assert caplog.messages == ["notes: read 19 files (18 .md, 1 .py), left out 3: 2 .png, 1 .json"]


def test_a_text_that_is_no_utf8_is_refused_in_a_folder_and_not_left_out():
    put("in/a.md", "a")
    Path("in/b.rst").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"in/b\.rst is not UTF-8"):
        read("in")


def test_a_pipe_of_any_name_in_a_folder_is_left_out_and_not_waited_for():
    put("in/a.md", "a")
    os.mkfifo("in/b.md")
    assert read("in") == ["a"]


def test_a_glob_gives_every_match_sorted_and_enters_folders_with_two_stars():
    for name in ("b.md", "a.md", "x/c.md", "d.txt"):
        put(name, name)
    assert read("*.md") == ["a.md", "b.md"]
    assert read("**/*.md") == ["a.md", "b.md", "x/c.md"]


def test_a_list_keeps_its_order_and_reads_no_file_twice():
    put("in/a.txt", "a")
    put("in/b.txt", "b")
    os.symlink("in/a.txt", "link.txt")
    assert read(["in/b.txt", "in", "./in/../in/a.txt", "link.txt", "in/*.txt"]) == ["b", "a"]


def test_a_name_with_brackets_spaces_and_accents_is_a_name_before_it_is_a_glob():
    put("d\u00e9j\u00e0 [v1] *.txt", "yes")
    assert read("d\u00e9j\u00e0 [v1] *.txt") == ["yes"]


def test_a_circle_of_links_ends(here):
    put("in/a.txt", "a")
    os.symlink(here / "in", "in/again")
    assert read("in") == ["a"]


def test_a_link_out_of_a_folder_is_followed_only_if_it_is_named(here):
    put("secret.txt", "a key")
    put("in/a.txt", "a")
    os.symlink(here / "in" / "a.txt", "in/b.txt")
    assert read("in") == ["a"]
    os.symlink(here / "secret.txt", "in/c.txt")
    with pytest.raises(ValueError, match=r"in/c\.txt leads out of in.*name it in corpus\.path"):
        read("in")
    assert read(["in/a.txt", "in/c.txt"]) == ["a", "a key"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("absent.txt", "corpus.path=absent.txt does not exist"),
        ("*.absent", r"corpus.path=\*.absent matches nothing"),
        (["a.txt", "absent"], "corpus.path=absent does not exist"),
        ("dangling.txt", "dangling.txt is a link to nothing"),
        ("folder_with_link", "link.txt is a link to nothing"),
    ],
)
def test_a_path_to_nothing_is_named(path, says):
    put("a.txt", "a")
    os.symlink("nowhere", "dangling.txt")
    os.mkdir("folder_with_link")
    os.symlink("nowhere", "folder_with_link/link.txt")
    with pytest.raises(FileNotFoundError, match=says):
        read(path)


def test_a_folder_without_texts_says_what_it_holds():
    put("in/a.json", "{}")
    put("in/b.pdf", "%PDF")
    says = r"corpus.path=in holds no text, only 1 \.json, 1 \.pdf; \.json is read where it is named"
    with pytest.raises(ValueError, match=says + r": corpus\.path='in/\*\.json'"):
        read("in")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("path", ["pipe.txt", "in", "in/*", "/dev/zero"])
def test_a_pipe_or_device_is_refused_and_not_waited_for(path):
    os.mkfifo("pipe.txt")
    os.mkdir("in")
    os.mkfifo("in/pipe.txt")
    with pytest.raises(ValueError, match="is not a plain file"):
        read(path)


# ---- bytes


def test_line_ends_nuls_and_a_missing_last_newline_stay_as_they_are():
    put("a.txt", b"one\r\ntwo\rthree\n\x00four")
    assert read("a.txt") == ["one\r\ntwo\rthree\n\x00four"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_byte_order_mark_is_dropped_at_the_start_only(name):
    put(name, b"\xef\xbb\xbfa\xef\xbb\xbf")
    assert read(name) == ["a\ufeff"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"caf\xe9", "a.txt is not UTF-8: byte 0xe9 at position 3"),
        ("a.txt", b"\xef\xbb\xbfcaf\xe9", "byte 0xe9 at position 6"),
        ("a.txt.gz", b"x" * 2_000_000 + b"\xff", "byte 0xff at position 2,000,000"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', "byte 0xe9 at position 24"),
        ("a.txt", b"\xed\xa0\x80", "byte 0xed at position 0"),  # a surrogate
        ("a.txt", b"abc\xf0\x9f", "byte 0xf0 at position 3"),  # cut off
    ],
)
def test_invalid_utf8_is_refused_with_its_position_and_the_way_out(name, data, says):
    put(name, data)
    with pytest.raises(ValueError, match=f"{says}.*corpus.errors=replace"):
        read(name)


def test_utf16_is_recognised():
    put("a.txt", "hello".encode("utf-16"))
    with pytest.raises(ValueError, match=r"position 0; it looks like UTF-16.*iconv"):
        read("a.txt")


def test_errors_replace_puts_the_replacement_character():
    put("a.txt", b"caf\xe9!")
    put("b.jsonl", b'{"text": "\xe9 \\ud800"}')
    assert read(["a.txt", "b.jsonl"], errors="replace") == ["caf\ufffd!", "\ufffd \ufffd"]


def test_an_empty_file_is_no_document_of_the_split():
    put("in/a.txt", "")
    put("in/b.jsonl", "\n\n")
    put("in/c.txt.gz", "")
    put("in/d.txt", b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match="corpus files holds no text"):
        base.split(read("in"), 0.1, "files")


@pytest.mark.slow
def test_a_hundred_megabytes_without_a_newline_take_a_small_multiple_of_memory():
    size = 100 << 20
    with open("big.txt", "wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    (text,) = read("big.txt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(text) == size
    assert peak < 3 * size


# ---- .jsonl


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jsonl.gz"])
def test_each_line_is_a_document_and_blank_lines_are_none(name):
    put(name, '\ufeff{"text": "one"}\r\n\n  \n{"id": 2, "text": "two\\n\\ud83d\\ude00"}')
    assert read(name) == ["one", "two\n\U0001f600"]


def test_the_field_is_chosen_by_its_name():
    put("a.jsonl", '{"text": "no", "body": "yes"}')
    assert read("a.jsonl", field="body") == ["yes"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON"),
        ("plain words", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 10_000, "is not JSON"),
        ("[1]", "no field text holds text"),
        ("null", "no field text holds text"),
        ('{"title": "x", "body": "y", "n": 1}', "fields of text are title, body: rename one"),
        ('{"body": "y"}', "or have lm.train read it with corpus.field"),
        ('{"text": 3}', "no field text holds text; there is none that does"),
        ('{"text": null}', "no field text holds text"),
        ('{"text": "\\ud800"}', r"\\ud800 is half a character.*corpus.errors=replace"),
        (json.dumps({"k" * 10_000: "x"}), "fields of text are k+: "),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_one_short_line(line, says):
    put("a.jsonl", '{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"a.jsonl, line 3.*{says}") as error:
        read("a.jsonl")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_documents_before_a_bad_line_were_streamed():
    put("a.jsonl", '{"text": "good"}\n{')
    documents = FilesConfig(path="a.jsonl").build().documents()
    assert next(documents) == "good"


# ---- .gz


@pytest.mark.parametrize(
    "packed",
    [
        b"this was never packed",
        gzip.compress(b"text " * 1000)[:-12],
        gzip.compress(b"text " * 1000)[:-4] + b"\0\0\0\0",
        gzip.compress(b"text") + b"something else",
        gzip.compress(b"text " * 1000)[:20] + b"\xff" * 20,
    ],
    ids=["no gzip", "cut", "wrong length", "something behind", "bad blocks"],
)
def test_a_damaged_gz_is_named(here, packed):
    (here / "a.txt.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"a\.txt\.gz is not an intact \.gz file"):
        read("a.txt.gz")


def test_a_gz_in_several_members_is_read_to_its_end(here):
    (here / "a.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    assert read("a.txt.gz") == ["one two"]


@pytest.mark.parametrize("name", ["bomb.txt.gz", "bomb.jsonl.gz"])
def test_a_gzip_bomb_is_stopped_at_the_limit(monkeypatch, name):
    monkeypatch.setattr(packed, "MAX_SMALL", 1 << 20)
    put(name, b" " * (64 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name} unpacks to more than .* gunzip"):
        read(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_well_packed_but_honest_gz_is_read():
    put("a.txt.gz", "the same line\n" * 100_000)  # 300 times smaller, but small
    assert len(read("a.txt.gz")[0]) == 1_400_000


# ---- source


def test_source_changes_with_content_and_settings_but_not_with_the_place():
    def source(path, **settings):
        return FilesConfig(path=path, **settings).build().source()

    put("x/a.txt", "one")
    put("y/a.txt", "one")
    put("z/a.txt", "two")
    assert source("x") == source("y/*") == source("x/a.txt")
    different = [source("x"), source("z"), source("x", errors="replace"), source("x", field="f")]
    assert len({json.dumps(s) for s in different}) == 4


# ---- what programs wrote

GENERATED = {
    "run": ("outputs/runs/a/b/config.resolved.yaml", "outputs/runs/a/b/samples.jsonl"),
    "run elsewhere": ("my/run/config.resolved.yaml", "my/run/samples.jsonl"),
    "cache": ("outputs/cache/corpora-0123456789abcdef/manifest.json",
              "outputs/cache/corpora-0123456789abcdef/train.jsonl"),
    "cache elsewhere": ("c/tokens-0123456789abcdef/manifest.json", "c/downloads/names.txt"),
    "cache folder alone": ("stage/corpus.json", "stage/manifest.json", "stage/val.jsonl"),
    "cache of shards": ("sh/shards-0123456789abcdef/part.txt",),
    "search": ("s/study.json", "s/trials.jsonl"),
    "W&B": ("w/offline-run-20261128_120000-a1b2/x.wandb",
            "w/offline-run-20261128_120000-a1b2/files/requirements.txt"),
    "environment": ("env/pyvenv.cfg", "env/lib/notes.txt"),
    "conda": ("c2/conda-meta/history", "c2/share/doc.txt"),
    "packages": ("site-packages/x/LICENSE.txt", "x.egg-info/SOURCES.txt", "y.dist-info/top.txt"),
    "marked cache": ("t/CACHEDIR.TAG", "t/x.txt"),
    "node": ("web/node_modules/x/readme.txt",),
    "Hydra's": ("h/.hydra/config.yaml", "h/notes.txt"),
    "export": ("e1/manifest.json", "e1/tokenizer.json", "e1/README.md"),
    "export for tiktoken": ("e2/manifest.json", "e2/ranks.tiktoken", "e2/README.md"),
}  # fmt: skip


@pytest.mark.parametrize("path", [".", "*", "**/*.txt", "**/*.jsonl", "**"])
def test_what_programs_wrote_is_no_part_of_a_corpus(path):
    put("a.txt", "a")
    put("my/b.txt", "b")
    put("my/c.jsonl", '{"text": "c"}')
    put("my/trials.jsonl", '{"text": "t"}')  # an ordinary name
    before = FilesConfig(path=path).build().source()
    for names in GENERATED.values():
        for name in names:
            put(name, '{"text": "a program wrote this"}')
    os.symlink("c/downloads/names.txt", "link.txt")
    assert FilesConfig(path=path).build().source() == before
    assert not {"a program wrote this", '{"text": "a program wrote this"}'} & set(read(path))


def ours(name):
    """Write one of the files that a command of lm puts where its out= says, as text."""
    from lm import lens, report, tokenizers
    from lm.report import figures

    if name == "plot.svg":
        line = figures.Line("a", [([0, 10], [4.0, 2.0])])
        figures.curves([figures.Panel("a", [line], {"a": 1.0})], Path(name))
    elif name == "book.txt":
        tokenizers.train("bpe", ["ab " * 99], vocab_size=259).save(name)
    elif name == "my.journal":
        optuna = pytest.importorskip("optuna")
        backend = optuna.storages.journal.JournalFileBackend(name)
        optuna.create_study(storage=optuna.storages.JournalStorage(backend))
        Path(f"{name}.lock").unlink(missing_ok=True)
    else:
        package = lens if name == "lens.html" else report
        page = Path(package.__file__).parent / "web" / name
        put(name, page.read_text().replace("{{refresh}}", '<meta http-equiv="refresh">'))


@pytest.mark.parametrize("path", [".", "*", "**"])
@pytest.mark.parametrize("name", ["lens.html", "report.html", "plot.svg", "book.txt", "my.journal"])
def test_a_file_of_ours_in_the_folder_of_a_corpus_is_no_part_of_it(name, path):
    """lm.lens writes lens.html where it is called, and the next run took it for a text."""
    put("a.txt", "a")
    put("b.html", "<!doctype html>\n<title>lens</title>")  # of somebody else
    before = FilesConfig(path=path).build().source()
    ours(name)
    assert FilesConfig(path=path).build().source() == before
    assert len(read(name)) == 1  # named outright, it is a text


def test_compiled_code_in_an_earlier_cache_is_no_part_of_a_corpus(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "earlier"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    devices.keep_compiled_code()
    (tmp_path / "earlier/compiled/kernel.py").write_text("a kernel")
    (tmp_path / "book.txt").write_text("a book")
    monkeypatch.delenv("LM_CACHE_DIR")
    assert read(".") == ["a book"]


def test_a_file_that_is_named_outright_is_read_wherever_it_lies():
    put("outputs/runs/a/b/config.resolved.yaml", "")
    put("outputs/runs/a/b/samples.jsonl", '{"text": "a sample"}')
    put("env/pyvenv.cfg", "")
    put("env/lib/notes.txt", "notes")
    assert read("outputs/runs/a/b/samples.jsonl") == ["a sample"]
    assert read("env/lib") == read("env/lib/*.txt") == ["notes"]
    with pytest.raises(ValueError, match="outputs/runs/a/b is lm's own run, not a text"):
        read("outputs/runs/a/b")
    with pytest.raises(ValueError, match=r"holds no .* besides outputs/runs/a/b \(lm's own run\)"):
        read("outputs")


# ---- .json, .ndjson, .csv

RECORDS = '[{"text": "one"},\n {"text": "two", "n": 2}\n]\n'


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.json", RECORDS, ["one", "two"]),
        ("a.JSON", "\ufeff" + RECORDS, ["one", "two"]),
        ("a.json.gz", RECORDS, ["one", "two"]),
        ("a.jsonl", RECORDS, ["one", "two"]),  # an array by another name
        ("a.jsonl", "\n \n" + RECORDS, ["one", "two"]),
        ("a.json", '{"text": "one"}', ["one"]),
        ("a.json", '{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ("a.json", '["one", "two"]', ["one", "two"]),
        ("a.json", "[]", []),
        ("a.json", " \n", []),
        ("a.ndjson", '{"text": "one"}\n{"text": "two"}', ["one", "two"]),
        ("a.ndjson.gz", '"one"\n"two"', ["one", "two"]),
        ("a.csv", "id,text\n1,one\n2,\"two,\nand more\"\n", ["one", "two,\nand more"]),
        ("a.csv", "\ufefftext;id\r\none;1\r\n\r\ntwo;2\r\n", ["one", "two"]),
        ("a.tsv", "id\ttext\n1\tone, two", ["one, two"]),
        ("a.csv.gz", "text\none", ["one"]),
        ("a.csv", "id;text\r1;one\r2;two\r", ["one", "two"]),  # a traceback; found by fuzzing
        ("a.csv", "text\n" + "x" * 300_000, ["x" * 300_000]),
        ("a.csv", "", []),
    ],
)  # fmt: skip
def test_records_are_read_by_their_format_and_not_as_raw_text(name, data, texts):
    put(name, data)
    if data:
        assert read(name) == texts
    else:
        with pytest.raises(ValueError, match="has no column text"):
            read(name)


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"a": {"b": "in"}}, ["in"]),
        ({"a.b": "flat"}, ["flat"]),
        ({"a.b": "flat", "a": {"b": "in"}}, ["flat"]),
        ({"a": {"b": {"c": 1}}}, "no field a.b holds text; there is none that does"),
        ({"a": {"x": "t", "y": {"z": "t"}}}, "fields of text are a.x, a.y.z"),
        ({"a": "t"}, "no field a.b holds text; fields of text are a"),
        ({"a": [{"b": "t"}]}, "no field a.b holds text"),
        (["a", "b"], "no field a.b holds text"),
        (7, "no field a.b holds text"),
    ],
)
def test_a_dotted_field_is_one_inside_another(record, texts):
    put("a.json", json.dumps([record]))
    if isinstance(texts, list):
        assert read("a.json", field="a.b") == texts
    else:
        with pytest.raises(ValueError, match=f"a.json, value 1: .*{texts}"):
            read("a.json", field="a.b")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.json", '[{"text": "one"}', "its array does not end with the file"),
        ("a.json", '[{"text": "one"}] x', "its array does not end with the file"),
        ("a.json", '[{"text": "one"} {"text": "two"}]', "value 2 is not JSON: no comma"),
        ("a.json", '[{"text": "one"},]', "value 2 is not JSON"),
        ("a.json", "plain words", "value 1 is not JSON"),
        ("a.json", "[" * 100_000, "value 1 is not JSON"),
        ("a.json", "9" * 10_000, "value 1 is not JSON"),
        ("a.json", '[{"text": "\\ud800"}]', "value 1: .*half a character"),
        ("a.json", b'[{"text": "\xe9"}]', "byte 0xe9 at position 11"),
        ("a.jsonl", '["a"]\n["b"]', "its array does not end with the file"),
        ("a.csv", "a,b\n1,2", "has no column text: its first row is a, b; give corpus.field"),
        ("a.csv", "id,text\n1", "line 2: the row has 1 columns, and text is number 2"),
        ("a.arrow", "ARROW1", "a file of this kind is not read: convert it to .jsonl"),
        ("a.parquet", "PAR1", "is not an intact .parquet file"),
        ("a.txt.zst", "x", "is not an intact .zst file"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
    ],
)
def test_records_that_cannot_be_read_are_named_in_one_line(name, data, says):
    put(name, data)
    corpus = FilesConfig(path=name).build()
    with pytest.raises(ValueError, match=f"{name}.*{says}") as error:
        (corpus.source(), list(corpus.documents()))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_the_fingerprint_of_an_old_format_stays_and_that_of_a_new_one_says_so():
    for name in ("a.txt", "b.jsonl", "c.md", "d.csv"):
        put(name, '{"text": "x"}')
    rules = [
        FilesConfig(path=name).build().source()["rules"] for name in ("a.txt", "b.jsonl", "c.md")
    ]
    assert rules == [1, 1, 1]
    assert FilesConfig(path="d.csv").build().source()["rules"] == 2


@pytest.mark.parametrize("config", [FilesConfig, ShardsConfig])
def test_raised_rules_of_any_format_change_the_fingerprint_of_a_corpus_that_has_it(
    config, monkeypatch
):
    """The highest rules alone were in it: beside a .parquet file those of others did not count."""
    for name in ("a.parquet", "b.jsonl", "c.txt"):
        put(name, '{"text": "x"}')

    def sources():
        paths = (["a.parquet", "b.jsonl"], ["a.parquet", "c.txt"])
        return [config(path=path).build().source() for path in paths]

    before = sources()
    monkeypatch.setitem(FORMATS, ".jsonl", FORMATS[".jsonl"]._replace(rules=2))
    after = sources()
    assert after[0] != before[0] and after[1] == before[1]


# ---- what a person names that is no text

FOREIGN = {  # name: what makes it, and what the one line says
    "a pipe.txt": (os.mkfifo, "is not a plain file"),
    "a link.txt": (lambda path: os.symlink("nowhere", path), "nor a file that exists"),
    "zero.txt": (lambda path: os.symlink("/dev/zero", path), "is not a plain file"),
    "random.txt": (lambda path: put(path, b"\x93\xff\x00\x9c"), "is not UTF-8"),
    "random.xyz": (lambda path: put(path, b"\x93\xff\x00\x9c"), "is not UTF-8"),
    "nul.jsonl": (lambda path: put(path, bytes(5000)), "line 1 is not JSON"),
    "nul.json": (lambda path: put(path, bytes(5000)), "value 1 is not JSON"),
    "nul.csv": (lambda path: put(path, bytes(5000)), "has no column text"),
    "empty.csv": (lambda path: put(path, b""), "has no column text"),
    "huge.txt": (lambda path: sparse(path), "has 4,398,046,511,104 bytes and is read at once"),
    "huge.json": (lambda path: sparse(path), "has 4,398,046,511,104 bytes and is read at once"),
    "huge.csv": (lambda path: sparse(path), "has 4,398,046,511,104 bytes and is read at once"),
    "a folder": (os.mkdir, "holds no text"),
}


def sparse(path):
    put(path, b"")
    os.truncate(path, 1 << 42)


def texts_of_train_also(name):
    corpus = named(name, FilesConfig(path="own.txt"), "train.also").build()
    corpus.source()
    return list(corpus.documents())


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_text_is_one_line_in_train_also_too(name):
    make, says = FOREIGN[name]
    make(name)
    with pytest.raises((ValueError, OSError), match=says) as refused:
        texts_of_train_also(name)
    assert "\n" not in str(refused.value) and name in str(refused.value)


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl", "empty.md"])
def test_an_empty_file_has_no_text_to_divide(name):
    put(name, b"")
    with pytest.raises(ValueError, match="corpus own holds no text"):
        base.split(named(name, FilesConfig(path="own.txt")).build().documents(), 0.1, "own")


def test_a_line_of_records_has_a_longest_length(monkeypatch):
    put("a.jsonl", b"\n" + bytes(5000))
    monkeypatch.setattr(foreign, "MAX_TEXT", 4096)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 has over 4,096 bytes: part its text"):
        read("a.jsonl")


def test_a_name_that_begins_like_a_user_s_home_is_a_name():
    """It was a traceback: there is no user called so."""
    Path("~nobody_here.txt").write_text("some text")
    assert list(files.Files(FilesConfig(path="~nobody_here.txt")).documents()) == ["some text"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        files.Files(FilesConfig(path="~nobody_else.txt")).paths()


def test_the_picture_of_a_report_is_no_text_of_a_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(17) + b"\0\0\0\x0btEXtSoftware\0lm"
    (tmp_path / "curves.png").write_bytes(head + bytes(9))
    found = files.Files(FilesConfig(path=f"{tmp_path}/*")).paths()
    assert [path.name for path in found] == ["a.txt"]
