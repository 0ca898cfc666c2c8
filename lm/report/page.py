"""The report as one HTML file, its plots beside it, and the ranking as lines for the terminal."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.report import board, experiment, figures, folding, lr_range, records
from lm.report.folding import Ranking
from lm.report.records import Record
from lm.settings.commands import ReportConfig
from lm.sweep import ranking as terminal
from lm.system import files
from lm.system.errors import ConfigError
from lm.system.streams import print_text
from lm.system.text import printable

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
MARK = "<title>lm report</title>"  # in each page
PLOTTED = 8  # arms of a corpus in the plots, at most
LISTED = 20  # arms of a corpus on the terminal, at most


def write(cfg: ReportConfig, roots: Sequence[Path], quiet: bool = False) -> list[Record]:
    """Write the page; unless `quiet`, draw its plots beside it and print the rankings.

    Returns the runs found at or below `roots`; ValueError if there is none.
    """
    out = Path(cfg.out)
    _check_own(out)
    runs, rankings = ranked(cfg.by, roots)
    view = board.view(rankings, beside=out.parent)
    text = html(view, roots, cfg.watch)
    files.make_folder(out.parent)
    files.atomic_write(out, text)
    if quiet:
        return runs
    written = [out, *draw(rankings, out)]
    for ranking, corpus in zip(rankings, view["corpora"], strict=True):
        print_text(table(ranking, corpus["baselines"]))
    for test in view["ranges"]:
        print_text(f"\nrange test of {test['label']}: the training loss against the rate")
        for line in test["says"]:
            print_text(f"  {line}")
    log.info(f"wrote {', '.join(map(str, written))}")
    return runs


def ranked(by: str, roots: Sequence[Path]) -> tuple[list[Record], list[Ranking]]:
    """The runs found at or below `roots`, and the rankings of their arms: see ReportConfig.by.

    Raises ValueError if there is no run, or none that has such a setting.
    """
    runs = records.find(roots)
    if not runs:
        raise ValueError(
            f"{', '.join(map(str, roots))}: no run is there; python -m lm.train makes one"
        )
    keys = [key for key in by.split(",") if key]
    for key in keys:
        if not any(key in run.settings or f"{key}.name" in run.settings for run in runs):
            raise ValueError(f"by={by}: no run has a setting {key}")
    return runs, folding.rank(folding.fold_seeds(runs, keys))


def _check_own(out: Path) -> None:
    """ConfigError where the page, or a plot beside it, would replace a file that is not ours."""
    files.check_own(out, MARK)
    for path in [*plots(out), *plots(out, "range")]:
        if path.exists() and not out.exists():
            raise ConfigError(f"{path} is there without its page {out}: choose another out=")


def plots(out: Path, kind: str = "curves") -> list[Path]:
    """The plots of one kind beside a page."""
    return [out.with_name(f"{out.stem}-{kind}{ending}") for ending in (".svg", ".png")]


def draw(rankings: Sequence[Ranking], out: Path) -> list[Path]:
    """Plots of the best arms of each text, and of range tests, as .svg and .png beside the page."""
    best = []
    tests = []
    for ranking in rankings:
        complete = [arm for arm in ranking.arms if arm.n and not lr_range.is_one([arm])]
        tests += [arm for arm in ranking.arms if arm.n and lr_range.is_one([arm])]
        if complete:
            best.append(Ranking(complete[:PLOTTED]))
    written = []
    panels = experiment.panels(best)
    if panels:
        written += plots(out)
        for path in plots(out):
            figures.curves(panels, path)
    if tests:
        written += plots(out, "range")
        for path in plots(out, "range"):
            lr_range.draw(tests[:PLOTTED], path)
    return written


def table(ranking: Ranking, baselines: Mapping[str, float]) -> str:
    """The ranking on one text and what to compare with, as lines for the terminal."""
    rows = [arm.row for arm in ranking.arms]
    lines = ["", terminal.table(rows[:LISTED], title=ranking.name)]
    if len(rows) > LISTED:
        lines.append(terminal.line([], f"and {len(rows) - LISTED} more in the page"))
    for name, bpb in baselines.items():
        lines.append(terminal.line([f"{bpb:.4f}"], f"({name})"))
    return "\n".join(lines)


def _as_json(values: object) -> str:
    """The values as JSON, with null for a number that is not finite.

    Characters are as they are and not as \\u202e, so that `printable` finds what would turn or hide
    a part of a name.
    """
    encoder = json.JSONEncoder(
        separators=(",", ":"), default=str, allow_nan=False, ensure_ascii=False
    )
    try:
        return encoder.encode(values)
    except ValueError:  # as there is no word for such a number
        return encoder.encode(files.finite(values))


def html(view: dict[str, Any], roots: Sequence[Path], watch: bool = False) -> str:
    """One HTML file that needs nothing else; with `watch` it loads itself again and again."""
    about = {
        "roots": " ".join(files.public(str(root)) for root in roots),
        "watch": watch,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    runs = []
    for run in view["runs"]:
        own = {key: value for key, value in run["settings"].items() if key not in view["shared"]}
        runs.append(run | {"settings": own})
    text = printable(_as_json(view | {"runs": runs, "about": about}))
    page = (WEB / "report.html").read_text(encoding="utf-8")
    for name in ("report.css", "report.js"):
        page = page.replace("{{" + name + "}}", (WEB / name).read_text(encoding="utf-8"))
    refresh = '<meta http-equiv="refresh" content="5">' if watch else ""
    # Nothing in a run may end the script element or start another: < is written as its number.
    safe = text.replace("<", "\\u003c")
    return page.replace("{{refresh}}", refresh).replace("{{data}}", safe)
