"""What a sweep says at its end: the ranking of its arms, and which of them failed.

Hydra calls `Ranking` through its callbacks; the arms wrote one result.json each.
"""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger(__name__)


class Ranking(Callback):
    """Writes summary.json into the sweep's directory and prints it, the best arm first."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Exits with 1 if an arm failed; Hydra only warns of other exceptions in a callback."""
        root = Path(config.hydra.sweep.dir)
        arms = read(root)
        (root / "summary.json").write_text(json.dumps(arms, indent=1) + "\n", encoding="utf-8")
        failed = [arm for arm in arms if arm["status"] != "ok"]
        log.info(f"\n{'val/bpb':>9}  arm  settings        ({root})")
        for arm in arms:
            score = f"{arm['value']:9.4f}" if arm["status"] == "ok" else "   failed"
            log.info(f"{score}  {arm['arm']:>3}  {' '.join(arm['overrides'])}")
        for arm in failed:
            log.info(f"arm {arm['arm']} failed: {arm['error']} ({root / arm['arm']}/error.log)")
        if failed:
            log.info(
                f"{len(failed)} of {len(arms)} arms failed; the same command with "
                f"hydra.sweep.dir={root} runs only those again"
            )
            raise SystemExit(1)


def read(root: Path) -> list[dict[str, Any]]:
    """The results of a sweep's arms: the best score first, the failed ones last."""
    arms = []
    for path in root.glob("*/result.json"):
        arms.append({"arm": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))})
    return sorted(arms, key=lambda a: (a["value"] is None, a["value"] or 0.0, a["arm"]))
