"""The benchmark's table and plot, from results.csv: called by bench.py.

python experiments/benchmarks/tokenizer/report.py
"""

import csv
import importlib.metadata
import json
import os
import platform
from pathlib import Path

START, END = "<!-- tokenizer results -->", "<!-- /tokenizer results -->"


def write_report(folder: Path) -> None:
    """Rewrite speed.svg, and what is between the marks in README.md."""
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    machines = json.loads((folder / "machines.json").read_text(encoding="utf-8"))
    write_block(folder / "README.md", [*tables(rows, machines), "![speed](speed.svg)"])
    plot([r for r in rows if r["part"] in ("peers", "cold")], folder / "speed.svg")


def machine() -> str:
    """This machine, and versions: what a part was measured with."""
    names = ["numpy", "regex", "rustbpe", "tokenizers", "tiktoken", "gigatoken"]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    python = f"Python {platform.python_version()}"
    return ", ".join([f"{cpu}, {os.cpu_count()} cores", platform.system(), python, *versions])


def write_block(path: Path, lines: list[str]) -> None:
    head, start, rest = path.read_text(encoding="utf-8").partition(START)
    tail = rest.partition(END)[2]
    body = "\n".join(lines)
    path.write_text(f"{head}{start}\n{body}\n{END}{tail}", encoding="utf-8")


def tables(rows: list[dict[str, str]], machines: dict[str, str]) -> list[str]:
    out: list[str] = []
    titles = {
        "peers": "MB/s, and in brackets how many times as long as ours it takes",
        "cold": "MB/s of processor time, in a new process, and in brackets times ours",
        "processes": "MB/s over all processes, their start included",
        "merges": "MB/s of counted text, merge loop alone",
        "hostile": "seconds for 1 MB, from an empty memory of chunks",
        "scale": "seconds and peak memory of the process",
    }
    crossed = ("peers", "cold", "processes", "merges")
    for part, title in titles.items():
        mine = [r for r in rows if r["part"] == part]
        if not mine:
            continue
        out += [f"**{part}**: {title}; on {machines[part]}", ""]
        out += cross(mine) if part in crossed else plain(mine, part)
        out.append("")
    return out


def cross(rows: list[dict[str, str]]) -> list[str]:
    systems = sorted(dict.fromkeys(r["system"] for r in rows), key=lambda s: "ours" not in s)
    out = [f"| corpus | work | {' | '.join(systems)} |", "|---|---|" + "---|" * len(systems)]
    for key in dict.fromkeys((r["corpus"], r["work"]) for r in rows):
        cells = {
            r["system"]: f"{float(r['mb_per_s']):.1f} ({r['times_ours']})"
            for r in rows
            if (r["corpus"], r["work"]) == key
        }
        out.append(f"| {' | '.join(key)} | {' | '.join(cells.get(s, '') for s in systems)} |")
    return out


def plain(rows: list[dict[str, str]], part: str) -> list[str]:
    memory = part == "scale"
    out = [f"| text | work | seconds |{' MB/s | peak MB |' if memory else ''}"]
    out.append("|---|---|---|" + "---|---|" * memory)
    for r in rows:
        more = f" {float(r['mb_per_s']):.1f} | {r['rss_mb']} |" if memory else ""
        out.append(f"| {r['corpus']} | {r['work']} | {float(r['seconds']):.2f} |{more}")
    return out


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Bars of MB/s by system, one panel for each kind of work."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "lm"  # the same rows give the same file
    colors = {
        "ours": "C0",
        "tiktoken": "C1",
        "rustbpe": "C2",
        "HF tokenizers": "C3",
        "gigatoken": "C4",
    }
    kinds = ["train", "encode, first call", "encode to a list", "decode a list"]
    figure, axes = plt.subplots(1, len(kinds), figsize=(13, 3.4))
    for axis, kind in zip(axes, kinds, strict=True):
        mine = [r for r in rows if r["work"].startswith(kind)]
        corpora = list(dict.fromkeys(r["corpus"] for r in mine))
        systems = list(dict.fromkeys(r["system"] for r in mine))
        for k, system in enumerate(systems):
            speed = [
                next((float(r["mb_per_s"]) for r in mine if key(r) == (c, system)), 0)
                for c in corpora
            ]
            at = [c + k * 0.8 / len(systems) for c in range(len(corpora))]
            axis.bar(at, speed, 0.8 / len(systems), label=system, color=colors[system])
        axis.set_xticks([c + 0.3 for c in range(len(corpora))], corpora)
        axis.set_title(kind)
        axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the legend above the bars
        axis.legend(fontsize=7, frameon=False, ncol=2, loc="upper center")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("MB/s, one thread")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def key(row: dict[str, str]) -> tuple[str, str]:
    return row["corpus"], row["system"]


if __name__ == "__main__":
    write_report(Path(__file__).parent)
