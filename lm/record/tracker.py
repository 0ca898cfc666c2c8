"""The record of a run: metrics.jsonl, samples.jsonl, summary.json; W&B as their mirror; progress.

    with Tracker(out, cfg, state, progress) as track:
        track.log(state, {"train/loss": 4.2})
        track.finish(summary)

The files are the truth. W&B gets the same numbers; whatever goes wrong there costs one warning
and never a step.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lm import config
from lm.models.base import LanguageModel
from lm.record.display import Display
from lm.record.schemas import Row
from lm.record.state import TrainState
from lm.record.wandb_mirror import Mirror
from lm.system import failpoint, files, ranks, signals
from lm.system.errors import StorageError
from lm.system.text import printable

log = logging.getLogger(__name__)


class Tracker:
    """Writes what a run has to say. Points at or after state.step, left by a run that was killed
    after its last checkpoint, are cut off first: the files equal those of a run never stopped."""

    def __init__(
        self,
        out: Path,
        cfg: config.Config,
        state: TrainState,
        progress: Callable[[TrainState], float],
        group: str | None = None,
    ) -> None:
        self.out, self.cfg = out, cfg
        written = cut_back(out / "metrics.jsonl", state.step)
        cut_back(out / "samples.jsonl", state.step)
        self.metrics = Lines(out / "metrics.jsonl")
        self.texts = Lines(out / "samples.jsonl")
        self.wandb = Mirror(out, cfg, group, written)
        self.display = Display(progress)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        self.display.close()
        self.metrics.close()
        self.texts.close()
        with signals.deferred():  # a first signal does not cut the upload short
            self.wandb.close(error)

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        """Send histograms of the model's weights and gradients to W&B, if track.histograms asks."""
        self.wandb.watch(model, state)

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        """One point of the curves: a line of metrics.jsonl, and the same to W&B."""
        row = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
        row |= {key: number(value) for key, value in values.items()}
        self.metrics.add(row)
        self.wandb.log(row)
        self.wandb.histograms()
        self.display.show(state, row)

    def samples(self, state: TrainState, rows: list[dict[str, Any]]) -> None:
        """Texts that the model wrote, one row a prompt."""
        for row in rows:
            self.texts.add({"step": state.step, **row})
            text = printable(row["prompt"] + "|" + row["text"])
            self.display.text(f"step {state.step}: {text}")
        self.wandb.samples(state, rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, whose presence means that the run is complete."""
        self.sync()
        plain = {k: number(v) for k, v in summary.items()}
        files.atomic_write(self.out / "summary.json", json.dumps(plain, indent=1) + "\n")
        self.wandb.finish(plain)

    def page(self, name: str, path: Path) -> None:
        """Show an HTML page of the run in W&B."""
        self.wandb.page(name, path)

    def sync(self) -> None:
        """Make all lines durable: before a checkpoint is, which says that they are there.

        Raises StorageError if the disk still refuses one.
        """
        self.metrics.sync()
        self.texts.sync()

    def cut_back(self, state: TrainState) -> None:
        """Drop the lines of state.step and later: the run goes back to that step."""
        for lines in (self.metrics, self.texts):
            lines.close()
            lines.pending = b""  # the checkpoint of that step has all lines before it
            cut_back(lines.path, state.step)
            lines.open()


class Silent(Tracker):
    """The tracker of all processes but rank 0: it writes nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass

    def nothing(self, *_: Any) -> None:
        pass

    watch = log = samples = finish = page = sync = cut_back = nothing


def tracker(*args: Any) -> Tracker:
    """The run's tracker in this process; its arguments are those of Tracker."""
    return (Silent if ranks.rank() else Tracker)(*args)


class Lines:
    """A file of JSON lines. What a full disk refuses is kept, and tried again with the next."""

    def __init__(self, path: Path) -> None:
        self.path, self.pending = path, b""
        self.refused: OSError | None = None
        self.open()

    def open(self) -> None:
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
        self.pending += line.encode("utf-8", "replace")
        self.write()

    def write(self) -> None:
        try:
            while self.pending:
                failpoint.hit("track.write")
                self.pending = self.pending[self.file.write(self.pending) :]
            self.refused = None
        except OSError as error:
            if not self.refused:
                log.warning(f"{self.path}: {error}; its lines are kept and tried again")
            self.refused = error

    def sync(self) -> None:
        self.write()
        try:
            if self.refused:
                raise self.refused
            os.fsync(self.file.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} lacks its last lines: {error}") from None

    def close(self) -> None:
        self.write()
        self.file.close()


def number(value: Any) -> Any:
    """A value that JSON can hold: NaN and the infinities become their names."""
    if hasattr(value, "tolist"):  # tensors, and numbers and arrays of numpy
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [number(v) for v in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def cut_back(path: Path, step: int) -> int:
    """Drop the rows of `step` and later, and a last line torn by a crash; return how many lines
    there were."""
    if not path.exists():
        return 0
    # Not splitlines: a sample may hold U+2028, which is a line's end there but not in JSON.
    lines = files.read_text(path, errors="replace").split("\n")
    kept = []
    for line in lines[:-1]:  # behind the last line's end is nothing, or a torn line
        try:
            row_step = msgspec.convert(json.loads(line), Row).step
        except (ValueError, RecursionError):
            break
        if row_step >= step:
            break
        kept.append(line + "\n")
    files.atomic_write(path, "".join(kept))
    return len(lines)
