"""Look at runs side by side, without a server: one HTML page, plots, a table on the terminal.

python -m lm.report                                       # all of outputs/
python -m lm.report SWEEP by=model,optimizer.lr out=page.html
python -m lm.report watch=true                            # again and again while runs train
python -m lm.report experiment=001_model_ladder           # its results and curves
python -m lm.report compare=RUN_A,RUN_B                   # paired, in bits per byte
python -m lm.report wandb:ENTITY/PROJECT                  # a team's runs, out of W&B
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("report")

import gc
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from lm.launch import cli, presets
from lm.record import wandb_project
from lm.record.find import REMOTE, find_run, is_name
from lm.report import experiment, page, paired
from lm.report.records import Record
from lm.settings.commands import ReportConfig
from lm.system.streams import check_output, print_text

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between two pages while runs are watched


def command(cfg: ReportConfig) -> None:
    """Write an experiment's results, compare two runs, or write the page of all of them."""
    if cfg.watch and any(name.startswith(REMOTE) for name in cfg.runs):
        raise ValueError(f"watch=true looks at runs of this machine: leave out {REMOTE}...")
    roots = [folder_of(name) for name in cfg.runs] or [home()]
    if cfg.experiment:
        folder = presets.experiment_folder(cfg.experiment)
        for path in experiment.write(folder, experiment.runs_of(folder, roots)):
            log.info(f"wrote {path}")
    elif cfg.compare:
        names = cli.pair(cfg.compare, is_name)
        if len(names) != 2:
            raise ValueError(f"compare={cfg.compare}: give two run directories as A,B")
        first, second = names
        found = paired.compare(first, second, cfg.trust)
        print_text(paired.describe(first, second, found))
    else:
        check_output(cfg.out)
        runs = page.write(cfg, roots)
        if cfg.watch:
            watch(cfg, roots, runs)


def home() -> Path:
    """The folder of all runs; ValueError where nothing has been trained yet."""
    outputs = Path("outputs")
    if not outputs.exists():
        raise ValueError(f"{outputs}: no run is there; python -m lm.train makes one")
    return outputs


def folder_of(name: str) -> Path:
    """The directory that a word means: its own, or that of a project's runs out of W&B."""
    if name.startswith(REMOTE):
        return wandb_project.fetch(name)
    return find_run(name) if name == "latest" else Path(name)


def watch(cfg: ReportConfig, roots: Sequence[Path], runs: Sequence[Record]) -> None:
    """Write the page again and again; `runs` are those of the page that is there."""
    log.info(f"watching: written anew every {EVERY:g} s, until Ctrl-C")
    training = any_training(runs)
    while True:
        time.sleep(EVERY)
        was_training = training
        training = any_training(page.write(cfg, roots, quiet=True))
        if was_training and not training:
            log.info("no run is training any more")


def any_training(runs: Sequence[Record]) -> bool:
    return any(run.status == "running" for run in runs)


def main() -> None:
    # Nothing that is read of thousands of runs is garbage before the page is there: to look through
    # it again and again took a fifth of the time.
    gc.set_threshold(100_000, 50, 50)
    cli.main(ReportConfig, command, paths="runs")


if __name__ == "__main__":
    main()
