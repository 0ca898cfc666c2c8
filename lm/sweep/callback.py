"""What a sweep says at its end: the ranking of its arms, and which of them failed.

Hydra calls `Ranking` through its callbacks; the arms wrote one result.json each.
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lm.config import RESOLVED
from lm.sweep import ranking
from lm.sweep.ranking import ArmResult, Row
from lm.sweep.study import STUDY
from lm.system.environment import import_words

log = logging.getLogger(__name__)


class Ranking(Callback):
    """Concludes the sweep in its directory."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        conclude(Path(config.hydra.sweep.dir))


def conclude(root: Path) -> None:
    """Write summary.json into the sweep's directory and print it, the best settings first.

    Exits with 1 if an arm failed; Hydra only warns of other exceptions in a callback.
    """
    results = ranking.read(root)
    rows = ranking.fold(results)
    _write_summary(root, rows, results)
    log.info(f"\n{ranking.table(rows)}\n({root})")
    if any(word.startswith("corpus") for row in rows for word in row.settings):
        log.info(f"bits per byte of different texts do not compare: python -m lm.report {root}")
    elif rows and rows[0].n:
        best = next(arm for arm in results if arm in rows[0].arms)
        sample = f"python -m lm.sample {import_words()}run={root / best}"
        log.info(f"python -m lm.report {root}; {sample}")
    failed = [arm for arm, result in results.items() if result.status == "failed"]
    for arm in failed:
        log.info(f"arm {arm} failed: {results[arm].error} ({root / arm}/error.log)")
    started = {path.parent.name for path in root.glob(f"*/{RESOLVED}")}
    missing = sorted(started - results.keys(), key=ranking.natural)
    if missing:
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


def _write_summary(root: Path, rows: list[Row], results: dict[str, ArmResult]) -> None:
    table = []
    for row in rows:
        values = dataclasses.asdict(row)
        del values["label"]
        table.append(values | {"mean": row.mean, "spread": row.spread, "n": row.n})
    arms = [{"arm": arm} | msgspec.to_builtins(result) for arm, result in results.items()]
    summary = json.dumps({"ranking": table, "arms": arms}, indent=1)
    (root / "summary.json").write_text(summary + "\n", encoding="utf-8")
