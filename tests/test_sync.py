"""What lm.sync is asked to upload is checked first."""

import sys
from pathlib import Path

import pytest

from lm import sync


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("TYPO", "no such folder"),
        ("--all", "no such folder"),
        ("empty", "holds no .wandb file"),
        ("toy.txt", "this is no folder"),
    ],
)
def test_a_word_that_is_no_run_of_w_and_b_uploads_nothing(word, text, monkeypatch, capsys):
    """It was skipped, with exit code 0."""
    Path("empty").mkdir()
    Path("good").mkdir()
    Path("toy.txt").write_text("a text")
    Path("good/run.wandb").write_bytes(b"x" * 100)
    monkeypatch.setattr(sync.subprocess, "run", lambda *_, **__: pytest.fail("uploaded"))
    monkeypatch.setattr(sys, "argv", ["lm.sync", "good", word])
    with pytest.raises(SystemExit) as ended:
        sync.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {word}") and text in said
    assert said.count("\n") == 1 and "python -m lm.sync [FOLDER ...]" in said


def test_help_is_a_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lm.sync", "--help"])
    sync.main()
    assert capsys.readouterr().out.startswith("python -m lm.sync [FOLDER ...]")
