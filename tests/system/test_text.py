"""Text that a terminal can be shown, and words that a shell takes."""

import subprocess

import pytest

from lm.system.text import printable, shell_word

WORDS = ["run=outputs/a", "run=a b", "it's", '"q"', "$HOME `x` \\ !", "кот"]
WORDS += ["a\nb", "\x1b[2J'", "\u202ex"]


@pytest.mark.parametrize("name", WORDS)
def test_a_printed_word_means_itself_when_it_is_pasted_into_a_shell(name):
    word = shell_word(name)
    assert word == printable(word) and "\n" not in word
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout.decode() == name


def test_no_character_that_drives_a_terminal_or_turns_a_line_is_shown():
    text = "a\x1b]0;b\x07\x9bc\u202ed\u2066e\u200ff\u2028g\r"
    assert printable(text) == "a\ufffd]0;b\ufffd\ufffdc\ufffdd\ufffde\ufffdf\ufffdg\ufffd"
    assert printable("tabs\tand\nlines, é and 猫") == "tabs\tand\nlines, é and 猫"
