"""Open a run directory: its configuration, its tokenizer, its model at a checkpoint.

run = Run.open("latest")
model = run.model("best")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm import artifact, checkpoint, cli, config, store, tokenizers
from lm.models.base import LanguageModel


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
        remote = name.startswith(artifact.PREFIX)
        path = artifact.fetch(name) if remote else cli.find_run(name)
        cfg = config.load(path / config.RESOLVED)
        if not (path / "tokenizer.json").exists():
            raise ValueError(
                f"{path} has no tokenizer.json: it stopped before training began; "
                f"python -m lm.train resume={path} goes on"
            )
        return cls(path, cfg, tokenizers.load(path / "tokenizer.json"))

    def checkpoint(self, which: str) -> Path:
        """The folder of a checkpoint: best, last or a step; verified."""
        found = checkpoint.steps(self.path)
        if not found:
            raise ValueError(
                f"{self.path} has no checkpoint: python -m lm.train resume={self.path} makes one"
            )
        step = found[-1]
        if which == "best":
            state = store.read_json(checkpoint.folder(self.path, step) / "state.json")["state"]
            step = state["best_step"] if state["best_step"] in found else step
        elif which != "last":
            if not which.isdigit() or int(which) not in found:
                steps = ", ".join(map(str, found))
                raise ValueError(
                    f"checkpoint={which} is not in {self.path}: choose best, last or one of {steps}"
                )
            step = int(which)
        folder = checkpoint.folder(self.path, step)
        store.verify(folder)
        return folder

    def model(self, which: str = "best") -> LanguageModel:
        """The model with the weights of a checkpoint, in evaluation mode, on the CPU."""
        folder = self.checkpoint(which)
        model = self.cfg.model.build(self.tokenizer.vocab_size)
        checkpoint.load_weights(folder, model)
        return model.eval()
