"""The command lm.tokenizer, run as a user runs it: files in, files and standard output out."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lm import tokenizers
from lm.launch import cli
from lm.system.errors import ConfigError
from lm.tokenizer import ACTIONS

ROOT = Path(__file__).parent.parent
TEXT = "The cat sat on the mat.\r\nThe  cats\tsat;\n\n\u4e2d\U0001f600 <|endoftext|> 12345\n" * 20


def tokenizer(*words: str, stdin: bytes = b"", cwd: Path, code: int = 0) -> tuple[bytes, str]:
    """Standard output and error of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "lm.tokenizer", *words],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"},
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout, done.stderr.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    (folder / "a.txt").write_bytes(TEXT.encode())
    (folder / "empty.txt").touch()
    (folder / "latin-1.txt").write_bytes(b"ol\xe9")
    tokenizers.train("bpe", [TEXT], vocab_size=280).save(folder / "tokenizer.json")
    return folder


@pytest.mark.slow
def test_training_from_a_file_and_from_standard_input_is_the_same(folder):
    _, log = tokenizer("train", "path=a.txt", "vocab_size=280", "out=file.json", cwd=folder)
    assert "no multiple of 64" in log
    tokenizer("train", "vocab_size=280", "out=pipe.json", stdin=TEXT.encode(), cwd=folder)
    expected = (folder / "tokenizer.json").read_bytes()
    assert (folder / "file.json").read_bytes() == (folder / "pipe.json").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "raw"])
def test_encode_then_decode_gives_the_bytes_back(folder, form):
    ids, _ = tokenizer("encode", f"format={form}", stdin=TEXT.encode(), cwd=folder)
    ours = tokenizers.load(folder / "tokenizer.json")
    numbers = np.frombuffer(ids, np.uint16) if form == "raw" else np.array(ids.split(), int)
    assert numbers.tolist() == ours.encode_ordinary(TEXT)
    text, _ = tokenizer("decode", f"format={form}", stdin=ids, cwd=folder)
    assert text == TEXT.encode()


@pytest.mark.slow
def test_encode_takes_specials_only_where_allowed(folder):
    ours = tokenizers.load(folder / "tokenizer.json")
    ids, _ = tokenizer("encode", "path=a.txt", "allow_special=true", cwd=folder)
    assert list(map(int, ids.split())) == ours.encode(TEXT, "all")


@pytest.mark.slow
def test_show_prints_the_tokens_and_how_the_vocabulary_is_used(folder):
    out, _ = tokenizer("show", "text=The cats sat \x1b[31m", cwd=folder)
    assert b"\x1b" not in out
    assert "bytes per token" in out.decode()
    assert "never:" in out.decode()


