"""Read run directories as they lie there: settings, curves, summary, and what was counted.

    for run in records.find([Path("outputs")]): print(run.name, run.status, run.score)

Nothing is trusted to be complete: a run may be training, or may have been killed mid-line.
"""

import dataclasses
import itertools
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
from msgspec import field

from lm import baselines, config, tokenizers
from lm.record.find import run_directories
from lm.record.schemas import CodeRecord, DataRecord, Summary, read_part, read_rows
from lm.settings.reading import flat_values
from lm.settings.yaml_files import MAX_BYTES, plain_yaml
from lm.sweep import ranking
from lm.sweep.arms import RESULT, ArmResult, read_result
from lm.system import files, foreign
from lm.system.errors import ConfigError, DamagedError
from lm.system.schemas import Int

log = logging.getLogger(__name__)
ALIVE = 300.0  # seconds without a new point after which a run is no longer called running


class Known(msgspec.Struct):
    """What is read of the settings, whose values a stranger may have written."""

    seed: Int = 0
    name: str = ""
    model: str = field(name="model.name", default="")
    corpus: str = field(name="corpus.name", default="")


@dataclass
class Record:
    """One run directory."""

    path: Path
    settings: dict[str, Any]  # by dotted key
    overrides: list[str]  # the words of the command line
    rows: list[dict[str, Any]]  # metrics.jsonl
    summary: Summary | None  # None until the run is complete
    result: ArmResult | None  # of a sweep's arm; None otherwise
    data: DataRecord | None = None
    code: CodeRecord = dataclasses.field(default_factory=CodeRecord)

    @property
    def name(self) -> str:
        """DATE/TIME of a run, DATE/SWEEP/ARM of an arm."""
        n = 3 if self.path.absolute().name.isdigit() else 2
        parts = Path(files.public(str(self.path))).parts
        if len(parts) == 1:  # of a run that lies elsewhere no folder is named but dates and times
            whole = self.path.absolute().parts
            dated = itertools.takewhile(lambda part: part[0].isdigit(), reversed(whole[:-1]))
            parts = (*reversed(list(dated)), whole[-1])
        return "/".join(parts[-n:])

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @cached_property
    def status(self) -> str:
        """done, failed, pruned, running or stopped."""
        if self.result and self.result.status in ("failed", "pruned"):
            return self.result.status
        if self.summary:
            return "done"
        return "running" if time.time() - self.touched < ALIVE else "stopped"

    @cached_property
    def touched(self) -> float:
        """When its last point was written, in seconds since 1970."""
        for name in ("metrics.jsonl", config.RESOLVED):
            if (self.path / name).exists():
                return (self.path / name).stat().st_mtime
        return 0.0

    @property
    def day(self) -> str:
        """The UTC day of its last point: 2026-11-28."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.touched))

    @property
    def score(self) -> float | None:
        """The best val/bpb so far: of a complete run, what its sweep minimises."""
        if self.summary and math.isfinite(self.summary.best_val_bpb):
            return self.summary.best_val_bpb
        return min((bpb for _, bpb in self.curve("val/bpb")), default=None)

    @property
    def perplexity(self) -> float | None:
        """val/ppl of the checkpoint that has the score; None if the run is not complete."""
        end = self.summary
        if end is None:
            return None
        at_best = [ppl for step, ppl in self.curve("val/ppl", "step") if step == end.best_step]
        if end.step == end.best_step and end.val_ppl is not None:
            return end.val_ppl
        return at_best[-1] if at_best else None

    @property
    def end(self) -> Summary:
        """The summary of a run that is complete."""
        assert self.summary is not None, f"{self.path} is not complete"
        return self.summary

    def curve(self, key: str, against: str = "tokens") -> list[tuple[float, float]]:
        """The finite points of a metric against tokens, seconds, step or flops."""
        column = against
        scale: float = 1
        if against == "flops":
            column = "tokens"
            scale = self.flops_per_token or 0
        points = []
        for row in self.rows:
            x = row.get(column)
            y = row.get(key)
            if is_number(x) and is_number(y):
                points.append((x * scale, y))
        return points

    @property
    def flops_per_token(self) -> float | None:
        end = self.summary
        return end.flops / end.tokens if end and end.tokens else None

    @property
    def corpus(self) -> str:
        """The fingerprint of the text of both splits; runs with different ones are not ranked."""
        return self.data.tokens.corpus if self.data else ""

    @property
    def corpus_name(self) -> str:
        name = self.settings.get("corpus.name", "?")
        if name != "files":
            return name
        names = self.data.corpus.file_names() if self.data else []
        if len(names) == 1:
            return names[0]
        path = self.settings.get("corpus.path")  # of a folder; a list or a glob has no name
        folder = Path(path).name if isinstance(path, str) and not set(path) & set("*?[") else ""
        if not names:  # the run ended before it had read its text
            return folder or name
        return f"{folder} ({len(names)} files)" if folder else f"{len(names)} files"

    @property
    def val_bytes(self) -> int | None:
        """The size of the validation text."""
        return self.data.tokens.splits.val.n_bytes if self.data else None

    @property
    def tokenizer(self) -> str:
        """The tokenizer's fingerprint; losses and perplexities compare only where it is equal."""
        return self.data.tokens.tokenizer if self.data else ""

    @property
    def vocab_size(self) -> int | None:
        return self.data.tokens.vocab_size if self.data else None

    @property
    def tokens(self) -> Path | None:
        """The folder of its token files in our own cache, whatever path the run claims."""
        name = Path(self.data.folder).name if self.data else ""
        path = files.cache_dir() / name
        return path if name.startswith("tokens-") and path.is_dir() else None

    def entropy(self) -> dict[str, float]:
        """The exact entropy of the text's source, by name; empty if it is not known.

        No model can have fewer bits per byte.
        """
        values = [self.summary.floor_bpb if self.summary else None]
        values += [bpb for _, bpb in self.curve("corpus/floor_bpb", "step")]
        known = [bpb for bpb in values if is_number(bpb)]
        return {"entropy, exact": known[0]} if known else {}

    def baselines(self) -> dict[str, float]:
        """val/bpb of counted n-grams on the run's own tokens, by name.

        What the run itself has logged where the tokens are gone, as of a run of another machine;
        empty if they are too many.
        """
        path = self.path / "tokenizer.json"
        if self.tokens is None or not path.exists():
            logged = {name: self.curve(key) for name, key in baselines.METRICS.items()}
            return {name: points[-1][1] for name, points in logged.items() if points}
        return baselines.counted(self.tokens, lambda: tokenizers.load(path))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value out of a file is a finite number, and one that a float can hold."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


