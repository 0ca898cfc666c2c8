"""Read run directories as they lie there: settings, curves, summary; and fold seeds into arms.

    runs = records.find([Path("outputs")])
    for arm in records.arms(runs, by=["model", "optimizer.lr"]): print(arm.label, arm.mean)

Nothing is trusted to be complete: a run may be training, or may have been killed mid-line.
"""

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from lm import config
from lm.record.schemas import CodeRecord, DataRecord, Row, Summary, read_part
from lm.settings import MAX_BYTES, flat_values, plain_yaml
from lm.sweep import ranking as folding
from lm.system import files
from lm.system.errors import ConfigError, DamagedError
from lm.system.schemas import Int

log = logging.getLogger(__name__)
ALIVE = 300.0  # seconds without a new point after which a run is no longer called running
VALUES = dict[str, Int | float | str | bool | list[Any] | None]  # of a row


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
    result: folding.ArmResult | None  # of a sweep's arm; None otherwise
    data: DataRecord | None = None
    code: CodeRecord = dataclasses.field(default_factory=CodeRecord)

    @property
    def name(self) -> str:
        """DATE/TIME of a run, DATE/SWEEP/ARM of an arm."""
        parts = self.path.absolute().parts
        return "/".join(parts[-3:] if parts[-1].isdigit() else parts[-2:])

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
    def score(self) -> float | None:
        """The best val/bpb so far: of a complete run, what its sweep minimises."""
        if self.summary and math.isfinite(self.summary.best_val_bpb):
            return self.summary.best_val_bpb
        return min((v for _, v in self.curve("val/bpb")), default=None)

    def curve(self, key: str, against: str = "tokens") -> list[tuple[float, float]]:
        """The points of a metric against tokens, seconds, step or flops; those that are not
        numbers are left out."""
        each, column = (self.flops_per_token or 0, "tokens") if against == "flops" else (1, against)
        pairs = [(row.get(column), row.get(key)) for row in self.rows]
        both = [p for p in pairs if all(isinstance(v, (int, float)) for v in p)]
        both = [p for p in both if all(map(math.isfinite, p))]
        return [(x * each, y) for x, y in both]

    @property
    def corpus(self) -> str:
        """The fingerprint of the text of both splits; runs with different ones are not ranked."""
        return self.data.tokens.corpus if self.data else ""

    @property
    def corpus_name(self) -> str:
        name = self.settings.get("corpus.name", "?")
        if name == "files":
            names = self.data.corpus.file_names() if self.data else []
            return names[0] if len(names) == 1 else f"{len(names)} files"
        return name

    @property
    def tokenizer(self) -> str:
        """The tokenizer's fingerprint; losses and perplexities compare only where it is equal."""
        return self.data.tokens.tokenizer if self.data else ""

    @property
    def tokens(self) -> Path | None:
        """The folder of its token files in our own cache, whatever path the run claims."""
        name = Path(self.data.folder).name if self.data else ""
        path = files.cache_dir() / name
        return path if name.startswith("tokens-") and path.is_dir() else None

    @property
    def flops_per_token(self) -> float | None:
        end = self.summary
        return end.flops / end.tokens if end and end.tokens else None


@dataclass
class Arm:
    """Runs that differ in their seed alone."""

    label: str
    runs: list[Record]  # one a seed, by seed

    @property
    def done(self) -> list[Record]:
        return [r for r in self.runs if r.status == "done" and r.score is not None]

    @property
    def mean(self) -> float | None:
        return folding.mean_and_spread([r.score for r in self.done])[0]

    @property
    def spread(self) -> float | None:
        return folding.mean_and_spread([r.score for r in self.done])[1]

    @property
    def n(self) -> int:
        return len(self.done)


# ------------------------------------------------------------------------------------- reading


def find(roots: Sequence[Path]) -> list[Record]:
    """Every run at or below the given directories, in the order of their paths; damaged ones are
    named and left out."""
    paths: dict[Path, None] = {}
    for root in roots:
        if not root.exists():
            raise ValueError(f"{root} does not exist: give a run, a sweep or a folder of runs")
        for folder, below, names in os.walk(root):
            if config.RESOLVED in names:
                paths[Path(folder)] = None
                below.clear()
            below[:] = [name for name in below if name not in ("cache", "wandb")]
    found = []
    for path in sorted(paths, key=natural):
        try:
            found.append(read(path))
        except (ValueError, OSError) as error:
            log.warning(f"{path} is left out: {' '.join(str(error).split())}")
    return found


