"""What a sweep says while it runs: a line for each arm, on a pipe and on terminals of any width."""

import logging
import os
import re
import time
from pathlib import Path

import pytest

from lm.launch import directory, logs
from lm.sweep import arms, labels, progress
from lm.sweep.arms import ArmResult
from lm.system import files, store
from tests.helpers import TINY_TRANSFORMER
from tests.terminals import drawn, on_a_terminal, read_until, terminal

GRID = [
    ["track=off", f"model={model}", f"optimizer.lr={lr}", f"seed={seed}"]
    for model in ("gru", "mlp")
    for lr in ("0.003", "0.01")
    for seed in (0, 1)
]
ARM = re.compile(r"arm (\d) of (\d)")


def ended(root: Path, number: int, value: float | None, words=None, **others) -> ArmResult:
    """An arm whose result is there."""
    result = ArmResult(words or GRID[number], value=value, **others)
    (root / str(number)).mkdir(parents=True, exist_ok=True)
    (root / str(number) / arms.RESULT).write_bytes(files.to_json(result).encode())
    return result


def show(root: Path, number: int, result: ArmResult) -> None:
    progress.show_end(root, number, result.overrides, result)


@pytest.fixture
def later(monkeypatch):
    """later(60): as if so many seconds had passed."""
    now = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: now() + seconds)


@pytest.fixture
def grid(caplog):
    caplog.set_level("INFO")
    progress.announce(progress.Plan(len(GRID), labels.varied(GRID)))
    return Path("s")


def test_the_line_has_the_arm_the_best_score_so_far_and_about_the_time_left(grid, later, caplog):
    ended(grid, 0, 2.95)
    ended(grid, 1, 2.866)
    ended(grid, 2, 3.0)
    result = ended(grid, 3, 2.9012)
    later(240)
    show(grid, 3, result)
    assert caplog.messages == [
        "arm 4 of 8  gru lr=0.01 seed=1  bpb 2.9012  best so far 2.8660 (gru lr=0.003)  "
        "about 4 min left"
    ]


def test_arms_that_were_complete_before_take_no_time_and_those_that_failed_are_still_to_do(
    grid, later, caplog
):
    for number in range(6):
        ended(grid, number, 2.0 if number < 5 else None, status="failed" if number == 5 else "ok")
        if number < 5:
            (grid / str(number) / "summary.json").touch()
    before = time.time() - 3600
    for path in grid.rglob("*"):
        os.utime(path, (before, before))
    show(grid, 0, ended(grid, 0, 2.0))
    result = ended(grid, 5, 2.1)
    later(40)
    show(grid, 5, result)
    first, second = caplog.messages
    assert first.endswith("bpb 2.0000 (was complete)  best so far 2.0000 (gru lr=0.003)")
    assert second.endswith("about 1 min left")  # of the arms 6 and 7, 40 s each


def test_an_arm_in_work_beside_this_one_counts_as_half_done(grid, later, caplog):
    """Of two at once the first one ended, and all others seemed to take as long one by one."""
    with store.locked(grid / "1"):
        result = ended(grid, 0, 2.0)
        later(60)
        show(grid, 0, result)
    assert caplog.messages[0].endswith("about 4 min left")  # 6.5 arms in work for 60 s / 1.5 each


@pytest.mark.parametrize(
    ("result", "end"),
    [
        (ArmResult(GRID[0], "pruned", error="behind"), "gru lr=0.003 seed=0  pruned"),
        (ArmResult(GRID[0], "failed", error="why"), None),  # it has said so
    ],
)
def test_an_arm_without_a_score(grid, result, end, caplog):
    show(grid, 0, result)
    assert caplog.messages == ([f"arm 1 of 8  {end}"] if end else [])


