"""Text that a terminal can be shown, and words that a shell takes."""

import io
import os
import subprocess
import sys

import pytest

from lm.launch import cli
from lm.settings.commands import SampleConfig
from lm.system import text as texts
from lm.system.text import printable, shell_word, unfit

WORDS = ["run=outputs/a", "run=a b", "it's", '"q"', "$HOME `x` \\ !", "кот"]
WORDS += ["a\nb", "\x1b[2J'", "\u202ex"]


@pytest.mark.parametrize("name", WORDS)
def test_a_printed_word_means_itself_when_it_is_pasted_into_a_shell(name):
    word = shell_word(name)
    assert word == printable(word) and "\n" not in word
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout.decode() == name


@pytest.mark.parametrize("name", [*WORDS, "caf\u00e9's (1).txt"])
def test_a_word_printed_in_ascii_means_itself_when_it_is_pasted(name, monkeypatch):
    """PYTHONIOENCODING=ascii: run=caf\u00e9 was printed as run=caf\\xe9, which is no run."""
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    word = shell_word(name)
    assert word.isascii()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout.decode() == name


def test_no_character_that_drives_a_terminal_or_turns_a_line_is_shown():
    text = "a\x1b]0;b\x07\x9bc\u202ed\u2066e\u200ff\u2028g\r"
    assert printable(text) == "a\ufffd]0;b\ufffd\ufffdc\ufffdd\ufffde\ufffdf\ufffdg\ufffd"
    assert printable("tabs\tand\nlines, é and 猫") == "tabs\tand\nlines, é and 猫"


def test_no_character_that_cannot_be_seen_hides_in_a_name():
    """Two names that differed in a blank of no width looked like one."""
    hidden = "\u180e\u200b\u2060\u2064\ufeff\ufff9\U000e0001\U000e0041"
    assert printable(f"run{hidden}a") == "run" + "\ufffd" * len(hidden) + "a"
    words = "\u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469 \u2764\ufe0f"
    assert printable(words) == words


def test_a_text_typed_in_utf8_is_that_text_where_python_reads_words_as_ascii(tmp_path, monkeypatch):
    """LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0: prompt=Grüße was refused, for lone surrogates.

    A name of something that is there stays as it is, since only so is it found.
    """
    monkeypatch.setattr(texts.os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    as_read = "Grüße".encode().decode("ascii", "surrogateescape")
    run = f"{tmp_path}/run of {as_read}"
    os.mkdir(run)
    found = cli.parse(SampleConfig, [f"prompt={as_read}", f"run={run}"])
    assert found.prompt == "Grüße" and found.run == run
    (problem,) = unfit({"name": as_read}, "", lambda _: False)
    assert problem.endswith(": leave out PYTHONUTF8=0, by which Python cannot read it")


def test_a_text_that_is_not_utf8_is_not_guessed():
    latin = b"caf\xe9".decode("ascii", "surrogateescape")
    assert cli.parse(SampleConfig, [f"prompt={latin}"]).prompt == latin
    assert unfit({"name": latin}, "", lambda _: False)[0].endswith(": this is not UTF-8")