def natural(path: Path) -> list[tuple[int, str]]:
    return [folding.natural(part) for part in path.parts]


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
    arm = path / folding.RESULT
    result = folding.read_result(arm) if arm.exists() else None
    overrides = result.overrides if result else []
    if not overrides:
        words = path / ".hydra" / "overrides.yaml"
        overrides = [str(w) for w in _yaml(words, list)] if words.exists() else []
    return Record(
        path,
        settings,
        overrides,
        lines(path / "metrics.jsonl"),
        read_part(path, Summary),
        result,
        read_part(path, DataRecord),
        code,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; a line that is torn or strange, or is still being written, is
    left out."""
    if not path.exists():
        return []
    rows = []
    for line in files.read_text(path, errors="replace").split("\n"):
        try:
            row = json.loads(line)
            msgspec.convert(row, Row)
            msgspec.convert(row, VALUES)
        except (ValueError, RecursionError):
            continue
        rows.append(row)
    return rows


def _yaml(path: Path, kind: type) -> Any:
    try:
        found = plain_yaml(files.read_text(path, MAX_BYTES)) or kind()
    except DamagedError:
        raise
    except Exception as error:  # YAML has a dozen unrelated classes for bad files
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"{path} holds no {kind.__name__}")
    return found


# ------------------------------------------------------------------------------------- folding


def arms(runs: Sequence[Record], by: Sequence[str] = ()) -> list[Arm]:
    """The runs grouped by all their settings but the seed, or by the keys `by`.

    If a seed ran more than once with the same settings, its newest complete run counts.
    """
    groups: dict[str, dict[tuple, Record]] = {}
    keys = [f"{key}.name" if key in config.PARTS else key for key in by]
    for run in runs:
        if by:
            identity: Any = [run.corpus, *(run.settings.get(k) for k in keys)]
            place: tuple = (run.path,)
        else:
            identity = [run.corpus, run.tokenizer, trained_by(run.settings)]
            place = (run.seed,)
        group = groups.setdefault(json.dumps(identity, sort_keys=True, default=str), {})
        rival = group.get(place)
        if rival is None or _rank(run) >= _rank(rival):
            group[place] = run
    members = [sorted(g.values(), key=lambda r: (r.seed, str(r.path))) for g in groups.values()]
    found: list[Arm] = []
    for corpus in dict.fromkeys(group[0].corpus for group in members):
        mine = [group for group in members if group[0].corpus == corpus]
        found += [Arm(name, group) for name, group in zip(labels(mine, keys), mine, strict=True)]
    return found


def trained_by(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the score, the seed left out."""
    return {
        key: value
        for key, value in settings.items()
        if key != "seed" and not config.keeps_result(key)
    }


def _rank(run: Record) -> tuple[bool, float]:
    return run.status == "done", run.touched


def labels(groups: Sequence[Sequence[Record]], by: Sequence[str] = ()) -> list[str]:
    """A short name for each group of one corpus: what sets it apart from the others."""
    firsts = [group[0] for group in groups]
    if by:
        return [" ".join(short(k, r.settings.get(k)) for k in by) for r in firsts]
    parts: dict[str, list[Record]] = {}
    for run in firsts:
        parts.setdefault(experiment_number(run), []).append(run)
    found = {id(run): name for part in parts.values() for run, name in _named(part)}
    if len(parts) > 1:  # the arms of one experiment say nothing of what another one set
        for number, part in parts.items():
            for run in part:
                found[id(run)] = f"{number} {found[id(run)]}".strip()
    return [found[id(run)] for run in firsts]


def experiment_number(run: Record) -> str:
    """004 of 004_adamw_vs_muon, or the name itself; empty for a run that has none."""
    name = run.settings.get("name") or ""
    number = name.partition("_")[0]
    return number if number.isdecimal() else name


def _named(firsts: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """Names by the words of the command line if these tell all apart, else by the settings."""
    named = _apart([dict(words(r.overrides)) for r in firsts], every=True)
    if not all(named) or len(set(named)) < len(named):
        named = _apart([trained_by(r.settings) for r in firsts])
    for run, name in zip(firsts, named, strict=True):
        ends = run.settings.get("run.extended_from")
        longer = f" (extended from step {ends})" if ends else ""
        yield run, (name or run.settings.get("model.name", "?")) + longer


def _apart(rows: Sequence[dict[str, Any]], every: bool = False) -> list[str]:
    """For each row its values of the keys in which the rows differ: `every` one, or as few as
    tell the rows apart, the names of the parts first."""
    keys = dict.fromkeys(key for row in rows for key in row)
    differ = [k for k in keys if len({json.dumps(row.get(k), default=str) for row in rows}) > 1]
    names = [k for k in differ if k.endswith(".name") or "." not in k]
    chosen = differ if every else names
    for key in (k for k in differ if k not in chosen and all(k in row for row in rows)):
        if _tell_apart(rows, [*chosen, key]) > _tell_apart(rows, chosen):
            chosen = [*chosen, key]
    return [" ".join(short(k, row[k]) for k in chosen if k in row) for row in rows]


def _tell_apart(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    return len({json.dumps([row.get(k) for k in keys], default=str) for row in rows})


def short(key: str, value: Any) -> str:
    """model.norm=rmsnorm as rmsnorm, optimizer.lr=0.01 as lr=0.01, arm=004_x/muon as muon."""
    name = f"{key.rpartition('.')[2]}=" if "." in key else ""
    if isinstance(value, (bool, int)):
        return f"{name}{value}"
    try:
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e12  # of 800_000 every digit is wanted
        return f"{name}{int(number)}" if whole else f"{name}{number:.4g}"
    except (TypeError, ValueError):
        value = str(value)
    if key == "arm":
        return value.rpartition("/")[2]
    says_it = value.isidentifier() and value.lower() not in ("true", "false", "none", "null")
    return value if says_it else f"{name}{value}"


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; a | within a cell, which would end it, as a /."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def words(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The keys and values of a command line that decide the score, the seed left out."""
    for word in overrides:
        key, _, value = word.partition("=")
        key = key.lstrip("+")
        group = key.partition(".")[0].partition("/")[0]
        if group in ("hydra", "experiment", "seed") or config.keeps_result(key):
            continue
        yield key, value