def test_no_best_one_is_named_where_the_texts_differ(caplog):
    caplog.set_level("INFO")
    words = [["corpus=names"], ["corpus=pydocs"]]
    progress.announce(progress.Plan(2, labels.varied(words)))
    for number in (0, 1):
        show(Path("s"), number, ended(Path("s"), number, 2.0 - number, words[number]))
    assert caplog.messages[1] == "arm 2 of 2  pydocs  bpb 1.0000"


def test_what_cannot_be_read_or_is_not_known_costs_no_line(caplog):
    caplog.set_level("INFO")
    root = Path("s")
    progress.announce(progress.Plan())  # a configuration of one's own
    show(root, 2, ended(root, 2, 2.5, ["model=gru"]))
    progress.announce(progress.Plan(3, ["model"]))
    (root / "0").mkdir()
    (root / "0" / arms.RESULT).write_text("{")
    show(root, 2, ended(root, 2, 2.5, ["model=gru"]))
    assert caplog.messages == [
        "arm 3  gru  bpb 2.5000",
        "arm 3 of 3  gru  bpb 2.5000  best so far 2.5000 (gru)  about 10 s left",
    ]


LINES = {  # by the columns of the terminal
    20: "3/8  2.9012",
    30: "arm 3 of 8  bpb 2.9012",
    40: "arm 3 of 8  gru lr=0.01 see…  bpb 2.9012",
    50: "arm 3 of 8  gru lr=0.01 seed=0  bpb 2.9012",
    70: "arm 3 of 8  gru lr=0.01 seed=0  bpb 2.9012  best 2.9012  2 min left",
    80: "arm 3 of 8  gru lr=0.01 seed=0  bpb 2.9012  best so far 2.9012  about 2 min left",
    120: "arm 3 of 8  gru lr=0.01 seed=0  bpb 2.9012  best so far 2.9012 (gru lr=0.01)  "
    "about 2 min left",
}


@pytest.mark.parametrize("columns", LINES)
def test_no_line_is_wider_than_the_terminal(columns, grid, later):
    result = ended(grid, 2, 2.9012)
    for number in (0, 1, 3, 4):
        ended(grid, number, 3.5)
    later(200)

    def action() -> None:
        logging.getLogger().handlers = []
        logs.to_terminal()
        show(grid, 2, result)

    lines, text, code = on_a_terminal(columns, action, NO_COLOR="1")
    assert (lines, code) == ([LINES[columns]], 0), text
    assert len(lines[0]) <= columns and "\x1b" not in text


# ------------------------------------------------------------------------------ whole commands

FAILING = [*TINY_TRANSFORMER, "optimizer.lr=1e-3,1e30", "seed=0,1"]


def arm_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if ARM.match(line)]


