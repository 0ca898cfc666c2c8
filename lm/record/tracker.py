"""The record of a run: metrics.jsonl, samples.jsonl, summary.json; W&B as their mirror; progress.

    with open_tracker(out, cfg, state, progress) as track:
        track.log(state, {"train/loss": 4.2})
        track.finish(summary)

The files are the truth. W&B gets the same numbers; whatever goes wrong there costs one warning
and never a step.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from lm import config
from lm.models.base import LanguageModel
from lm.record import checkpoint
from lm.record.display import Display
from lm.record.schemas import Row, Summary
from lm.record.state import TrainState
from lm.record.wandb_alerts import Alert
from lm.record.wandb_mirror import Mirror
from lm.system import failpoint, files, foreign, ranks, signals
from lm.system.errors import StorageError
from lm.system.text import printable

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where a run says what happens to it."""

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        """Send histograms of the model's weights and gradients to W&B, if track.histograms asks."""

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        """Add one point to the curves: a line of metrics.jsonl, and the same to W&B."""

    def samples(self, state: TrainState, rows: Sequence[Mapping[str, object]]) -> None:
        """Add texts that the model wrote, a row with prompt, text and settings for each."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write summary.json, whose presence means that the run is complete."""

    def page(self, name: str, path: Path) -> None:
        """Show an HTML page of the run in W&B."""

    def note(self, text: str) -> None:
        """Add a text to the notes that the run has in W&B."""

    def alert(self, title: str, text: str) -> None:
        """Have W&B tell whoever wants to be told at once."""

    def sync(self) -> None:
        """Make all lines durable: before a checkpoint is, which says that they are there.

        Raises StorageError if the disk still refuses one.
        """

    def cut_back(self, state: TrainState) -> None:
        """Drop the lines of state.step and later: the run goes back to that step."""


def open_tracker(
    out: Path,
    cfg: config.Config,
    state: TrainState,
    progress: Callable[[TrainState], float],
    group: str | None = None,
    name: str = "",
) -> AbstractContextManager[Tracker]:
    """The run's tracker in this process: of several processes only rank 0 writes.

    `progress` gives the share of the run that is done; in W&B `group` is the name of its sweep, and
    `name` that of the run, unless its settings give one.
    """
    if ranks.rank() > 0:
        return SilentTracker()
    return FileTracker(out, cfg, state, progress, group, name)


class FileTracker:
    """Writes what a run has to say into its directory, the terminal and W&B.

    Points at or after state.step, left by a run that was killed after its last checkpoint, are
    cut off first: the files equal those of a run never stopped.
    """

    def __init__(
        self,
        out: Path,
        cfg: config.Config,
        state: TrainState,
        progress: Callable[[TrainState], float],
        group: str | None = None,
        name: str = "",
    ) -> None:
        self.out = out
        lost = 0 if checkpoint.steps(out) else _last_step(out / "metrics.jsonl")
        if lost:
            log.warning(
                f"{out} has no checkpoint: it begins again, without its points up to step {lost}"
            )
        n_points = cut_back(out / "metrics.jsonl", state.step)
        cut_back(out / "samples.jsonl", state.step)
        self.metrics = JsonLines(out / "metrics.jsonl")
        self.texts = JsonLines(out / "samples.jsonl")
        self.wandb = Mirror(out, cfg, group, n_points, name)
        self.display = Display(progress)

    def __enter__(self) -> "FileTracker":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.display.close()
        self.metrics.close()
        self.texts.close()
        with signals.deferred():  # a first signal does not cut the upload short
            self.wandb.close(error)

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        self.wandb.watch(model, state)

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        row: dict[str, object] = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
        }
        row |= to_plain(values)
        self.metrics.add(row)
        self.wandb.log(row)
        self.wandb.send_histograms()
        self.display.show(state, row)

    def samples(self, state: TrainState, rows: Sequence[Mapping[str, object]]) -> None:
        for row in rows:
            self.texts.add({"step": state.step, **row})
            text = printable(f"{row['prompt']}|{row['text']}")
            self.display.text(f"step {state.step}: {text}")
        self.wandb.samples(state, rows)

    def finish(self, summary: Mapping[str, float]) -> None:
        self.sync()
        plain = to_plain(summary)
        files.atomic_write(self.out / Summary.file, json.dumps(plain, indent=1) + "\n")
        self.wandb.finish(plain, int(summary["best_step"]))

    def page(self, name: str, path: Path) -> None:
        self.wandb.page(name, path)

    def note(self, text: str) -> None:
        self.wandb.note(text)

    def alert(self, title: str, text: str) -> None:
        self.wandb.alert(Alert(title, text))

    def sync(self) -> None:
        self.metrics.sync()
        self.texts.sync()

    def cut_back(self, state: TrainState) -> None:
        for lines in (self.metrics, self.texts):
            lines.close()
            lines.pending = b""  # the checkpoint of that step has all lines before it
            cut_back(lines.path, state.step)
            lines.open()


