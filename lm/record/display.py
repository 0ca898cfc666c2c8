"""Progress of a run: a live bar on a terminal; elsewhere a line at each evaluation and every few
seconds.

display = Display(budget.progress); display.show(state, row)
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

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
        self.seen: dict[str, float] = {}
        self.last = 0.0
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

    def show(self, state: TrainState, row: Mapping[str, Any]) -> None:
        self.seen |= row
        if "val/bpb" in row and state.losses:  # of the steps just before, as the log has none yet
            self.seen["train/loss"] = sum(state.losses) / len(state.losses)
        # In the bar and at an evaluation the last of each, elsewhere what was measured then.
        shown = self.seen if self.bar is not None or "val/bpb" in row else row
        text = "  ".join(
            f"{label} {shown[key]:{form}}"
            for key, label, form in SHOWN
            if isinstance(shown.get(key), (int, float))
        )
        if self.bar is not None:
            done = self.progress(state)
            self.bar.update(self.task, completed=done, text=f"step {state.step}  {text}")
        elif "val/bpb" in row or time.monotonic() - self.last > QUIET:
            self.last = time.monotonic()
            log.info(f"step {state.step:>6}  {text}")

    def text(self, line: str) -> None:
        log.info(line)

    def close(self) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.bar.stop()