def assert_logs_are_whole(root: Path) -> None:
    """What the terminal does not show is in the folders of the arms."""
    for arm in "01":
        log = (root / arm / "train.log").read_text()
        assert "5-gram" in log and "step     20" in log and "done: best" in log
        assert (root / arm / "samples.jsonl").stat().st_size
    for arm in "23":
        assert "ERROR step" in (root / arm / "train.log").read_text()
        assert "Traceback" in (root / arm / "error.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_prints_a_line_for_each_arm_and_of_a_failing_one_where_its_logs_are(
    command, tiny, tmp_path, launcher
):
    if launcher == "local":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", f"hydra/launcher={launcher}", *tiny, *FAILING, "hydra.sweep.dir=s"]
    done = command("lm.train", *words)
    root = tmp_path / "s"
    assert (done.returncode, done.stderr) == (1, "")
    lines = sorted(arm_lines(done.stdout))
    ends = [line for line in lines if " bpb " in line or " failed: " in line]
    for number, line in enumerate(ends):
        lr, seed = ("0.001", "1e+30")[number // 2], number % 2
        assert line.startswith(f"arm {number + 1} of 4  lr={lr} seed={seed}  "), lines
        failed = rf"failed: .*Lower optimizer\.lr.* \(logs in s/{number}\)"
        score = r"bpb \d\.\d{4}  best so far \d\.\d{4} \(lr=0\.001\)(  about \d+ (s|min) left)?"
        assert re.search(f"  ({failed if number > 1 else score})$", line), line
    assert len(ends) == 4 and all(" step " in line for line in lines if line not in ends)
    first, ranking = done.stdout.split("\n")[0], done.stdout[done.stdout.index("  val/bpb") :]
    assert first == "sweep      4 arms in s, each with its train.log"
    assert "failed           0  optimizer.lr=1e+30 (2 3)" in ranking
    others = set(done.stdout.split("\n")) - set(lines) - {first} - set(ranking.split("\n"))
    assert others <= {""}
    assert_logs_are_whole(root)


@pytest.mark.slow
def test_on_a_real_terminal_a_bar_shows_the_arm_in_work_and_goes_when_it_ends(
    started, tiny, tmp_path
):
    words = ["-m", *tiny, *FAILING, "hydra.sweep.dir=s"]
    with terminal(80, 24) as (main, side):
        process = started("lm.train", *words, terminal=side, TERM="xterm-256color", NO_COLOR="1")
        text = read_until(main, lambda _: process.poll() is not None).decode()
    lines = drawn(text)
    assert process.returncode == 1, text
    bars = [line for line in lines if re.match(r"(--:--|\d\d:\d\d) left ", line)]
    assert any("arm 1 of 4  lr=0.001 seed=0" in line for line in bars), lines
    assert any("arm 4 of 4  lr=1e+30 seed=1" in line for line in bars), lines
    others = [line for line in lines if line not in bars]
    assert max(map(len, bars)) <= 80
    assert not re.search(r"\x1b\[[0-9;]*[34][0-7]m", text), "a colour in spite of NO_COLOR"
    scores = [line for line in others if " bpb " in line]
    assert [ARM.match(line).groups() for line in scores] == [("1", "4"), ("2", "4")]
    assert max(map(len, scores)) <= 80
    assert sum(" failed: " in line for line in others if ARM.match(line)) == 2
    assert_logs_are_whole(tmp_path / "s")


@pytest.mark.slow
def test_a_search_prints_a_line_for_each_trial_and_its_end_as_before(command, tiny):
    words = ["-m", "hydra/sweeper=lm", "hydra.sweeper.n_trials=3", *tiny, "hydra.sweep.dir=s"]
    words += ["model=bigram_counts", "model.add_k=tag(log, interval(1e-3,1e3))"]
    done = command("lm.train", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "sweep      3 arms in s, each with its train.log"
    for number, line in enumerate(lines[1:4]):
        assert re.match(rf"arm {number + 1} of 3  add_k=\S+  bpb .* best so far .* \(add_k=", line)
    assert lines[4].startswith("best of 3 trials: ")


@pytest.mark.slow
def test_a_refused_arm_is_one_line_with_its_name(command, tiny, tmp_path):
    """Another process trains one; then somebody's files lie where another one belongs."""
    words = ["-m", "model=bigram_counts", *tiny, "hydra.sweep.dir=s"]
    directory.mark_sweep(Path("s"))
    with store.locked(tmp_path / "s/1"):
        held = command("lm.train", *words, "model.add_k=1,2")
    (line,) = [line for line in arm_lines(held.stdout) if line.startswith("arm 2 of 2")]
    assert re.match(r"arm 2 of 2  add_k=2  s/1 is being written by .*\(logs in s/1\)$", line)
    (tmp_path / "s/2").mkdir()
    (tmp_path / "s/2/notes.txt").write_text("mine")
    other = command("lm.train", *words, "model.add_k=1,2,3")
    assert other.returncode == 2, other.stdout
    assert other.stderr.startswith("error: arm 3 of 3 add_k=3: s/2 holds notes.txt, and no run")
    assert other.stderr.count("\n") == 1 and os.listdir("s/2") == ["notes.txt"]
