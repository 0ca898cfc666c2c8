"""Look at runs side by side, without a server: one HTML page, plots, a table on the terminal.

python -m lm.report                                       # all of outputs/
python -m lm.report outputs/sweeps/2026-11-22/08-31-28-a60b by=model,optimizer.lr out=page.html
python -m lm.report watch=true                            # again and again while runs train
python -m lm.report experiment=001_model_ladder           # its results.csv, curves.svg, README
python -m lm.report compare=RUN_A,RUN_B                   # the paired difference in bits per byte
"""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm import board, cli, config, experiment, figures, launch, paired, records, store
from lm.records import Arm, Record

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between two pages while runs are watched
DRAWN = 8  # arms of a corpus in the plots


def command(cfg: config.ReportConfig) -> None:
    roots = [Path(name) for name in cfg.runs] or [Path("outputs")]
    if cfg.experiment:
        named = [r for r in records.find(roots) if r.settings.get("name") == cfg.experiment]
        for path in experiment.write(launch.folder("experiments") / cfg.experiment, named):
            log.info(f"wrote {path}")
        return
    if cfg.compare:
        names = cfg.compare.split(",")
        if len(names) != 2:
            raise ValueError(f"compare={cfg.compare}: give two run directories as A,B")
        print(paired.told(*names, paired.compare(*names)))
        return
    runs = write(cfg, roots)
    while cfg.watch:
        time.sleep(EVERY)
        again = write(cfg, roots, quiet=True)
        if any(r.status == "running" for r in runs) and not any(
            r.status == "running" for r in again
        ):
            log.info("no run is training any more")
        runs = again


def write(cfg: config.ReportConfig, roots: Sequence[Path], quiet: bool = False) -> list[Record]:
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
    store.atomic_write(out, board.page(view, about))
    if quiet:
        return runs
    written = [out]
    done = [arm for arm in records.arms(runs, by) if arm.n]
    if done:
        panels = experiment.panels(best(done))
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
    return "\n".join(lines)


def words(arguments: Sequence[str]) -> list[str]:
    """`DIR DIR key=value` as key=value alone: directories become the setting `runs`."""
    paths = [w for w in arguments if "=" not in w and not w.startswith("-")]
    rest = [w for w in arguments if w not in paths]
    return [*([f"runs={list(paths)}"] if paths else []), *rest]


def main() -> None:
    sys.argv[1:] = words(sys.argv[1:])
    cli.main(config.ReportConfig, command)


if __name__ == "__main__":
    main()
