"""The growth benchmark's results.csv, tables and plot: called by bench.py."""

import csv
import platform
from pathlib import Path

START, END = "<!-- results -->", "<!-- /results -->"
FIELDS = ("part", "what", "logits", "context", "tokens_per_s", "gflop_per_s", "cpu_seconds",
          "peak_mb", "seconds", "percent_of_1_ms")  # fmt: skip
HEADS = {
    "context": ("size", "context", "tokens/s", "GFLOP/s", "peak MB"),
    "size": ("size", "context", "tokens/s", "GFLOP/s", "peak MB"),
    "vocabulary": ("vocabulary", "logits", "processor seconds a step", "peak MB"),
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
    """Tokens a second and memory, against context and size."""
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    columns = (
        ("context", "context, tokens (0.8M)"),
        ("size", "parameters, millions (context 256)"),
    )
    lines = (("tokens_per_s", "tokens/s"), ("peak_mb", "peak MB"))
    figure, axes = plt.subplots(2, 2, figsize=(8, 4.8), sharex="col", layout="constrained")
    for row, (up, y) in zip(axes, lines, strict=True):
        for axis, (part, x) in zip(row, columns, strict=True):
            points = [r for r in rows if r["part"] == part]
            names = [r["context"] if part == "context" else r["what"].rstrip("M") for r in points]
            across = [float(name) for name in names]
            axis.loglog(across, [float(r[up]) for r in points], "o-")
            axis.set_xticks(across, names)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.minorticks_off()
            axis.set(xlabel=x if up == "peak_mb" else None, ylabel=y if part == "context" else None)
            axis.grid(True, alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