# ------------------------------------------------------------------------------------- reading


def find(roots: Sequence[Path]) -> list[Record]:
    """Every run at or below the given directories, in the order of their paths.

    Damaged ones are logged and skipped. ValueError if a directory does not exist.
    """
    paths = set()
    for root in roots:
        if not root.exists():
            raise ValueError(f"{root} does not exist: give a run, a sweep or a folder of runs")
        paths |= set(run_directories([root]))
    found = []
    for path in sorted(paths, key=natural):
        try:
            found.append(read(path))
        except (ValueError, OSError) as error:
            log.warning(f"{path} is skipped: {' '.join(str(error).split())}")
    return found


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts the paths of arm 2 before those of arm 10."""
    return [ranking.natural(part) for part in path.parts]


def read(path: Path) -> Record:
    """The record of one run directory; ValueError names the file in it that is damaged."""
    files.no_links(path)
    settings = flat_values(_yaml(path / config.RESOLVED, dict))
    try:
        msgspec.convert(settings, Known)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path / config.RESOLVED}: {error}") from None
    code = read_part(path, CodeRecord) or CodeRecord()
    if code.extended:  # not the run that was as long from the start
        settings["run.extended_from"] = ", ".join(map(str, code.extended))
    result_path = path / RESULT
    result = read_result(result_path) if result_path.exists() else None
    return Record(
        path=path,
        settings=settings,
        overrides=_overrides(path, result),
        rows=read_rows(path / "metrics.jsonl"),
        summary=read_part(path, Summary),
        result=result,
        data=read_part(path, DataRecord),
        code=code,
    )


def _overrides(path: Path, result: ArmResult | None) -> list[str]:
    """The words of the command line, out of an arm's result or what Hydra wrote."""
    if result and result.overrides:
        return result.overrides
    file = path / ".hydra" / "overrides.yaml"
    return [str(word) for word in _yaml(file, list)] if file.exists() else []


def _yaml(path: Path, kind: type) -> Any:
    try:
        found = plain_yaml(foreign.read_text(path, MAX_BYTES)) or kind()
    except DamagedError:
        raise
    except Exception as error:  # YAML has a dozen unrelated classes for bad files
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"{path} holds no {kind.__name__}")
    return found
