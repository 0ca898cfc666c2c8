"""What a person sees of a run, on a real terminal of each width and without one."""

import collections
import logging
import re
import time

import pytest

from lm.launch import logs
from lm.record.display import Display
from lm.record.state import TrainState
from lm.system import terminal
from lm.system.terminal import Arm
from tests.terminals import on_a_terminal

POINTS = [
    (0, {"val/bpb": 8.0056, "val/loss": 5.549, "val/ppl": 257.0, "baseline/ngram_bpb": 2.2871}),
    (10, {"train/loss": 4.1234, "speed/tokens_per_s": 28_958.0}),
    (200, {"val/bpb": 3.4781, "val/loss": 2.411, "val/ppl": 11.1, "baseline/ngram_bpb": 2.2871}),
    (300, {"train/loss": 2.371, "speed/tokens_per_s": 28_958.0}),
    (400, {"val/bpb": 2.2, "val/loss": 1.525, "val/ppl": 4.6, "baseline/ngram_bpb": 2.2871}),
]


def show_points() -> None:
    display = Display(lambda state: state.step / 400)
    for step, row in POINTS:
        display.show(TrainState(step, losses=collections.deque([2.5])), row)
        time.sleep(0.11)  # the bar is drawn ten times a second
    display.close()


def lines_on_a_terminal(columns: int, **env: str) -> list[str]:
    def action() -> None:
        logging.getLogger().handlers = []
        logs.to_terminal()
        show_points()

    lines, text, code = on_a_terminal(columns, action, **env)
    assert code == 0, text
    return lines


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_each_evaluation_stays_as_a_line_and_no_line_is_wider_than_the_terminal(columns):
    """The live bar wrote over them: on a terminal no evaluation was ever to be read."""
    seen = lines_on_a_terminal(columns)
    assert max(map(len, seen)) <= columns
    lines = [line for line in seen if line.startswith("step")]
    if columns == 20:
        assert lines == ["step 0 bpb 8.0056", "step 200 bpb 3.4781", "step 400 bpb 2.2000"]
        return
    start = [
        "step      0  bpb 8.0056  5.7185 above the 5-gram",
        "step    200  bpb 3.4781  -4.5275  1.1910 above the 5-gram",
        "step    400  bpb 2.2000  -1.2781  0.0871 below the 5-gram",
    ]
    assert [line[: len(each)] for line, each in zip(lines, start, strict=True)] == start
    assert ("val loss 1.525" in lines[2]) == (columns == 120)


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_the_time_left_comes_first_and_is_never_cut_off(columns):
    bars = [line for line in lines_on_a_terminal(columns) if "%" in line]
    assert bars
    for line in bars:
        assert re.match(r"(--:--|\d+:\d\d) ", line), line
    if columns >= 60:
        assert any(re.match(r"\d\d:\d\d left .*━.* 75% step 300", line) for line in bars), bars


def test_without_a_terminal_every_metric_of_an_evaluation_is_printed(caplog):
    caplog.set_level("INFO")
    show_points()
    lines = [line for line in caplog.messages if "bpb" in line]
    assert lines[1] == (
        "step    200  bpb 3.4781  -4.5275  1.1910 above the 5-gram  loss 2.500  "
        "val loss 2.411  ppl 11.1  tok/s 28,958"
    )


@pytest.mark.parametrize("score", ["nan", "inf"])
def test_a_score_that_is_no_number_is_shown_and_ends_no_run(score, caplog):
    """As metrics.jsonl has it: the display took each score for a number, and the run ended."""
    caplog.set_level("INFO")
    display = Display(lambda state: 0.5)
    for step, bpb in ((0, 2.0), (10, score), (20, 1.5)):
        row = {"val/bpb": bpb, "val/loss": bpb, "val/ppl": bpb, "baseline/ngram_bpb": 1.75}
        display.show(TrainState(step), row)
    assert caplog.messages == [
        "step      0  bpb 2.0000  0.2500 above the 5-gram  val loss 2.000  ppl 2.0",
        f"step     10  bpb {score}  val loss {score}  ppl {score}",
        "step     20  bpb 1.5000  0.2500 below the 5-gram  val loss 1.500  ppl 1.5",
    ]


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_of_an_arm_of_a_sweep_the_terminal_has_the_bar_with_its_name_and_no_other_line(columns):
    """Every arm printed its whole log, and its last bar stayed."""
    with terminal.shown_of_arm(Arm("arm 5 of 8", "gru lr=0.003", "s/4", has_bar=True)):
        seen = lines_on_a_terminal(columns)
    assert max(map(len, seen)) <= columns
    assert all("━" in line or line in ("4 left", "left") for line in seen), seen
    title = {20: "75%", 60: "75% arm 5 of 8  gru lr=0.003"}
    shown = title.get(columns, "75% arm 5 of 8  gru lr=0.003  step 300")
    assert any(shown in line for line in seen), seen


def test_of_an_arm_beside_others_on_the_terminal_nothing_is_shown():
    with terminal.shown_of_arm(Arm("arm 5 of 8", "gru lr=0.003", "s/4", has_bar=False)):
        assert lines_on_a_terminal(80) == []
