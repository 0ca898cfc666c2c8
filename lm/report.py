"""Look at runs, side by side and without a server: a page, plots, comparisons.

python -m lm.report experiment=001_model_ladder      # its results.csv, curves.svg, README block
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lm import cli, config, experiment, launch, records

log = logging.getLogger(__name__)


def command(cfg: config.ReportConfig) -> None:
    roots = [Path(name) for name in cfg.runs] or [Path("outputs")]
    if cfg.experiment:
        named = [r for r in records.find(roots) if r.settings.get("name") == cfg.experiment]
        for path in experiment.write(launch.folder("experiments") / cfg.experiment, named):
            log.info(f"wrote {path}")
        return


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
