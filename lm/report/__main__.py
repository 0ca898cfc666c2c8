"""Look at runs side by side, without a server: one HTML page, plots, a table on the terminal.

python -m lm.report                                       # all of outputs/
python -m lm.report outputs/sweeps/2026-11-22/08-31-28-a60b by=model,optimizer.lr out=page.html
python -m lm.report watch=true                            # again and again while runs train
python -m lm.report experiment=001_model_ladder           # its results.csv, curves.svg, README
python -m lm.report compare=RUN_A,RUN_B                   # the paired difference in bits per byte
"""

if __name__ == "__main__":
    from lm.system import signals

    signals.end_on_ctrl_c()

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lm.launch import cli, compose
from lm.report import experiment, page, paired, records, scaling
from lm.report.page import ReportConfig

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between two pages while runs are watched


def command(cfg: ReportConfig) -> None:
    roots = [Path(name) for name in cfg.runs] or [Path("outputs")]
    if cfg.experiment:
        names = (cfg.experiment, cfg.experiment + scaling.HELD_OUT)
        named = [r for r in records.find(roots) if r.settings.get("name") in names]
        for path in experiment.write(compose.folder("experiments") / cfg.experiment, named):
            log.info(f"wrote {path}")
        return
    if cfg.compare:
        names = cfg.compare.split(",")
        if len(names) != 2:
            raise ValueError(f"compare={cfg.compare}: give two run directories as A,B")
        print(paired.told(*names, paired.compare(*names)))
        return
    runs = page.write(cfg, roots)
    if cfg.watch:
        log.info(f"watching: written anew every {EVERY:g} s, until Ctrl-C")
    while cfg.watch:
        time.sleep(EVERY)
        again = page.write(cfg, roots, quiet=True)
        if any(r.status == "running" for r in runs) and not any(
            r.status == "running" for r in again
        ):
            log.info("no run is training any more")
        runs = again


def words(arguments: Sequence[str]) -> list[str]:
    """`DIR DIR key=value` as key=value alone: directories become the setting `runs`."""
    paths = [w for w in arguments if "=" not in w and not w.startswith("-")]
    rest = [w for w in arguments if w not in paths]
    return [*([f"runs={list(paths)}"] if paths else []), *rest]


def main() -> None:
    sys.argv[1:] = words(sys.argv[1:])
    cli.main(ReportConfig, command)


if __name__ == "__main__":
    main()
