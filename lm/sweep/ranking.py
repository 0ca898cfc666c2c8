"""The ranking of a sweep: the results of its arms, with seeds folded into mean, spread and count.

root = Path("outputs/sweeps/2026-11-22/08-31-28-a60b")
rows = ranking.fold(ranking.read(root), root)
print(ranking.table(rows))
"""

import logging
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from lm.record.schemas import Summary, read_part
from lm.sweep import arms
from lm.sweep.arms import RESULT, ArmResult, read_result
from lm.system.errors import DamagedError

log = logging.getLogger(__name__)


@dataclass
class Row:
    """One line of a ranking: the arms that differ in their seed alone."""

    label: str
    values: list[float]  # the scores of the arms that are complete
    failed: int = 0
    pruned: int = 0
    arms: list[str] = field(default_factory=list)  # the names of their directories
    settings: list[str] = field(default_factory=list)  # the words that set the row apart
    folders: list[Path] = field(default_factory=list)  # of the arms that are complete

    def add(self, arm: str, result: ArmResult, folder: Path) -> None:
        """Count one more arm; its score is a value if it has one."""
        self.arms.append(arm)
        self.failed += result.status == "failed"
        self.pruned += result.status == "pruned"
        if result.status == "ok" and result.value is not None:
            self.values.append(result.value)
            self.folders.append(folder)

    @property
    def ends(self) -> list[Summary]:
        """What summary.json tells of the complete arms, for a column: 0.1 ms an arm to read.

        A damaged file is logged, and left out.
        """
        found = []
        for folder in self.folders:
            try:
                found.append(read_part(folder, Summary))
            except DamagedError as error:
                log.warning(f"{error}")
        return [end for end in found if end is not None]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return mean_and_spread(self.values)[0]

    @property
    def spread(self) -> float | None:
        """The sample's standard deviation; None for fewer than two values."""
        return mean_and_spread(self.values)[1]


def read(root: Path) -> dict[str, ArmResult]:
    """The results of a sweep by the names of its arms: the best score first, the failed ones last.

    A damaged file is logged, and its arm has no result.
    """
    found = {}
    for name, folder in arms.places(root).items():
        path = folder / RESULT
        if not os.path.lexists(path):
            continue
        try:
            found[name] = read_result(path)
        except DamagedError as error:
            log.warning(f"{error}")

    def place(arm: str) -> tuple[bool, float, tuple[int, str]]:
        value = found[arm].value
        return value is None, value or 0.0, natural(arm)

    return {arm: found[arm] for arm in sorted(found, key=place)}


def fold(results: dict[str, ArmResult], root: Path) -> list[Row]:
    """One row for all arms of the sweep in `root` that differ in `seed` alone, the lowest mean
    first."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm, result in results.items():
        words = tuple(word for word in result.overrides if not word.startswith("seed="))
        groups.setdefault(words, []).append(arm)
    shared = set.intersection(*map(set, groups)) if groups else set()
    rows = []
    for words, names in groups.items():
        settings = [word for word in words if word not in shared]
        row = Row(" ".join(settings) or "all settings the same", values=[], settings=settings)
        for arm in names:
            row.add(arm, results[arm], root / arm)
        row.arms.sort(key=natural)
        rows.append(row)
    return sorted(rows, key=_by_mean)


def is_of_several_texts(words: Iterable[str]) -> bool:
    """Whether arms that differ in these words have different texts: then their bits per byte do not
    compare."""
    return any(w.startswith("corpus") and not w.startswith("corpus.weights") for w in words)


def _by_mean(row: Row) -> tuple[bool, float]:
    return row.mean is None, row.mean or 0.0


def mean_and_spread(values: Iterable[float]) -> tuple[float | None, float | None]:
    """The mean and the sample's standard deviation; None for each that the values do not give."""
    values = [v for v in values if math.isfinite(v)]
    mean = statistics.fmean(values) if values else None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return mean, spread


class Column(NamedTuple):
    """A column of the ranking, in front of the labels: its texts stand to the right."""

    heading: str
    width: int
    text: Callable[[Row], str]


def _score(row: Row) -> str:
    if row.mean is not None:
        return f"{row.mean:.4f}"
    if row.pruned:
        return "pruned"
    return "failed" if row.failed else "-"


COLUMNS = [  # of a sweep's ranking and of lm.report's on the terminal
    Column("val/bpb", 9, _score),
    Column("+-", 6, lambda row: "" if row.spread is None else f"{row.spread:.4f}"),
    Column("n", 2, lambda row: str(row.n)),
]


def line(cells: Iterable[str], label: str) -> str:
    """A line of the ranking: the texts of the first columns, the others empty, and a label."""
    widths = [column.width for column in COLUMNS]
    padded = [f"{cell:>{width}}" for cell, width in zip_longest(cells, widths, fillvalue="")]
    return "  ".join([*padded, label])


def table(rows: Sequence[Row], title: str = "settings (and its arms)") -> str:
    """The ranking as lines of text: COLUMNS, label, arms."""
    lines = [line([column.heading for column in COLUMNS], title)]
    for row in rows:
        label = row.label
        if row.arms:
            lost = {"failed": row.failed, "pruned": row.pruned} if row.n else {}
            notes = "".join(f", {count} {status}" for status, count in lost.items() if count)
            label += f" ({' '.join(row.arms)}{notes})"
        lines.append(line([column.text(row) for column in COLUMNS], label))
    return "\n".join(lines)


def natural(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
