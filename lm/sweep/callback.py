"""What a sweep says at its end: the ranking of its arms, and which of them failed.

Hydra calls `Ranking` through its callbacks; the arms wrote one result.json each.
"""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lm.config import RESOLVED
from lm.sweep import ranking
from lm.sweep.tuner import STUDY
from lm.system.processes import import_words

log = logging.getLogger(__name__)


class Ranking(Callback):
    """Writes summary.json into the sweep's directory and prints it, the best settings first."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Exits with 1 if an arm failed; Hydra only warns of other exceptions in a callback."""
        root = Path(config.hydra.sweep.dir)
        results = ranking.read(root)
        rows = ranking.fold(results)
        summary = json.dumps({"ranking": rows, "arms": results}, indent=1)
        (root / "summary.json").write_text(summary + "\n", encoding="utf-8")
        log.info(f"\n{ranking.table(rows)}\n({root})")
        if any(word.startswith("corpus") for row in rows for word in row["settings"]):
            log.info(f"bits per byte of different texts do not compare: python -m lm.report {root}")
        elif rows and rows[0]["n"]:
            best = next(arm["arm"] for arm in results if arm["arm"] in rows[0]["arms"])
            sample = f"python -m lm.sample {import_words()}run={root / best}"
            log.info(f"python -m lm.report {root}; {sample}")
        failed = [arm for arm in results if arm["status"] == "failed"]
        for arm in failed:
            log.info(f"arm {arm['arm']} failed: {arm['error']} ({root / arm['arm']}/error.log)")
        having = {arm["arm"] for arm in results}
        arms_there = {path.parent.name for path in root.glob(f"*/{RESOLVED}")}
        if missing := sorted(arms_there - having, key=ranking.natural):
            who = "another process trains it, or left it"
            log.info(f"no result yet of arm {', '.join(missing)}: {who}")
        if (root / STUDY).exists():  # a search goes around what fails
            return
        if failed:
            log.info(
                f"{len(failed)} of {len(results)} arms failed; the same command with "
                f"hydra.sweep.dir={root} runs only those again"
            )
        if failed or missing:
            raise SystemExit(1)
