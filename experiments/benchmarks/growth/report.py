"""The growth benchmark's results.csv, tables and plot: called by bench.py."""

import csv
import platform
from pathlib import Path

START, END = "<!-- results -->", "<!-- /results -->"
FIELDS = ("part", "what", "context", "tokens_per_s", "gflop_per_s", "peak_mb", "seconds",
          "percent_of_1_ms")  # fmt: skip
HEADS = {
    "context": ("size", "context", "tokens/s", "GFLOP/s", "peak MB"),
    "size": ("size", "context", "tokens/s", "GFLOP/s", "peak MB"),
    "start": ("run", "seconds to the first step"),
    "logging": ("run", "seconds of the first point, before the first step", "% of a step of 1 ms"),
}


def write(folder: Path, new: list[dict]) -> None:
    """Put new rows in the place of their parts' old ones, everywhere."""
    path, fresh = folder / "results.csv", {row["part"] for row in new}
    old: list[dict] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            old = [row for row in csv.DictReader(file) if row["part"] not in fresh]
    rows = [{f: str(row.get(f, "")) for f in FIELDS} for row in [*old, *new]]
    rows.sort(key=lambda row: list(HEADS).index(row["part"]))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"On {machine()}.", ""]
    for part, head in HEADS.items():
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in (r for r in rows if r["part"] == part):
            cells = [row[f] for f in FIELDS[1:] if row[f]]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    text = (folder / "README.md").read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    block = "\n".join([START, *lines, "![growth](growth.svg)", END])
    (folder / "README.md").write_text(before + block + after, encoding="utf-8")
    plot([r for r in rows if r["part"] in ("context", "size")], folder / "growth.svg")


def machine() -> str:
    import torch

    found = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found = next((x.split(": ")[1] for x in lines if x.startswith("model name")), found)
    threads = f"{torch.get_num_threads()} threads"
    return f"{found}, {platform.system()}, torch {torch.__version__}, {threads}"


def plot(rows: list[dict], path: Path) -> None:
    """Tokens a second against context and size; memory against size."""
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}
    import matplotlib.pyplot as plt

    by_context = [r for r in rows if r["part"] == "context"]
    by_size = [r for r in rows if r["part"] == "size"]
    panels = (
        ("context, tokens", "tokens/s", by_context, "context", "tokens_per_s"),
        ("parameters, millions", "tokens/s", by_size, "what", "tokens_per_s"),
        ("parameters, millions", "peak MB", by_size, "what", "peak_mb"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
    for axis, (x, y, points, across, up) in zip(axes, panels, strict=True):
        xs = [float(r[across].rstrip("M")) for r in points]
        axis.loglog(xs, [float(r[up]) for r in points], "o-", color="#2a6fb0")
        axis.set(xlabel=x, ylabel=y)
        axis.grid(True, alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
