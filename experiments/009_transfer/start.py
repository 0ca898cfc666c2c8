"""Are models that are carried over behind the usual ones because the base starts too small?

python experiments/009_transfer/start.py

Trains the base, twice its width carried over, and twice its width as usual, at the base's rate,
from the usual initial sizes and from larger ones, and writes the table into README.md.
"""

import json
import statistics
import tempfile
from pathlib import Path

import torch
from omegaconf import OmegaConf
from table import write_block
from torch import nn

from lm import notebook
from lm.models.transformer import Transformer

HERE = Path(__file__).parent
RATE = 4.2e-3
LARGER_EMBEDDING = 5.0  # times the usual size, 0.02
LARGER_MATRIX = 3.0
ARMS = ("base", "width_128", "usual_width_128")
USUAL = Transformer.init_weights


def start_larger(model: Transformer) -> None:
    USUAL(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.mul_(LARGER_EMBEDDING)
            if isinstance(module, nn.Linear):
                module.weight.mul_(LARGER_MATRIX)


def words_of(settings: dict, prefix: str = "") -> list[str]:
    """key.of.setting=value for each setting of a part of run.yaml."""
    words = []
    for key, value in settings.items():
        if isinstance(value, dict):
            words += words_of(value, f"{prefix}{key}.")
        else:
            words.append(f"{prefix}{key}={value}")
    return words


def main() -> None:
    experiment = OmegaConf.load(HERE / "run.yaml")
    common = ["optimizer=adamw", "schedule=cosine", f"optimizer.lr={RATE}", "track=off"]
    lines = ["| initial sizes | size | val/bpb | +- |", "|---|---|--:|--:|"]
    for start, init in (("usual", USUAL), ("larger", start_larger)):
        Transformer.init_weights = init
        for arm in ARMS:
            parts = {key: experiment[key] for key in ("tokenizer", "model", "train")}
            settings = OmegaConf.to_container(OmegaConf.merge(parts, experiment.arms[arm]))
            scores = []
            for seed in range(3):
                with tempfile.TemporaryDirectory() as folder:
                    words = [*common, *words_of(settings), f"seed={seed}"]
                    run = notebook.train(*words, out=Path(folder) / "run")
                    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
                    scores.append(summary["best_val_bpb"])
            spread = statistics.stdev(scores)
            lines.append(f"| {start} | {arm} | {statistics.mean(scores):.4f} | {spread:.4f} |")
    write_block("start", "\n".join(lines))


if __name__ == "__main__":
    main()
