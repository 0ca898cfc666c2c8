"""The arms of a sweep: their results, with seeds folded into mean, spread and count.

ranking = arms.fold(arms.read(Path("outputs/sweeps/2026-11-22/08-31-28-a60b")))
print(arms.table(ranking))
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULT = "result.json"  # what an arm of a sweep leaves in its directory


def read(root: Path) -> list[dict[str, Any]]:
    """The results of a sweep's arms: the best score first, the failed ones last.

    Each has arm, overrides, status (ok, failed or pruned), value (None unless ok) and error.
    """
    found = []
    for path in root.glob(f"*/{RESULT}"):
        found.append({"arm": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))})
    return sorted(found, key=lambda a: (a["value"] is None, a["value"] or 0.0, natural(a["arm"])))


def fold(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all arms that differ in `seed` alone, the lowest mean first.

    A row has settings (the words in which the sweep's arms differ), mean, spread (the sample's
    standard deviation, None for one value), n, values, failed, pruned and arms.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in results:
        words = tuple(w for w in result["overrides"] if not w.startswith("seed="))
        groups.setdefault(words, []).append(result)
    shared = set.intersection(*map(set, groups)) if groups else set()
    rows = []
    for words, members in groups.items():
        values = [r["value"] for r in members if r["status"] == "ok"]
        mean, spread = mean_and_spread(values)
        rows.append(
            {
                "settings": [w for w in words if w not in shared],
                "mean": mean,
                "spread": spread,
                "n": len(values),
                "values": values,
                "failed": sum(r["status"] == "failed" for r in members),
                "pruned": sum(r["status"] == "pruned" for r in members),
                "arms": sorted((r["arm"] for r in members), key=natural),
            }
        )
    return sorted(rows, key=lambda row: (row["mean"] is None, row["mean"] or 0.0))


def mean_and_spread(values: Iterable[float]) -> tuple[float | None, float | None]:
    """The mean and the sample's standard deviation; None for each that the values do not give."""
    values = [v for v in values if math.isfinite(v)]
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def table(ranking: Sequence[dict[str, Any]]) -> str:
    """The ranking as lines of text: score, spread over seeds, number of seeds, settings, arms."""
    lines = [f"{'val/bpb':>9}  {'+-':>6}  {'n':>2}  settings (and its arms)"]
    for row in ranking:
        score = "   failed" if row["mean"] is None else f"{row['mean']:9.4f}"
        if row["mean"] is None and row["pruned"]:
            score = "   pruned"
        spread = "" if row["spread"] is None else f"{row['spread']:.4f}"
        lost = "".join(f", {row[k]} {k}" for k in ("failed", "pruned") if row[k] and row["n"])
        words = " ".join(row["settings"]) or "all settings the same"
        lines.append(
            f"{score}  {spread:>6}  {row['n']:>2}  {words} ({' '.join(row['arms'])}{lost})"
        )
    return "\n".join(lines)


def natural(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
