"""What a rate tuned on the base costs at other sizes: a table out of results.csv.

python experiments/009_transfer/table.py
"""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

HEAD = (
    "| size | best rate | its val/bpb | rate of the base | its val/bpb | behind | shift |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def curves(path: Path) -> dict[str, dict[float, float]]:
    """The mean val/bpb over seeds by arm and rate."""
    scores: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rate = re.search(r"lr=([\d.e-]+)", row["arm"])
            name = row["arm"].split()[0]
            if rate and row["status"] == "done":
                scores[name][float(rate[1])].append(float(row["val_bpb"]))
    return {
        name: {rate: float(np.mean(values)) for rate, values in sorted(by_rate.items())}
        for name, by_rate in scores.items()
    }


def table(found: dict[str, dict[float, float]]) -> str:
    """A row for each size: its own best rate beside that of the base."""
    of_base = min(found["base"], key=found["base"].__getitem__)
    lines = [HEAD]
    for name, by_rate in found.items():
        best = min(by_rate, key=by_rate.__getitem__)
        behind = by_rate[of_base] - by_rate[best]
        lines.append(
            f"| {name} | {best:g} | {by_rate[best]:.4f} | {of_base:g} | {by_rate[of_base]:.4f} "
            f"| {behind:+.4f} | {best / of_base:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(curves(Path(__file__).parent / "results.csv")))