class SilentTracker:
    """The tracker of all processes but rank 0: it writes nothing."""

    def __enter__(self) -> "SilentTracker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        pass

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        pass

    def samples(self, state: TrainState, rows: Sequence[Mapping[str, object]]) -> None:
        pass

    def finish(self, summary: Mapping[str, float]) -> None:
        pass

    def page(self, name: str, path: Path) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def alert(self, title: str, text: str) -> None:
        pass

    def sync(self) -> None:
        pass

    def cut_back(self, state: TrainState) -> None:
        pass


class JsonLines:
    """A file of JSON lines. What a full disk refuses is kept, and tried again with the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending = b""  # not yet written
        self.write_error: OSError | None = None  # of the last try
        self.open()

    def open(self) -> None:
        is_new = not self.path.exists()
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        if is_new:
            files.sync_folder(self.path.parent)

    def add(self, row: Mapping[str, object]) -> None:
        line = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
        self.pending += line.encode("utf-8", "replace")
        self.write()

    def write(self) -> None:
        """Write what is pending; the first of several refusals is logged."""
        try:
            while self.pending:
                failpoint.hit("track.write")
                n_written = self.file.write(self.pending)
                self.pending = self.pending[n_written:]
            self.write_error = None
        except OSError as error:
            if not self.write_error:
                log.warning(f"{self.path}: {error}; its lines are kept and tried again")
            self.write_error = error

    def sync(self) -> None:
        """Make all lines durable; StorageError if the disk still refuses one."""
        self.write()
        try:
            if self.write_error:
                raise self.write_error
            os.fsync(self.file.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} lacks its last lines: {error}") from None

    def close(self) -> None:
        self.write()
        self.file.close()


def to_plain(values: Mapping[str, object]) -> dict[str, object]:
    """The values as JSON can hold them: NaN and the infinities become their names."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    if to_list is not None:  # tensors, and numbers and arrays of numpy
        value = to_list()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def cut_back(path: Path, step: int) -> int:
    """Drop the rows of `step` and later, and a last line torn by a crash.

    A damaged line between rows is dropped and told of. Returns how many lines there were.
    """
    if not path.exists():
        return 0
    # Not splitlines: a sample may hold U+2028, which is a line's end there but not in JSON.
    lines = foreign.read_text(path, errors="replace").split("\n")
    kept = []
    damaged = []  # the numbers of lines that are no row, since the last row
    for number, line in enumerate(lines[:-1], start=1):  # behind the last is nothing, or a torn one
        row = _row(line)
        if row is None:
            damaged.append(str(number))
            continue
        if row.step >= step:
            break
        if damaged:
            log.warning(f"{path}: without its line {', '.join(damaged)}, which is damaged")
            damaged = []
        kept.append(line + "\n")
    files.atomic_write(path, "".join(kept))
    return len(lines)


def _row(line: str) -> Row | None:
    """What a line holds; None if it is damaged."""
    try:
        return msgspec.convert(json.loads(line), Row)
    except (ValueError, RecursionError):
        return None


def _last_step(path: Path) -> int:
    """The step of the last whole row; 0 if there is none."""
    if not path.exists():
        return 0
    rows = map(_row, foreign.read_text(path, errors="replace").split("\n"))
    return max((row.step for row in rows if row), default=0)
