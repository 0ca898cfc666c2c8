"""The report as one HTML file, its plots beside it, and the ranking as lines for the terminal."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm.report import board, experiment, figures, records
from lm.report.records import Arm, Record
from lm.settings import Settings
from lm.system import files
from lm.system.text import printable

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
DRAWN = 8  # arms of a corpus in the plots


@dataclass
class ReportConfig(Settings):
    """python -m lm.report [RUN_OR_SWEEP ...]: look at runs, side by side."""

    runs: list[str] = field(default_factory=list)  # directories; none: all of outputs/
    by: str = ""  # settings that make an arm, such as model,optimizer.lr; empty: all but the seed
    out: str = "outputs/report.html"  # plots are written beside it
    experiment: str = ""  # fill this folder of experiments/ from the runs of that name
    compare: str = ""  # two run directories A,B: the paired difference in bits per byte
    watch: bool = False  # write the page again and again while runs train


def write(cfg: ReportConfig, roots: Sequence[Path], quiet: bool = False) -> list[Record]:
    """Write the page and its plots, and print the ranking; return the runs found."""
    runs = records.find(roots)
    if not runs:
        raise ValueError(
            f"{', '.join(map(str, roots))}: no run is there; python -m lm.train makes one"
        )
    by = [key for key in cfg.by.split(",") if key]
    if strange := [k for k in by if not any(has(run, k) for run in runs)]:
        raise ValueError(f"by={cfg.by}: no run has a setting {strange[0]}")
    view = board.view(runs, by)
    about = {"roots": " ".join(map(str, roots)), "watch": cfg.watch}
    about["when"] = time.strftime("%Y-%m-%d %H:%M:%S")
    out = Path(cfg.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(out, html(view, about))
    if quiet:
        return runs
    written = [out]
    done = [arm for arm in records.arms(runs, by) if arm.n]
    if panels := experiment.panels(best(done)):
        for ending in (".svg", ".png"):
            written.append(out.with_name(f"{out.stem}-curves{ending}"))
            figures.curves(panels, written[-1])
    for corpus in view["corpora"]:
        print(table(corpus))
    log.info(f"wrote {', '.join(map(str, written))}")
    return runs


def has(run: Record, key: str) -> bool:
    return key in run.settings or f"{key}.name" in run.settings


def best(arms: Sequence[Arm]) -> list[Arm]:
    """The best few arms of each corpus, as many as a plot can show."""
    return [arm for group in experiment.by_corpus(arms).values() for arm in group[:DRAWN]]


def table(corpus: dict[str, Any]) -> str:
    """The ranking on one text, as lines for the terminal."""
    lines = [f"\n{'val/bpb':>9}  {'+-':>6}  {'n':>2}  {corpus['name']}"]
    for arm in corpus["arms"][:20]:
        mean = "        -" if arm["mean"] is None else f"{arm['mean']:9.4f}"
        spread = "" if arm["spread"] is None else f"{arm['spread']:.4f}"
        lines.append(f"{mean}  {spread:>6}  {arm['n']:>2}  {arm['label']}")
    if len(corpus["arms"]) > 20:
        lines.append(f"{'':23}and {len(corpus['arms']) - 20} more in the page")
    for name, value in corpus["floors"].items():
        lines.append(f"{value:9.4f}  {'':>6}  {'':>2}  ({name})")
    return printable("\n".join(lines))


def html(data: dict[str, Any], about: dict[str, Any]) -> str:
    """One HTML file that needs nothing else."""
    shared_keys = set(data["shared"])
    runs = [
        run | {"settings": {k: v for k, v in run["settings"].items() if k not in shared_keys}}
        for run in data["runs"]
    ]
    values = files.finite(data | {"runs": runs, "about": about})
    text = json.dumps(values, separators=(",", ":"), default=str, allow_nan=False)
    whole = (WEB / "report.html").read_text(encoding="utf-8")
    for name in ("report.css", "report.js"):
        whole = whole.replace("{{" + name + "}}", (WEB / name).read_text(encoding="utf-8"))
    refresh = '<meta http-equiv="refresh" content="5">' if about["watch"] else ""
    # Nothing in a run may end the script element or start another: < is written as its number.
    safe = text.replace("<", "\\u003c")
    return whole.replace("{{refresh}}", refresh).replace("{{data}}", safe)
