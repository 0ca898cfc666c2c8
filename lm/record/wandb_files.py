"""What W&B gets of a run's files: copies without the paths of this machine, and points of curves.

wandb_files.copy_all(run, out, cfg)
wandb_files.lowest(out / "metrics.jsonl")      # {"val/bpb": {"min": 2.1}, ...}
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lm import config
from lm.record import wandb_client
from lm.record.schemas import DataRecord
from lm.settings.yaml_files import to_yaml
from lm.system import files, foreign

if TYPE_CHECKING:
    import wandb

FILES = (config.RESOLVED, "code.json", "code.diff", "data.json")  # kept with the W&B run


def copy_all(run: "wandb.Run", out: Path, cfg: config.Config) -> None:
    """Copies of the run's files, without the paths of this machine."""
    values = config.public(dataclasses.asdict(cfg))
    for name in FILES:
        copy = Path(run.dir) / name
        if name == config.RESOLVED:
            copy.write_text(to_yaml(values), encoding="utf-8")
        elif not (out / name).exists():
            continue
        elif name == DataRecord.file:
            data = files.read_record(out / name, DataRecord)
            data.folder = Path(data.folder).name
            copy.write_text(files.to_json(data) + "\n", encoding="utf-8")
        else:
            shutil.copy(out / name, copy)
        run.save(str(copy), base_path=run.dir, policy="now")


def last_points(metrics: Path, seconds: float) -> list[Mapping[str, object]]:
    """The points of the last `seconds` of training, out of a run's metrics.jsonl."""
    rows = [json.loads(line) for line in foreign.read_text(metrics).split("\n")[:-1]]
    return [row for row in rows if row["seconds"] > rows[-1]["seconds"] - seconds]


def lowest(metrics: Path) -> dict[str, dict[str, float]]:
    """What W&B keeps of some curves, out of a run's metrics.jsonl: {"val/bpb": {"min": 2.1}, ...}.

    The last values in their place would be what W&B sorts runs by, and a sweep what it goes by.
    W&B's own client knows of a resumed run only what came since.
    """
    found: dict[str, float] = {}
    for line in foreign.read_text(metrics).split("\n"):
        if '"val/bpb"' not in line:  # a point of training, of which there may be a million
            continue
        row = json.loads(line)
        for key in wandb_client.LOWEST:
            if isinstance(row.get(key), (int, float)):
                found[key] = min(row[key], found.get(key, math.inf))
    return {key: {"min": value} for key, value in found.items()}