@pytest.mark.slow
def test_compare_puts_tokenizers_side_by_side(folder):
    words = ("compare", "tokenizers=tokenizer.json,byte", "path=a.txt")
    lines = tokenizer(*words, cwd=folder)[0].decode().splitlines()
    rows = {name: line for line in lines for name in ("tokenizer.json", " byte ") if name in line}
    assert "1.000" in rows[" byte "]
    assert "1.000" not in rows["tokenizer.json"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["explode"], "explode is not one of train, encode"),
        (["train", "path=none.txt"], "none.txt"),
        (["train", "vocab_size=5", "path=a.txt"], "below 257"),
        (["train", "nmae=bpe"], "nmae"),
        (["train", "path=empty.txt", "out=b.txt"], "holds no text to train on"),
        (["encode", "tokenizer=none.json"], "none.json"),
        (["encode", "tokenizer=a.txt"], "not JSON"),
        (["decode", "path=a.txt", "out=b.txt"], "is not an id"),
        (["encode", "path=latin-1.txt", "out=b.txt"], "latin-1.txt is not UTF-8 (byte 0xe9)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, words, reason):
    _, errors = tokenizer(*words, cwd=folder, code=2)
    assert reason in errors
    assert len(errors.strip().splitlines()) == 1
    assert not list(folder.glob("b.txt*"))


@pytest.mark.parametrize("action", ["show", "compare"])
def test_an_argument_that_is_no_text_is_told_with_its_place(action):
    """Bytes of an argument that are not UTF-8 are lone surrogates in Python."""
    settings, command = ACTIONS[action]
    cfg = cli.parse(settings, [f"tokenizer{'s' * (action == 'compare')}=byte", "text=ab\udcff"])
    with pytest.raises(ValueError, match=r"U\+DCFF at offset 2, .*: repair the text"):
        command(cfg)


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(folder):
    (folder / "long.txt").write_bytes(TEXT.encode() * 500)
    command = [sys.executable, "-m", "lm.tokenizer", "encode", "path=long.txt"]
    env, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.slow
def test_help_lists_the_actions_and_their_settings(folder):
    assert b"tokenizer compare" in tokenizer("--help", cwd=folder)[0]
    assert b"vocab_size=1024" in tokenizer("train", "--help", cwd=folder)[0]


def run(action, *words):
    settings, command = ACTIONS[action]
    command(cli.parse(settings, words))


def test_a_tokenizer_that_cannot_read_a_text_has_a_row_that_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizers.CharTokenizer("abc").save("[red]abc.json")
    run("compare", "tokenizers=[red]abc.json,byte", "text=ab\u00e9")
    out = capsys.readouterr().out
    rows = {name: line for line in out.splitlines() for name in ("[red]abc.json", " byte ")
            if name in line and not line.startswith("[red]")}  # fmt: skip
    assert "cannot read it" in rows["[red]abc.json"] and "4" in rows[" byte "]
    assert "[red]abc.json: '\u00e9' (U+00E9) at offset 2 is none of the 3 characters" in out
    with pytest.raises(ValueError, match="at offset 2 is none of the 3"):
        run("compare", "tokenizers=[red]abc.json", "text=ab\u00e9")


def test_a_packed_text_is_unpacked_for_every_action(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(TEXT.encode())
    Path("a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    for name in ("a.txt", "a.txt.gz"):
        run("encode", "tokenizer=byte", f"path={name}", f"out={name}.ids")
    assert Path("a.txt.gz.ids").read_bytes() == Path("a.txt.ids").read_bytes()
    Path("ids.gz").write_bytes(gzip.compress(Path("a.txt.ids").read_bytes()))
    run("decode", "tokenizer=byte", "path=ids.gz", "out=back.txt")
    assert Path("back.txt").read_bytes() == TEXT.encode()
    run("compare", "tokenizers=byte", "path=a.txt.gz")
    assert f"{len(TEXT.encode()):,}" in capsys.readouterr().out
    Path("cut.gz").write_bytes(gzip.compress(TEXT.encode())[:-12])
    with pytest.raises(ValueError, match=r"cut\.gz is not an intact \.gz file"):
        run("encode", "tokenizer=byte", "path=cut.gz", "out=cut.ids")
    assert not list(tmp_path.glob("cut.ids*"))


def test_a_tokenizer_is_written_to_standard_output_where_out_is_a_dash(tmp_path, capfdbinary):
    """It was written to a file called "-"."""
    (tmp_path / "a.txt").write_text(TEXT)
    run("train", f"path={tmp_path / 'a.txt'}", "name=char", "out=-")
    made = tokenizers.from_json(capfdbinary.readouterr().out.decode())
    assert made.decode(made.encode_ordinary("The cat")) == "The cat"
    assert not Path("-").exists()


def test_training_replaces_no_file_that_is_no_tokenizer_of_ours(tmp_path):
    """`lm.tokenizer train` in a Hugging Face folder overwrote its tokenizer.json."""
    text = tmp_path / "a.txt"
    text.write_text(TEXT)
    cls, train = ACTIONS["train"]
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(ConfigError, match=r"tokenizer\.json is there, and is no tokenizer of lm"):
        train(cls(path=str(text), name="byte"))
    assert (tmp_path / "tokenizer.json").read_text() == '{"model": {"type": "BPE"}}'
    (tmp_path / "tokenizer.json").unlink()
    for name in ("byte", "char"):
        train(cls(path=str(text), name=name))
    assert tokenizers.load("tokenizer.json").name == "char"


@pytest.mark.parametrize("action", ["encode", "decode"])
def test_a_file_that_is_there_is_replaced_only_if_a_word_says_so(action, tmp_path):
    """Ids and text have no mark of lm's: a user's thesis.txt was overwritten without a word."""
    settings, command = ACTIONS[action]
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    (tmp_path / "in.txt").write_text("65 66")
    words = ["tokenizer=byte", f"path={tmp_path / 'in.txt'}", f"out={mine}"]
    with pytest.raises(ConfigError, match=r"thesis\.txt is there, and may be somebody's own"):
        command(cli.parse(settings, words))
    assert mine.read_text() == "years of work" and len(list(tmp_path.iterdir())) == 2
    command(cli.parse(settings, [*words, "overwrite=true"]))
    assert mine.read_text() == {"encode": "54 53 32 54 54\n", "decode": "AB"}[action]
    mine.write_text("")  # as mktemp leaves it
    command(cli.parse(settings, words))
    assert mine.read_text()
