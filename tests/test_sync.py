"""What lm.sync is asked to upload is checked first, and it waits for no server without end."""

import sys
import time
from pathlib import Path

import pytest

from lm import sync
from lm.record import wandb_answer
from lm.record.state import TrainState
from lm.record.tracker import FileTracker
from lm.system.errors import SilentServerError
from tests.helpers import timed


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("TYPO", "no such folder"),
        ("--all", "is no option"),
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
    monkeypatch.setattr(sync, "upload", lambda folder: pytest.fail("uploaded"))
    monkeypatch.setattr(sys, "argv", ["lm.sync", "good", word])
    with pytest.raises(SystemExit) as ended:
        sync.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {word}") and text in said
    assert said.count("\n") == 1 and ("python -m lm.sync [FOLDER ...]" in said or word == "--all")


def test_why_a_run_was_not_uploaded_is_told_though_the_client_s_last_line_is_empty(
    monkeypatch, capsys
):
    Path("run").mkdir()
    Path("run/run.wandb").write_bytes(b"x" * 100)
    lines = ["wandb: Syncing 1 run(s):", "wandb: ERROR Error: permission denied", "wandb: ERROR "]
    monkeypatch.setattr(sync, "upload", lambda folder: lines)
    assert sync.sync([Path("run")]) == 1
    assert capsys.readouterr().out == "failed   run: Error: permission denied\n"


@pytest.fixture
def offline_run(cfg, server, tmp_path):
    """The folder of an offline run with one point."""
    with FileTracker(tmp_path, cfg("track=offline"), TrainState(0), lambda _: 0.0) as there:
        there.log(TrainState(0), {"train/loss": 1.0})
    (folder,) = sync.waiting_runs(Path("outputs/wandb"))
    return folder


def test_a_run_that_the_server_refuses_was_not_uploaded(offline_run, server, capsys):
    """The exit code of `wandb sync` is 0 then too, and it was told as uploaded."""
    server.mode = "forbidden"
    assert sync.sync([offline_run]) == 1
    said = capsys.readouterr().out
    assert said.startswith("failed") and "403" in said and said.count("\n") == 1
    assert sync.waiting_runs(Path("outputs/wandb")) == [offline_run]
    server.mode = "ok"
    assert sync.sync([offline_run]) == 0 and not sync.waiting_runs(Path("outputs/wandb"))


@timed
def test_a_server_that_hangs_is_given_up_and_the_run_waits_for_the_next_time(
    offline_run, server, monkeypatch
):
    """It was asked again for seven days."""
    monkeypatch.setattr(wandb_answer, "SECONDS", 0.25)
    server.mode = "hang"
    begun = time.monotonic()
    with pytest.raises(SilentServerError, match=r"127\.0\.0\.1:.* does not answer in 0.25 seconds"):
        sync.sync([offline_run])
    assert time.monotonic() - begun < 5
    answer = server.answer
    server.mode = "ok"

    def hang_soon(name, variables):
        if "UpsertBucket" in name:
            server.mode = "hang"
        return answer(name, variables)

    monkeypatch.setattr(server, "answer", hang_soon)
    with pytest.raises(SilentServerError):
        sync.sync([offline_run])
    assert time.monotonic() - begun < 40
    assert sync.waiting_runs(Path("outputs/wandb")) == [offline_run]


def test_a_port_where_nothing_listens_is_told_at_once(offline_run, server):
    server.die()
    with pytest.raises(SilentServerError, match=r"does not answer .*refused"):
        sync.sync([offline_run])


def test_what_the_client_says_of_a_key_is_told():
    lines = [
        "wandb: ERROR ",
        "wandb: ERROR Permission denied",
        "Error: WANDB_API_KEY invalid: x",
        "a",
    ]
    assert sync.faults(lines) == ["Permission denied", "WANDB_API_KEY invalid: x"]
