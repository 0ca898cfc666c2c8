"""Where the lines of a run go: to the terminal, and to its train.log."""

import errno
import logging
from pathlib import Path

import pytest

from lm.launch import logs
from lm.system import terminal
from lm.system.terminal import Arm

log = logging.getLogger("lm.some_test")


@pytest.fixture
def console(monkeypatch):
    """Lines logged now are printed as in a job."""
    monkeypatch.setattr(logs.Console, "warned", set())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    logs.to_terminal()


def say(arm: int) -> None:
    log.info(f"step {arm}")
    log.warning(f"W&B stopped\n({arm})")
    log.error(f"failed: \x1b[2J{arm}")


def test_of_an_arm_the_terminal_has_each_error_and_the_first_warning_and_its_log_has_all(
    console, capsys, tmp_path
):
    for number in (1, 2):
        with logs.to_file(tmp_path), terminal.shown_of_arm(Arm(f"arm {number}", "gru", "s/4")):
            say(number)
    say(3)
    assert capsys.readouterr().out.splitlines() == [
        "arm 1  gru  W&B stopped (1) (logs in s/4)",
        "arm 1  gru  failed: \ufffd[2J1 (logs in s/4)",
        "arm 2  gru  failed: \ufffd[2J2 (logs in s/4)",
        "step 3",
        "W&B stopped",
        "(3)",
        "failed: \ufffd[2J3",
    ]
    text = (tmp_path / "train.log").read_text()
    assert [text.count(part) for part in ("step", "W&B", "failed: ")] == [2, 2, 2]


def test_the_log_of_a_run_ends_with_the_error_that_ended_it_and_the_terminal_has_it_from_elsewhere(
    console, capsys, tmp_path
):
    """train.log ended in the middle: what a sweep printed of it was nowhere in the arm's folder."""
    with (
        pytest.raises(ValueError),
        logs.to_file(tmp_path) as file,
        logs.error_in(file),
    ):
        raise ValueError("no\nroom")
    assert (tmp_path / "train.log").read_text().endswith(" ERROR no room\n")
    assert capsys.readouterr().out == ""


def test_an_arm_inside_another_one_gives_the_terminal_back():
    outer, inner = Arm("arm 1", "", "s/0"), Arm("arm 2", "a b", "s/1", has_bar=True)
    with terminal.shown_of_arm(outer):
        with terminal.shown_of_arm(inner):
            assert terminal.arm_in_work() == inner
        assert terminal.arm_in_work() == outer and outer.title == "arm 1"
    assert terminal.arm_in_work() is None


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no full disk here")
def test_a_log_that_a_full_disk_cuts_short_does_not_hide_the_error_of_the_run(tmp_path):
    """That of the log names no file, so nobody was told which disk is full."""
    (tmp_path / "train.log").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"run/config\.yaml"),
        logs.to_file(tmp_path) as file,
        logs.error_in(file),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "run/config.yaml")
