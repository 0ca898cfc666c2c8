"""Progress of a run: a live bar on a terminal; elsewhere a line at each evaluation and every few
seconds.

display = Display(budget.progress); display.show(state, row)
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from lm.record.state import TrainState

log = logging.getLogger(__name__)
QUIET = 5.0  # seconds between plain progress lines where there is no terminal
SHOWN = (
    ("train/loss", "loss", ".3f"),
    ("val/loss", "val loss", ".3f"),
    ("val/ppl", "ppl", ".1f"),
    ("val/bpb", "bpb", ".4f"),
    ("speed/tokens_per_s", "tok/s", ",.0f"),
)


class Display:
    """What the person who started the run sees of it."""

    def __init__(self, progress: Callable[[TrainState], float]) -> None:
        self.progress = progress  # the share of the run that is done
        self.latest: dict[str, object] = {}  # of each metric the last value
        self.line_time = 0.0  # when the last plain line was written
        self.bar: Progress | None = None
        if sys.stdout.isatty():
            self.bar = Progress(
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=Console(file=sys.stdout),
            )
            self.task = self.bar.add_task("train", total=1.0, text="")
            self.bar.start()

    def show(self, state: TrainState, row: Mapping[str, object]) -> None:
        """Show one point of the run's curves."""
        is_evaluation = "val/bpb" in row
        self.latest |= row
        if is_evaluation and state.losses:  # of the steps just before, as the log has none yet
            self.latest["train/loss"] = sum(state.losses) / len(state.losses)
        if self.bar is not None:
            text = _text(self.latest)
            done = self.progress(state)
            self.bar.update(self.task, completed=done, text=f"step {state.step}  {text}")
        elif is_evaluation or time.monotonic() - self.line_time > QUIET:
            self.line_time = time.monotonic()
            # At an evaluation the last of each metric, elsewhere what was measured just then.
            text = _text(self.latest if is_evaluation else row)
            log.info(f"step {state.step:>6}  {text}")

    def text(self, line: str) -> None:
        """Show a line as it is."""
        log.info(line)

    def close(self) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.bar.stop()


def _text(values: Mapping[str, object]) -> str:
    words = []
    for key, label, form in SHOWN:
        value = values.get(key)
        if isinstance(value, (int, float)):
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
    return "  ".join(words)
