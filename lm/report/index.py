"""experiments/README.md: one line for each experiment, out of the folders alone.

index.text(Path("experiments"))
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from lm.report import markdown, readme
from lm.sweep.ranking import Row
from lm.system import foreign

HEAD = """# Experiments

Each folder has its question, the command, machine-written results and a verdict; \
negative ones stay.
This page is written by `python -m lm.report experiment=NAME`.

| experiment | question | verdict | best val/bpb | seeds | date | code |
|---|---|---|---|--:|---|---|
"""


def text(root: Path) -> str:
    """The index of the folders of `root` that have a README with marks for results."""
    lines = []
    for page in sorted(root.glob("*/README.md")):
        content = foreign.read_text(page, links=True)
        if readme.MARK not in content:
            continue
        name = page.parent.name
        table = read_csv(page.parent / "results.csv")
        commits = {row["commit"] for row in table} - {""}
        cells = (
            f"[{name}]({name}/README.md)",
            section(content, "Question"),
            section(content, "Verdict"),
            best_arms(table),
            str(len({row["seed"] for row in table}) or ""),
            max((row["date"] for row in table), default=""),
            ", ".join(sorted(commits)),
        )
        lines.append(markdown.row(cells) + "\n")
    return HEAD + "".join(lines)


def best_arms(table: Sequence[dict[str, str]]) -> str:
    """The best arm of each corpus: its name, mean and spread, and its lead on the next one."""
    found = []
    for corpus in dict.fromkeys(row["corpus"] for row in table):
        arms: dict[str, list[float]] = {}
        for row in table:
            if row["corpus"] == corpus and row["status"] == "done" and row["val_bpb"]:
                arms.setdefault(row["arm"], []).append(float(row["val_bpb"]))
        rows = [Row(label, scores) for label, scores in arms.items()]
        ranked = sorted((row.mean or 0.0, row.label, row.spread) for row in rows)
        if ranked:
            mean, label, spread = ranked[0]
            line = f"{corpus}: {readme.without(label, corpus)} {mean:.4f}"
            if spread is not None:
                line += f" +- {spread:.4f}"
            if len(ranked) > 1:
                line += f", {ranked[1][0] - mean:.4f} ahead"
            found.append(line)
    return "<br>".join(found)


def section(content: str, title: str) -> str:
    """The first paragraph under a heading, on one line."""
    match = re.search(rf"^#+ {title}\s*\n+(.*?)(?=\n\s*\n|\n#|\Z)", content, re.M | re.S)
    found = " ".join(match.group(1).split()) if match else ""
    return "" if found.startswith("#") else found


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a results.csv; none if it is not there."""
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(foreign.read_text(path, links=True))))
