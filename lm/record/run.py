"""Open a run directory: its configuration, its tokenizer, its model at a checkpoint.

run = Run.open("latest")
model = run.model("best")
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm import config, tokenizers
from lm.models.base import LanguageModel
from lm.record import checkpoint, wandb_artifact
from lm.record.find import find_run
from lm.record.schemas import Summary, read_part
from lm.system import files, store
from lm.system.errors import DamagedError


@dataclass
class Run:
    path: Path
    cfg: config.Config
    tokenizer: Any

    @classmethod
    def open(cls, name: str) -> "Run":
        """The run in the directory `name`, the newest for "latest", or a model kept in W&B.

        Raises ValueError if it is none.
        """
        remote = name.startswith(wandb_artifact.PREFIX)
        path = wandb_artifact.fetch(name) if remote else find_run(name)
        files.no_links(path)
        cfg = config.load(path / config.RESOLVED)
        if not (path / "tokenizer.json").exists():
            raise ValueError(
                f"{path} has no tokenizer.json: it stopped before training began; "
                f"python -m lm.train resume={path} goes on"
            )
        return cls(path, cfg, tokenizers.load(path / "tokenizer.json"))

    def checkpoint(self, which: str | int) -> Path:
        """The folder of a checkpoint: best, last or a step; verified."""
        which = str(which)
        found = checkpoint.steps(self.path)
        if not found:
            raise ValueError(
                f"{self.path} has no checkpoint: python -m lm.train resume={self.path} makes one"
            )
        step = found[-1]
        if which == "best":
            best = checkpoint.read_record(checkpoint.folder(self.path, step)).state.best_step
            with contextlib.suppress(DamagedError):
                end = read_part(self.path, Summary)
                if end and end.step == step:  # a stop may have saved it before it was scored
                    best = end.best_step
            step = best if best in found else step
        elif which != "last":
            if not which.isdecimal() or int(which) not in found:
                steps = ", ".join(map(str, found))
                raise ValueError(
                    f"checkpoint={which} is not in {self.path}: choose best, last or one of {steps}"
                )
            step = int(which)
        folder = checkpoint.folder(self.path, step)
        store.verify(folder)
        return folder

    def model(self, which: str | int = "best") -> LanguageModel:
        """The model with the weights of a checkpoint, in evaluation mode, on the CPU."""
        folder = self.checkpoint(which)
        checkpoint.check_fits(folder, lambda: self.cfg.model.build(self.tokenizer.vocab_size))
        model = self.cfg.model.build(self.tokenizer.vocab_size)
        checkpoint.load_weights(folder, model)
        return model.eval()
