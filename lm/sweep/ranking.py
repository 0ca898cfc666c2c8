"""The ranking of a sweep: the results of its arms, with seeds folded into mean, spread and count.

rows = ranking.fold(ranking.read(Path("outputs/sweeps/2026-11-22/08-31-28-a60b")))
print(ranking.table(rows))
"""

import logging
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

    def add(self, arm: str, result: ArmResult) -> None:
        """Count one more arm; its score is a value if it has one."""
        self.arms.append(arm)
        self.failed += result.status == "failed"
        self.pruned += result.status == "pruned"
        if result.status == "ok" and result.value is not None:
            self.values.append(result.value)

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


def fold(results: dict[str, ArmResult]) -> list[Row]:
    """One row for all arms that differ in `seed` alone, the lowest mean first."""
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
            row.add(arm, results[arm])
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


def table(rows: Sequence[Row], title: str = "settings (and its arms)") -> str:
    """The ranking as lines of text: score, spread over seeds, number of seeds, label, arms."""
    lines = [f"{'val/bpb':>9}  {'+-':>6}  {'n':>2}  {title}"]
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread:.4f}"
        label = row.label
        if row.arms:
            lost = {"failed": row.failed, "pruned": row.pruned} if row.n else {}
            notes = "".join(f", {count} {status}" for status, count in lost.items() if count)
            label += f" ({' '.join(row.arms)}{notes})"
        lines.append(f"{_score(row):>9}  {spread:>6}  {row.n:>2}  {label}")
    return "\n".join(lines)


def _score(row: Row) -> str:
    if row.mean is not None:
        return f"{row.mean:.4f}"
    if row.pruned:
        return "pruned"
    return "failed" if row.failed else "-"


def natural(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
