"""Progress of a run: on a terminal a live bar and above it a line for each evaluation; elsewhere a
line for each evaluation and every few seconds.

Of an arm of a sweep the terminal has the bar alone, if no other arm is in work there.

display = Display(budget.progress); display.show(state, row)
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping

from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lm.record.state import TrainState
from lm.system import terminal
from lm.system.console import Console

log = logging.getLogger(__name__)
QUIET = 5.0  # seconds between plain progress lines where there is no terminal
SHOWN = (
    ("val/bpb", "bpb", ".4f"),
    ("train/loss", "loss", ".3f"),
    ("val/loss", "val loss", ".3f"),
    ("val/ppl", "ppl", ".1f"),
    ("speed/tokens_per_s", "tok/s", ",.0f"),
)
BASELINE = "baseline/ngram_bpb"
NARROW = 40  # columns below which the bar is the time left and the share, and a line is set tight
BESIDE_TEXT = 32  # columns of the time left, the share, a short bar and the gaps between them


class TimeLeft(TimeRemainingColumn):
    """`0:42 left`: the first column, so that a narrow terminal cuts off something else."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(" left")


class Display:
    """What the person who started the run sees of it."""

    def __init__(self, progress: Callable[[TrainState], float]) -> None:
        self.progress = progress  # the share of the run that is done
        self.latest: dict[str, object] = {}  # of each metric the last value
        self.last_bpb: float | None = None  # of the evaluation before
        self.line_time = 0.0  # when the last plain line was written
        self.console = Console(file=sys.stdout)
        self.arm = terminal.arm_in_work()
        self.bar: Progress | None = None
        if sys.stdout.isatty() and (self.arm is None or self.arm.has_bar):
            self.bar = self._start_bar()

    def _start_bar(self) -> Progress:
        bar = BarColumn(bar_width=None)
        columns = [TimeLeft(compact=True), bar, TaskProgressColumn()]
        if self.console.width >= NARROW:
            columns.append(TextColumn("{task.fields[text]}"))
        # The sweep prints a line of its own where the bar of an arm was.
        is_arm = self.arm is not None
        progress = Progress(*columns, console=self.console, expand=True, transient=is_arm)
        self.task = progress.add_task("train", total=1.0, text="")
        progress.start()
        return progress

    def show(self, state: TrainState, row: Mapping[str, object]) -> None:
        """Show one point of the run's curves."""
        is_evaluation = "val/bpb" in row
        self.latest |= row
        if is_evaluation and state.losses:  # of the steps just before, as the log has none yet
            self.latest["train/loss"] = sum(state.losses) / len(state.losses)
        if self.bar is not None:
            words = [f"step {state.step}", *_words(row)]
            if self.arm is not None:
                words = [word for word in (self.arm.name, self.arm.label, *words) if word]
            text = "  ".join(_fitting(words, self.console.width - BESIDE_TEXT))
            self.bar.update(self.task, completed=self.progress(state), text=text)
        if is_evaluation:
            self._show_evaluation(state)
        elif self.bar is None and time.monotonic() - self.line_time > QUIET:
            self.line_time = time.monotonic()
            log.info("  ".join([f"step {state.step:>6}", *_words(row)]))

    def _show_evaluation(self, state: TrainState) -> None:
        """A line that stays: bits per byte, how they changed, what is to be beaten, and the last of
        each other metric as far as a terminal is wide.
        """
        self.line_time = time.monotonic()
        bpb = self.latest["val/bpb"]
        narrow = self.bar is not None and self.console.width < NARROW
        first = [f"step {state.step}" if narrow else f"step {state.step:>6}"]
        others = dict(self.latest)
        if isinstance(bpb, float):
            change = "" if self.last_bpb is None else f"{bpb - self.last_bpb:+.4f}"
            first += [f"bpb {bpb:.4f}", change, _compared(bpb, self.latest.get(BASELINE))]
            del others["val/bpb"]
        self.last_bpb = bpb if isinstance(bpb, float) else None
        words = [word for word in [*first, *_words(others)] if word]
        gap = " " if narrow else "  "
        if self.bar is not None:
            words = _fitting(words, self.console.width, gap)
        log.info(gap.join(words))

    def text(self, line: str) -> None:
        """Show a line as it is."""
        log.info(line)

    def close(self) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.bar.stop()


def _compared(bpb: float, baseline: object) -> str:
    """How far bits per byte are from those of the counted 5-gram; "" where none was counted."""
    if not isinstance(baseline, float):
        return ""
    side = "below" if bpb < baseline else "above"
    return f"{abs(bpb - baseline):.4f} {side} the 5-gram"


def _fitting(words: list[str], width: int, gap: str = "  ") -> list[str]:
    """The first words that fit into so many columns; at least one."""
    while len(words) > 1 and len(gap.join(words)) > width:
        words = words[:-1]
    return words


def _words(values: Mapping[str, object]) -> list[str]:
    words = []
    for key, label, form in SHOWN:
        value = values.get(key)
        if isinstance(value, str):  # the name of what is no number: nan, inf
            words.append(f"{label} {value}")
        elif isinstance(value, (int, float)):
            words.append(f"{label} {value:{form}}")
    for key, value in values.items():
        if key.startswith("val_") and isinstance(value, float):  # another text: val_NAME/bpb
            words.append(f"{key.removeprefix('val_').removesuffix('/bpb')} {value:.4f}")
    tasks = []
    for key, value in values.items():
        if key.startswith("task/") and isinstance(value, float):
            tasks.append(value)
    if tasks:
        words.append(f"tasks {sum(tasks) / len(tasks):.1%}")
    return words
