"""lm-tokenizer, the command of the tokenizers alone."""

import dataclasses
import io
import sys

import pytest

from lm import tokenizers
from lm.settings import commands
from lm.tokenizers import command


@pytest.mark.parametrize("action", command.ACTIONS)
def test_its_words_and_defaults_are_those_of_lm_tokenizer(action):
    _, words = command.ACTIONS[action]
    settings = dataclasses.asdict(commands.COMMANDS[f"tokenizer {action}"]())
    same = [key for key in words if key != "text"]
    shown = {True: "true", False: "false"}
    assert {key: shown.get(settings[key], str(settings[key])) for key in same} == {
        key: words[key] for key in same
    }


def test_what_it_trained_encodes_and_decodes_to_the_same_bytes(toy_text, tmp_path):
    command.run(["train", f"path={toy_text}", "vocab_size=300", "out=t.json"])
    command.run(["encode", "tokenizer=t.json", f"path={toy_text}", "out=ids"])
    command.run(["encode", "tokenizer=t.json", f"path={toy_text}", "out=ids", "overwrite=true"])
    command.run(["decode", "tokenizer=t.json", "path=ids", "out=again.txt"])
    assert (tmp_path / "again.txt").read_bytes() == toy_text.read_bytes()
    text = toy_text.read_text()
    trained = tokenizers.train("bpe", [text], vocab_size=300)
    assert tokenizers.load("t.json").to_json() == trained.to_json()


def test_a_tilde_is_the_home_folder(toy_bpe, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    toy_bpe.save(tmp_path / "there/t.json")
    (tmp_path / "there/text").write_text("said the cat")
    command.run(["encode", "tokenizer=~/there/t.json", "path=~/there/text", "out=~/there/ids"])
    ids = (tmp_path / "there/ids").read_text().split()
    assert list(map(int, ids)) == toy_bpe.encode("said the cat")


def test_show_puts_a_bar_between_tokens(toy_bpe, capsys):
    toy_bpe.save("t.json")
    command.run(["show", "tokenizer=t.json", "text=said the cat"])
    line, counts = capsys.readouterr().out.splitlines()
    assert line.replace("|", "") == "said the cat"
    assert counts == f"12 bytes, {line.count('|') + 1} tokens"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give one of train, encode, decode, show"),
        ("frob", "frob is not one of train"),
        ("train vocab=3", "vocab=3 is not one of train's words"),
        ("train path", "path is not one of train's words"),
        ("train path=text vocab_size=many", "vocab_size=many is not a whole number"),
        ("train path=text vocab_size=3", "vocab_size=3 is below 257"),
        ("train path=empty", "path=empty is empty"),
        ("train path=nowhere", "nowhere"),
        ("train path=text out=text", "out=text is there, and is no tokenizer"),
        ("train path=text name=wordpiece", "'wordpiece' is not one of char, byte, bpe"),
        ("encode tokenizer=nowhere", "no tokenizer file nowhere"),
        ("encode tokenizer=t path=large out=text", "out=text is there, and may be somebody's own"),
        ("decode tokenizer=t path=large out=text", "or give overwrite=true"),
        ("encode tokenizer=t path=large out=text overwrite=yes", "give true or false"),
        ("decode tokenizer=t path=text", "is not an id: give numbers"),
        ("decode tokenizer=t path=large", "99999"),
        ("show tokenizer=text", "text"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_changes_no_file(
    words, says, monkeypatch, capsys, tmp_path
):
    (tmp_path / "text").write_text("Somebody's own text.")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_text("1 99999")
    tokenizers.ByteTokenizer().save("t")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "argv", ["lm-tokenizer", *words.split()])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and says in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_help_shows_every_action_and_word(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lm-tokenizer", "--help"])
    command.main()
    said = capsys.readouterr().out
    for name, (_, words) in command.ACTIONS.items():
        assert f"{name}: " in said and all(f"{key}=" in said for key in words)


def test_text_comes_from_standard_input(monkeypatch, toy_bpe, tmp_path):
    toy_bpe.save("t.json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"said the cat\r\n")))
    command.run(["encode", "tokenizer=t.json", "out=ids"])
    ids = [int(word) for word in (tmp_path / "ids").read_text().split()]
    assert ids == toy_bpe.encode("said the cat\r\n")
