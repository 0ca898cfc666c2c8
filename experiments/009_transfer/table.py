"""What a rate tuned on the base costs at other sizes: a table and a chart out of results.csv.

python experiments/009_transfer/table.py
"""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from lm.report import figures

HERE = Path(__file__).parent
BASE = "base"
HEAD = (
    "| size | best rate | its val/bpb | rate of the base | its val/bpb | behind | shift |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def curves(path: Path) -> dict[str, dict[float, list[float]]]:
    """The val/bpb of each seed by arm and rate."""
    scores: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rate = re.search(r"lr=([\d.e-]+)", row["arm"])
            name = row["arm"].split()[0]
            if rate and row["status"] == "done":
                scores[name][float(rate[1])].append(float(row["val_bpb"]))
    return {name: dict(sorted(by_rate.items())) for name, by_rate in scores.items()}


def table(found: dict[str, dict[float, list[float]]]) -> str:
    """A row for each size: its own best rate beside that of the base, both by the mean of seeds."""
    means = {
        name: {rate: float(np.mean(values)) for rate, values in by_rate.items()}
        for name, by_rate in found.items()
    }
    of_base = min(means[BASE], key=means[BASE].__getitem__)
    lines = [HEAD]
    for name, by_rate in means.items():
        best = min(by_rate, key=by_rate.__getitem__)
        behind = by_rate[of_base] - by_rate[best]
        lines.append(
            f"| {name} | {best:g} | {by_rate[best]:.4f} | {of_base:g} | {by_rate[of_base]:.4f} "
            f"| {behind:+.4f} | {best / of_base:.2f} |"
        )
    return "\n".join(lines)


def share_of_tuning(path: Path) -> float:
    """Operations of all runs of the base, over those of the same runs at each of the sizes."""
    flops: dict[str, float] = defaultdict(float)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            flops[row["arm"].split()[0]] += float(row["flops"])
    usual = sum(n for name, n in flops.items() if name.startswith("usual"))
    return flops[BASE] / usual


def series(label: str, by_rate: dict[float, list[float]]) -> figures.Series:
    """A curve over the rates, in ten-thousandths, with the range of its seeds."""
    rates = [round(rate * 1e4) for rate in by_rate]
    lowest, *_, highest = np.sort(np.array(list(by_rate.values())), axis=1).T
    middle = [float(np.mean(values)) for values in by_rate.values()]
    return figures.Series(label, rates, middle, band=(lowest, highest))


def draw(found: dict[str, dict[float, list[float]]], path: Path) -> None:
    """The sizes that are carried over from the base, and beside them those that are not."""
    panels = {
        "carried over from the base": [BASE, *(n for n in found if n[:5] in ("width", "depth"))],
        "as usual": [BASE, *(name for name in found if name.startswith("usual"))],
    }
    drawn = {
        title: [series(name.removeprefix("usual_"), found[name]) for name in names]
        for title, names in panels.items()
    }
    figures.charts(drawn, path, ["optimizer.lr, ten-thousandths"] * 2, "val/bpb")


def write_block(mark: str, text: str) -> None:
    """Print a text, and write it into the README between the marks of that name."""
    block = f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->"
    print(block)
    page = (HERE / "README.md").read_text(encoding="utf-8")
    page = re.sub(f"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page, encoding="utf-8")


def main() -> None:
    found = curves(HERE / "results.csv")
    draw(found, HERE / "rates.svg")
    share = share_of_tuning(HERE / "results.csv")
    text = f"Tuning the base takes {share:.1%} of the operations of tuning each size."
    write_block("table", f"{table(found)}\n\n{text}")


if __name__ == "__main__":
    main()
